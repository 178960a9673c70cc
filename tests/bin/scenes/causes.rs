//! A start or a task that ends in the requested way, and the error that reports it.

use std::{
    fs,
    hint::black_box,
    os::{fd::RawFd, unix::fs::FileExt as _},
    process,
    time::{Duration, SystemTime},
};

use nix::{
    libc,
    sys::{
        signal::{SigHandler, Signal, kill, raise, signal},
        socket::{MsgFlags, Shutdown, send, shutdown},
    },
    unistd::Pid,
};
use procession::{Pool, Process, RemoteError, StartMethod, TaskError, delayed, worker};
use serde::{Deserialize, Deserializer, Serialize, de::Error};

#[worker]
fn nothing() {}

#[worker]
fn return_an_error() -> Result<(), RemoteError> {
    Err(RemoteError::msg("out of corn"))
}

#[worker]
fn take(_time: SystemTime) {}

#[worker]
fn give(secs: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH - Duration::from_secs(secs)
}

/// A value that can be decoded there, and nowhere else.
#[derive(Serialize)]
enum Only {
    Host,
    Worker,
}

impl<'de> Deserialize<'de> for Only {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let only = match u32::deserialize(deserializer)? {
            0 => Self::Host,
            _ => Self::Worker,
        };
        match (&only, procession::is_worker()) {
            (Self::Host, false) | (Self::Worker, true) => Ok(only),
            _ => Err(Error::custom("not here")),
        }
    }
}

#[worker]
fn take_only(_only: Only) {}

#[worker]
fn give_only() -> Only {
    Only::Worker
}

/// Writes over all that this process shares with its host.
fn scribble() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let memory = fs::File::options().write(true).open("/proc/self/mem").unwrap();
    let range = |line: &str| {
        let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        [start, end].map(|n| u64::from_str_radix(n, 16).unwrap())
    };
    let shared: Vec<_> = maps.lines().filter(|line| line.contains("/memfd:procession ")).map(range).collect();
    assert!(!shared.is_empty(), "{maps}");
    for [start, end] in shared {
        memory.write_all_at(&vec![0xff; (end - start) as usize], start).unwrap();
    }
}

fn sockets() -> Vec<RawFd> {
    let names = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    names
        .filter(|name| fs::read_link(name).is_ok_and(|to| to.to_string_lossy().starts_with("socket:")))
        .map(|name| name.file_name().unwrap().to_string_lossy().parse().unwrap())
        .collect()
}

fn deeper(n: u64) -> u64 {
    let frame = black_box([n; 512]);
    if black_box(true) { deeper(n + 1) + frame[0] } else { n }
}

fn wait_for_ever() -> ! {
    loop {
        std::thread::park();
    }
}

#[worker]
fn end_by(how: &str) {
    let end_by_signal = |signal| {
        raise(signal).unwrap();
        wait_for_ever()
    };
    match how {
        "panic" => panic!("as it was told"),
        "exit" => process::exit(7),
        // SAFETY: the loss of descriptors by their owner is the subject of the test.
        "descriptors" => drop(unsafe { libc::close_range(3, libc::c_uint::MAX, 0) }),
        "exit 89" => process::exit(89),
        "abort" => process::abort(),
        "overflow" => drop(black_box(deeper(0))),
        "memory" => drop(black_box(vec![1u8; 1 << 46])),
        "connection" => {
            sockets().into_iter().for_each(|socket| shutdown(socket, Shutdown::Both).unwrap());
            wait_for_ever()
        }
        "nonsense" => {
            // Those of the pollers have no other end.
            let is_sent = |socket: &_| send(*socket, &[0xff; 64], MsgFlags::empty()) == Ok(64);
            assert_eq!(sockets().into_iter().filter(is_sent).count(), 1);
            wait_for_ever()
        }
        "scribble" => {
            scribble();
            process::exit(7)
        }
        // Until the kernel has no more.
        "fill" => drop(black_box(vec![1u8; 1 << 30])),
        "wait" => wait_for_ever(),
        "real-time" => {
            // SAFETY: raise touches no memory.
            unsafe { libc::raise(40) };
            wait_for_ever()
        }
        name => end_by_signal(name.parse::<Signal>().unwrap()),
    }
}

fn tell(error: &TaskError) {
    let is = [
        ("lost", error.is_lost()),
        ("crash", error.is_crash()),
        ("panic", error.is_panic()),
        ("timeout", error.is_timeout()),
        ("cancelled", error.is_cancelled()),
        ("memory", error.is_out_of_memory()),
        ("codec", error.is_codec()),
    ];
    let is = is.into_iter().filter_map(|(name, is)| is.then_some(name)).collect::<Vec<_>>().join(" and ");
    println!("{is}, begun {}: {error}", error.attempts());
}

/// A folder that is gone by the time that a worker is to work in it.
fn folder() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("procession-causes-{}", process::id()));
    fs::create_dir(&folder).unwrap();
    folder
}

pub(super) fn play(holder: &str, method: &str, what: &str, how: &str) {
    let method: StartMethod = method.parse().unwrap();
    let what = match what.strip_prefix("uncollected ") {
        Some(what) => {
            // SAFETY: no code runs as a handler.
            unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.unwrap();
            what
        }
        None => what,
    };
    match holder {
        "pool" => play_pool(method, what, how),
        _ => play_process(method, what, how),
    }
}

fn play_pool(method: StartMethod, what: &str, how: &str) {
    let builder = Pool::builder().jobs(1).start_method(method).max_restarts(1, Duration::from_secs(30));
    let late = Duration::from_millis(300);
    let gone = (what == "folder").then(folder);
    let builder = match (what, how) {
        ("constructor", "hang") => builder.env("PROBE_START", how).start_timeout(late),
        ("constructor", "files" | "space") => {
            builder.env("PROBE_START", how).start_timeout(Duration::from_secs(3))
        }
        ("constructor", _) => builder.env("PROBE_START", how),
        ("initializer", "error") => builder.initializer(delayed!(return_an_error())),
        ("initializer", "wait") => builder.initializer(delayed!(end_by(how))).start_timeout(late),
        ("initializer", _) => builder.initializer(delayed!(end_by(how))),
        ("preload", "error") => builder.preload(delayed!(return_an_error())),
        ("preload", "wait") => builder.preload(delayed!(end_by(how))).start_timeout(late),
        ("preload", _) => builder.preload(delayed!(end_by(how))),
        ("timeout", _) => builder.task_timeout(late),
        ("folder", _) => builder.current_dir(gone.clone().unwrap()),
        _ => builder,
    };
    let pool = builder.build().unwrap();
    if let Some(gone) = gone {
        fs::remove_dir(gone).unwrap();
    }
    let error = match (what, how) {
        ("task", "argument") => pool.submit(delayed!(take(SystemTime::UNIX_EPOCH - late))).join(),
        ("task", "result") => pool.submit(delayed!(give(1))).join().map(drop),
        ("task", "decode argument") => pool.submit(delayed!(take_only(Only::Host))).join(),
        ("task", "decode result") => {
            let given = pool.submit(delayed!(give_only())).join().map(drop);
            // It was counted as it arrived.
            let total = pool.stats().total().clone();
            assert_eq!((total.tasks(), total.finished(), total.failed()), (1, 1, 0));
            given
        }
        ("task" | "timeout", _) => pool.submit(delayed!(end_by(how))).join(),
        ("cancel", _) => {
            let handle = pool.submit(delayed!(end_by("wait")));
            handle.cancel();
            handle.join()
        }
        ("drop", _) => {
            let handle = pool.submit(delayed!(end_by("wait")));
            drop(pool);
            return tell(&handle.join().unwrap_err());
        }
        _ => pool.submit(delayed!(nothing())).join(),
    };
    tell(&error.unwrap_err());
}

fn play_process(method: StartMethod, what: &str, how: &str) {
    let builder = Process::builder().name("p").start_method(method);
    let builder = match (what, how) {
        ("constructor", "hang") => builder.env("PROBE_START", how).start_timeout(Duration::from_millis(300)),
        ("constructor", _) => builder.env("PROBE_START", how),
        ("host", _) => builder.env("PROBE_START", "stop"),
        ("folder", _) => builder.current_dir("/nowhere/at/all"),
        _ => builder,
    };
    let early = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    let spawned = match (what, how) {
        ("task", "argument") => builder.spawn(delayed!(take(early))),
        ("task", "result") => {
            return match builder.spawn(delayed!(give(1))).unwrap().join() {
                Err(error) => tell(&error),
                Ok(time) => panic!("{time:?}"),
            };
        }
        ("task", "decode argument") => builder.spawn(delayed!(take_only(Only::Host))),
        ("task", "decode result") => {
            return match builder.spawn(delayed!(give_only())).unwrap().join() {
                Err(error) => tell(&error),
                Ok(_) => panic!("it was decoded"),
            };
        }
        ("task", _) => builder.spawn(delayed!(end_by(how))),
        ("kill" | "terminate", _) => builder.spawn(delayed!(end_by("wait"))),
        _ => builder.spawn(delayed!(nothing())),
    };
    let mut process = match spawned {
        Ok(process) => process,
        Err(error) => return println!("not spawned: {error}"),
    };
    match what {
        "kill" => process.kill().unwrap(),
        // Before it has reached its function.
        "host" => {
            let stat = format!("/proc/{}/stat", process.id());
            while !fs::read_to_string(&stat).unwrap().contains(") T ") {
                std::thread::yield_now();
            }
            // Those of the pollers have no other end.
            let is_sent = |socket: &_| send(*socket, &[0xff; 64], MsgFlags::empty()) == Ok(64);
            assert_eq!(sockets().into_iter().filter(is_sent).count(), 1);
            kill(Pid::from_raw(process.id().cast_signed()), Signal::SIGCONT).unwrap();
        }
        _ => {}
    }
    tell(&process.join().unwrap_err());
}
