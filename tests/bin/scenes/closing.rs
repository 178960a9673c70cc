//! Code that runs in a worker or in a template closes every descriptor from 3 upwards; and other files may get the numbers.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{
            fs::OpenOptionsExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    libc,
    sys::{signal, stat::Mode},
    unistd,
};
use procession::{Output, Pool, Process, StartMethod, delayed, worker};

use super::square;

const WORDS: &[u8] = b"words of others";

/// Closes every descriptor from 3 upwards and, if there is a folder, has files of it take the numbers. Then does what `how` says.
#[worker]
fn close_all(folder: Option<PathBuf>, how: &str) -> u64 {
    // SAFETY: the loss of descriptors by their owner is the subject of the test.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    if let Some(folder) = folder {
        take_numbers(&folder);
    }
    match how {
        "signal" => signal_every_thread(),
        "panic" => panic!("after that"),
        "print" => println!("said afterwards"),
        _ => {}
    }
    17
}

/// Opens files until the numbers that a worker uses are taken: sockets, pipes and plain files, in turn.
fn take_numbers(folder: &Path) {
    for kind in unistd::getpid().as_raw().. {
        let fd: OwnedFd = match kind % 3 {
            0 => UnixStream::connect(folder.join("socket")).unwrap().into(),
            1 => File::options().read(true).write(true).open(folder.join("pipe")).unwrap().into(),
            _ => File::options().append(true).open(folder.join("file")).unwrap().into(),
        };
        let number = fd.as_raw_fd();
        // They stay open after the task.
        std::mem::forget(fd);
        if number > 230 {
            break;
        }
    }
}

extern "C" fn ignore(_: libc::c_int) {}

/// Interrupts what the threads of this process wait for, and gives them time to wait again.
fn signal_every_thread() {
    // SAFETY: the handler does nothing.
    unsafe { signal::signal(signal::SIGUSR1, signal::SigHandler::Handler(ignore)) }.unwrap();
    for thread in fs::read_dir("/proc/self/task").unwrap() {
        let thread: libc::pid_t = thread.unwrap().file_name().to_str().unwrap().parse().unwrap();
        // SAFETY: it takes three numbers and touches no memory of ours.
        unsafe { libc::syscall(libc::SYS_tgkill, unistd::getpid().as_raw(), thread, libc::SIGUSR1) };
    }
    thread::sleep(Duration::from_millis(300));
}

/// The files of a folder that get the numbers. This process has the other ends and sees that nothing comes or goes.
struct Others {
    folder: PathBuf,
    listener: UnixListener,
    pipe: File,
}

impl Others {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("procession-closing-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let listener = UnixListener::bind(folder.join("socket")).unwrap();
        // More than are ever connected at once may wait to be accepted.
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(4096).unwrap()).unwrap();
        listener.set_nonblocking(true).unwrap();
        unistd::mkfifo(&folder.join("pipe"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let mut open = File::options();
        let mut pipe =
            open.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(folder.join("pipe")).unwrap();
        pipe.write_all(WORDS).unwrap();
        fs::write(folder.join("file"), WORDS).unwrap();
        Self { folder, listener, pipe }
    }

    /// `is_sure`: the worker was at rest, so it did not end before the first number was taken.
    fn check(mut self, is_sure: bool) {
        let mut bytes = [0; 64];
        let n = self.pipe.read(&mut bytes).unwrap();
        assert_eq!(&bytes[..n], WORDS, "what the pipe holds");
        let mut taken = 0;
        while let Ok((mut stream, _)) = self.listener.accept() {
            stream.set_nonblocking(false).unwrap();
            assert_eq!(stream.read(&mut bytes).unwrap(), 0, "bytes came to a socket");
            taken += 1;
        }
        assert!(taken > 0 || !is_sure, "no number was taken");
        assert_eq!(fs::read(self.folder.join("file")).unwrap(), WORDS, "what the file holds");
        fs::remove_dir_all(self.folder).unwrap();
    }
}

/// Runs `what` and prints how it came out.
pub(super) fn play(what: &str, method: &str, then: &str) {
    let method: StartMethod = method.parse().unwrap();
    let others = (then == "reused").then(Others::new);
    let folder = others.as_ref().map(|others| others.folder.clone());
    let builder = Pool::builder().jobs(2).start_method(method).max_restarts(1, Duration::from_secs(30));
    if what == "no memory" {
        super::refuse(libc::SYS_memfd_create, None);
    }
    match what {
        "no memory" | "first" | "later" | "signal" | "panic" | "print" => {
            let builder = if what == "print" { builder.stdout(Output::Capture) } else { builder };
            let pool = builder.build().unwrap();
            if what == "later" {
                pool.broadcast(delayed!(own_pid())).unwrap().into_iter().for_each(until_at_rest);
            }
            println!(
                "{:?}",
                pool.submit(delayed!(close_all(folder, what))).join().map_err(|e| e.to_string())
            );
            go_on(&pool);
            drop(pool);
        }
        "among" => {
            let pool = builder.build().unwrap();
            let tasks = (0..200).map(|n| match n {
                50 => delayed!(close_all(folder.clone(), "")),
                _ => delayed!(square(n)),
            });
            for (n, result) in pool.imap(tasks).enumerate() {
                match result {
                    Ok(result) if n != 50 => assert_eq!(result, (n * n) as u64),
                    result => println!("{n} {:?}", result.map_err(|e| e.to_string())),
                }
            }
            go_on(&pool);
            drop(pool);
        }
        "initializer" => {
            let pool = builder.initializer(delayed!(close_all(folder, ""))).build().unwrap();
            println!("{:?}", pool.submit(delayed!(square(3))).join().map_err(|e| e.to_string()));
        }
        "preload" => {
            let pool = builder.preload(delayed!(close_all(folder, ""))).build().unwrap();
            println!("{:?}", pool.submit(delayed!(square(3))).join().map_err(|e| e.to_string()));
        }
        "finalizer" => {
            let pool = builder.jobs(1).finalizer(delayed!(close_all(folder, ""))).build().unwrap();
            go_on(&pool);
            println!("{:?}", pool.join_with_exit_results::<u64>().map_err(|e| e.to_string()));
        }
        "process" => {
            let builder = Process::builder().start_method(method);
            let mut process = builder.spawn(delayed!(close_all(folder, ""))).unwrap();
            println!("{:?}", process.join().map_err(|e| e.to_string()));
        }
        other => panic!("no way {other:?}"),
    }
    if let Some(others) = others {
        others.check(what == "later");
    }
}

#[worker]
fn own_pid() -> u32 {
    std::process::id()
}

/// Waits until every thread of this process sleeps, and none has run meanwhile.
fn until_at_rest(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let look = || -> Vec<(bool, String)> {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|thread| thread.unwrap().path());
        let read = |thread: &Path, name| fs::read_to_string(thread.join(name)).unwrap();
        let sleeps = |stat: String| stat.rsplit_once(") ").unwrap().1.starts_with('S');
        threads.map(|thread| (sleeps(read(&thread, "stat")), read(&thread, "schedstat"))).collect()
    };
    let mut before = Vec::new();
    loop {
        let now = look();
        if now == before && now.iter().all(|(sleeps, _)| *sleeps) {
            return;
        }
        assert!(Instant::now() < deadline, "{pid} does not come to rest");
        before = now;
        // Waits for nothing to happen.
        thread::sleep(Duration::from_millis(10));
    }
}

/// Makes calls one after the other. If each waited for the next periodic check, they would take a minute.
fn go_on(pool: &Pool) {
    let begun = Instant::now();
    for n in 0..60 {
        assert_eq!(pool.submit(delayed!(square(n))).join().unwrap(), n * n);
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(20), "the calls were late: {took:?}");
}
