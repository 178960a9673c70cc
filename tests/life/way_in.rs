//! The way in: how a process becomes a worker, what it finds there, and that whatever cannot become one never runs the caller's `main`.
#![expect(unsafe_code, reason = "a child that closes its descriptors, or has one more, before it executes")]

use std::{
    fs,
    io::{IoSlice, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{fs::PermissionsExt as _, net::UnixStream, process::CommandExt as _},
    },
    path::Path,
    process::Command,
};

use crate::program::{Ended, PATIENCE, PROBE, PROBE_AT_MAIN, Running, probe, scratch};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
};
use procession_tests::MARKER;

/// A worker that cannot start ends with this code, and no other part of the program knows of it.
const START_FAILED: i32 = 86;

fn run(command: &mut Command) -> Ended {
    Running::start(command).end(PATIENCE)
}

/// Returns how often `main` has run.
fn mains(file: &Path) -> usize {
    fs::read_to_string(file).map_or(0, |text| text.lines().count())
}

#[test]
fn a_worker_never_runs_the_body_of_main() {
    for program in [PROBE, PROBE_AT_MAIN] {
        let file = scratch("mains");
        let said = run(probe(program, &["squares"]).env("PROBE_MAINS", &file)).stdout;
        assert_eq!(said, "the squares' sum is 328350\n");
        assert_eq!(mains(&file), 1, "{program}");
    }
}

/// The values that a worker found, by name. Values of the same name follow each other.
struct Found(String);

impl Found {
    fn all<'a>(&'a self, name: &str) -> Vec<&'a str> {
        self.0
            .lines()
            .filter_map(|line| line.split_once('=').filter(|(n, _)| *n == name).map(|(_, v)| v))
            .collect()
    }

    fn one(&self, name: &str) -> &str {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name} in {}", self.0);
        all[0]
    }
}

fn state(program: &str) -> Found {
    Found(run(probe(program, &["state"]).env("PROBE_INHERITED", "by everyone")).quietly())
}

#[test]
fn a_worker_is_as_std_would_have_made_it_and_keeps_arguments_and_environment() {
    for program in [PROBE, PROBE_AT_MAIN] {
        let found = state(program);
        assert_eq!(found.one("args"), "state");
        assert_eq!(found.one("extra"), "by the pool");
        assert_eq!(found.one("inherited"), "by everyone");
        assert_eq!(found.one("cwd"), "/");
        assert_eq!(found.one("thread"), "Some(\"main\")");
        assert_eq!(found.one("own group"), "true");
        assert_eq!(found.one("worker"), "Some(0)");
        assert_eq!(found.one("marker"), "None", "the marker is cleared");
        assert_eq!(found.one("blocked"), "0000000000000000", "no signal is blocked");
        let ignored = u64::from_str_radix(found.one("ignored"), 16).unwrap();
        assert_ne!(ignored & (1 << (nix::libc::SIGPIPE - 1)), 0, "SIGPIPE is ignored");
    }
}

/// A worker has its standard streams, its connection, and a descriptor of its host, by which it notices that the host has ended.
fn check_descriptors(found: &Found) {
    let descriptors = found.all("fd");
    let what = |number: &str| descriptors.iter().filter(|fd| fd.contains(number)).count();
    assert_eq!(descriptors.len(), 5, "{descriptors:?}; the parent leaked {}", found.one("leaked"));
    assert!(descriptors.contains(&"0 /dev/null"), "{descriptors:?}");
    assert_eq!((what("pipe:"), what("socket:"), what("[pidfd]")), (2, 1, 1), "{descriptors:?}");
}

#[test]
fn a_forked_worker_is_as_one_that_was_executed() {
    for (program, method) in [(PROBE, "forkserver"), (PROBE_AT_MAIN, "forkserver"), (PROBE, "fork")] {
        let mut command = probe(program, &["state"]);
        command.env("PROBE_INHERITED", "by everyone").env("PROCESSION_START_METHOD", method);
        let found = Found(run(&mut command).quietly());
        assert_eq!(found.one("args"), "state");
        assert_eq!(found.one("extra"), "by the pool");
        assert_eq!(found.one("inherited"), "by everyone");
        assert_eq!(found.one("cwd"), "/");
        assert_eq!(found.one("own group"), "true");
        assert_eq!(found.one("worker"), "Some(0)");
        assert_eq!(found.one("marker"), "None", "the marker is cleared");
        assert_eq!(found.one("blocked"), "0000000000000000", "no signal is blocked");
        let ignored = u64::from_str_radix(found.one("ignored"), 16).unwrap();
        assert_ne!(ignored & (1 << (nix::libc::SIGPIPE - 1)), 0, "SIGPIPE is ignored");
        check_descriptors(&found);
    }
}

#[test]
fn a_marker_of_a_template_that_leads_nowhere_ends_the_process_and_never_runs_main() {
    for program in [PROBE, PROBE_AT_MAIN] {
        let marked = |marker| {
            let mut command = probe(program, &["hello"]);
            command.env(MARKER, marker);
            command
        };
        check_refused(&mut marked("3:dead:1:template"), "no connection");
        check_refused(&mut marked("3:dead:1:pattern"), "marker is damaged");
    }
}

#[test]
fn constructors_have_run_in_a_worker_that_entered_at_main() {
    assert_eq!(state(PROBE_AT_MAIN).one("constructed"), "true");
}

#[test]
fn a_worker_has_its_standard_streams_its_connection_and_its_host_and_no_other_descriptor() {
    for program in [PROBE, PROBE_AT_MAIN] {
        let found = state(program);
        check_descriptors(&found);
    }
}

#[test]
fn a_worker_that_starts_the_program_again_gets_the_program() {
    for program in [PROBE, PROBE_AT_MAIN] {
        let file = scratch("mains");
        assert_eq!(run(probe(program, &["again"]).env("PROBE_MAINS", &file)).quietly(), "hello from main\n");
        assert_eq!(mains(&file), 2);
    }
}

#[test]
fn a_program_that_starts_itself_from_its_own_workers_for_ever_is_stopped() {
    for program in [PROBE, PROBE_AT_MAIN] {
        let file = scratch("mains");
        let said = run(probe(program, &["bomb"]).env("PROBE_MAINS", &file)).quietly();
        assert!(said.contains("8 workers deep"), "{said}");
        assert_eq!(mains(&file), 9, "one program at each depth from 0 to 8");
    }
}

#[test]
fn a_program_whose_standard_streams_are_closed_has_workers() {
    for program in [PROBE, PROBE_AT_MAIN] {
        for closed_from_outside in [false, true] {
            let file = scratch("words");
            let mut command = probe(program, &["closed"]);
            command.env("PROBE_OUT", &file);
            if closed_from_outside {
                // SAFETY: between fork and exec, close is allowed, and nothing in the child uses the standard streams.
                unsafe {
                    command.pre_exec(|| {
                        (0..3).for_each(|fd| {
                            let _ = nix::unistd::close(fd);
                        });
                        Ok(())
                    })
                };
            }
            let ended = run(&mut command);
            assert!(ended.status.success(), "{ended:?}");
            assert_eq!(fs::read_to_string(file).unwrap(), "the squares' sum is 328350");
        }
    }
}

#[test]
fn a_stack_overflow_is_named_on_stderr_and_in_the_error() {
    for program in [PROBE, PROBE_AT_MAIN] {
        let ended = run(&mut probe(program, &["overflow"]));
        assert!(ended.stdout.contains("stack overflow"), "{ended:?}");
        assert!(ended.stderr.contains("thread 'main' has overflowed its stack"), "{ended:?}");
    }
}

/// Runs a program that was marked as a worker and cannot be one.
fn check_refused(command: &mut Command, words: &str) {
    let file = scratch("mains");
    let ended = run(command.env("PROBE_MAINS", &file));
    assert_eq!(ended.status.code(), Some(START_FAILED), "{ended:?}");
    assert!(ended.stderr.contains("cannot become one") && ended.stderr.contains(words), "{words}: {ended:?}");
    assert_eq!((mains(&file), &*ended.stdout), (0, ""), "main ran");
}

/// Like [`check_refused`], for a process with a host, which receives the reason.
fn check_told(command: &mut Command, mut host: UnixStream, words: &str) {
    let file = scratch("mains");
    let ended = run(command.env("PROBE_MAINS", &file));
    assert_eq!(ended.status.code(), Some(START_FAILED), "{ended:?}");
    // The command holds the worker's end, too.
    host.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut told = [0; 4096];
    let len = host.read(&mut told).unwrap();
    assert!(String::from_utf8_lossy(&told[..len]).contains(words), "{words}: {ended:?}");
    assert_eq!((mains(&file), &*ended.stdout, &*ended.stderr), (0, "", ""), "main ran, or the user was told");
}

#[test]
fn a_damaged_or_inherited_marker_ends_the_process_and_never_runs_main() {
    for program in [PROBE, PROBE_AT_MAIN] {
        for damaged in ["", "3", "3:dead", "three:dead:1", "3:dead:1:1", "3:not hexadecimal:1"] {
            check_refused(probe(program, &["hello"]).env(MARKER, damaged), "marker is damaged");
        }
        // Descriptors that are not there, or are standard streams.
        for stale in ["3:dead:1", "999:dead:1", "-1:dead:1", "0:dead:1"] {
            check_refused(probe(program, &["hello"]).env(MARKER, stale), "no connection");
        }
    }
}

/// The program, with one more descriptor, which its marker names.
fn with_descriptor(program: &str, fd: OwnedFd) -> Command {
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    let mut command = probe(program, &["hello"]);
    command.env(MARKER, "200:dead:1");
    // SAFETY: dup2 touches no memory; 200 is beyond what a test has open, and the child owns what it makes.
    let pass_on = move || match unsafe { nix::libc::dup2(fd.as_raw_fd(), 200) } {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(()),
    };
    // SAFETY: between fork and exec the closure makes one system call that is allowed there, and allocates nothing.
    unsafe { command.pre_exec(pass_on) };
    command
}

/// Of the protocol, as `docs/protocol.md` gives it.
const VERSION: u32 = 7;

/// Returns what a host sends before anything else: magic, version, token, and that it shares memory with rings.
fn preamble(magic: &[u8; 4], version: u32, token: u64) -> Vec<u8> {
    [&magic[..], &version.to_le_bytes(), &token.to_le_bytes(), &1u32.to_le_bytes()].concat()
}

#[test]
fn a_stale_descriptor_a_wrong_token_and_another_build_end_the_process_and_never_run_main() {
    for program in [PROBE, PROBE_AT_MAIN] {
        let file = fs::File::open("/dev/null").unwrap();
        check_refused(&mut with_descriptor(program, file.into()), "no connection");

        let (host, worker) = UnixStream::pair().unwrap();
        drop(host);
        check_refused(&mut with_descriptor(program, worker.into()), "its connection failed");

        for (bytes, words) in [
            (preamble(b"prcs", VERSION, 0xbeef), "sent the wrong token"),
            (preamble(b"HTTP", VERSION, 0xdead), "another protocol"),
            (preamble(b"prcs", 999, 0xdead), "another protocol"),
        ] {
            let (mut host, worker) = UnixStream::pair().unwrap();
            host.write_all(&bytes).unwrap();
            check_refused(&mut with_descriptor(program, worker.into()), words);
        }

        // The right words, without a descriptor, and with one that is no memory.
        let (mut host, worker) = UnixStream::pair().unwrap();
        host.write_all(&preamble(b"prcs", VERSION, 0xdead)).unwrap();
        check_told(&mut with_descriptor(program, worker.into()), host, "no memory");
        let (host, worker) = UnixStream::pair().unwrap();
        let stray = fs::File::open("/dev/null").unwrap();
        let fds = [stray.as_raw_fd()];
        let bytes = preamble(b"prcs", VERSION, 0xdead);
        let control = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(host.as_raw_fd(), &[IoSlice::new(&bytes)], &control, MsgFlags::empty(), None).unwrap();
        check_told(&mut with_descriptor(program, worker.into()), host, "the memory that it shares");
    }
}

#[test]
fn workers_that_die_or_hang_at_start_are_a_clear_error_after_a_bounded_number_of_attempts() {
    for program in [PROBE, PROBE_AT_MAIN] {
        for (how, words) in [
            ("exit", "exit code 42"),
            ("abort", "SIGABRT"),
            ("hang", "did not complete the handshake in time"),
        ] {
            let (starts, file) = (scratch("starts"), scratch("mains"));
            let mut command = probe(program, &["start", how]);
            let said = run(command.env("PROBE_STARTS", &starts).env("PROBE_MAINS", &file)).stdout;
            assert!(said.contains("no worker could be started") && said.contains(words), "{how}: {said}");
            let starts = fs::read(starts).unwrap().len();
            assert!((1..=10).contains(&starts), "{how}: {starts} attempts for two workers");
            assert_eq!(mains(&file), 1);
        }
    }
}

#[test]
fn a_process_that_dies_or_hangs_at_its_start_is_a_clear_error_at_once() {
    for program in [PROBE, PROBE_AT_MAIN] {
        for (how, words) in [
            ("exit", "::scenes::square` was lost in process `late`"),
            ("exit", "could not be started: it ended with exit code 42"),
            ("abort", "::scenes::square` crashed in process `late`"),
            ("abort", "SIGABRT"),
            ("hang", "could not be started: it did not complete the handshake in time"),
        ] {
            let (starts, file) = (scratch("starts"), scratch("mains"));
            let mut command = probe(program, &["process", how]);
            let said = run(command.env("PROBE_STARTS", &starts).env("PROBE_MAINS", &file)).stdout;
            assert!(said.contains(words), "{how}: {said}");
            // Lost or crashed, it was never begun.
            assert!(said.starts_with(if how == "abort" { "false 0 " } else { "true 0 " }), "{how}: {said}");
            assert_eq!((fs::read(starts).unwrap().len(), mains(&file)), (1, 1), "{how}");
        }
    }
}

#[test]
fn a_program_with_more_rights_than_its_user_ignores_the_environment_and_starts_no_workers() {
    if !nix::unistd::geteuid().is_root() {
        // Only root can make a program run with other rights than its user's.
        println!("not proven: this user is not root");
        return;
    }
    for program in [PROBE, PROBE_AT_MAIN] {
        // A folder that every user may enter, even if the build's folder is not.
        let folder = std::env::temp_dir().join(crate::program::unique());
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let copy = folder.join("program");
        // By another process: a file that this one has open for writing, a child that another test forks just now has, too, and
        // then it cannot be executed.
        assert!(Command::new("cp").arg(program).arg(&copy).status().unwrap().success());
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755)).unwrap();
        let as_nobody = |scene: &str| {
            let mut command = probe(copy.to_str().unwrap(), &[scene]);
            command.current_dir("/").uid(65534).gid(65534);
            command.env(MARKER, "3:dead:1").env("PROCESSION_IN_PROCESS", "1").env("PROCESSION_JOBS", "x");
            run(&mut command)
        };
        let (hello, build) = (as_nobody("hello"), as_nobody("build"));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(hello.quietly(), "hello from main\n");
        let said = build.quietly();
        assert!(said.contains("more privileges than its user"), "{said}");
    }
}
