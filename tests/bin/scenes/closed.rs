//! Other code of the host closes every descriptor from 3 upwards, as daemons do, while a pool or a process is there; and other files may
//! get the numbers.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
    os::unix::{fs::FileExt as _, net::UnixStream},
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags},
        eventfd::{EfdFlags, EventFd},
        resource::{UsageWho, getrusage},
        time::TimeValLike as _,
    },
    unistd,
};
use procession::{Pool, Process, delayed, parallel, worker};

use super::square;

const WORDS: &[u8] = b"words of others";

/// Creates a file when it has begun, and runs for as long as it may.
#[worker]
fn stay(begun: PathBuf) {
    fs::write(begun, "").unwrap();
    thread::sleep(Duration::from_secs(600));
}

/// Takes long enough for the host to sleep.
#[worker]
fn nap() {
    thread::sleep(Duration::from_millis(20));
}

/// A file that does not exist yet.
fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("procession-closed-{}-{name}", std::process::id()));
    let _ = fs::remove_file(&path);
    path
}

fn await_file(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        assert!(Instant::now() < deadline, "no task has begun");
        thread::sleep(Duration::from_millis(1));
    }
    fs::remove_file(path).unwrap();
}

fn close_from_3() {
    // SAFETY: the loss of descriptors by their owner is the subject of the test.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
}

/// Files of every kind, under the numbers that were closed.
#[derive(Default)]
struct Others {
    files: Vec<File>,
    pipes: Vec<(OwnedFd, OwnedFd)>,
    sockets: Vec<(UnixStream, UnixStream)>,
    polled: Vec<(Epoll, EventFd)>,
}

impl Others {
    /// This many of each kind, in turn from this kind on, so that the same numbers have other kinds each time.
    fn open(first: usize) -> Self {
        let mut others = Self::default();
        for n in first..first + 60 {
            match n % 4 {
                0 => {
                    let path = scratch("file");
                    let mut file = File::options().read(true).append(true).create(true).open(&path).unwrap();
                    fs::remove_file(path).unwrap();
                    file.write_all(WORDS).unwrap();
                    others.files.push(file);
                }
                1 => {
                    let pipe = unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap();
                    unistd::write(&pipe.1, WORDS).unwrap();
                    others.pipes.push(pipe);
                }
                2 => {
                    let (mut one, mut two) = UnixStream::pair().unwrap();
                    for end in [&mut one, &mut two] {
                        end.set_nonblocking(true).unwrap();
                        end.write_all(WORDS).unwrap();
                    }
                    others.sockets.push((one, two));
                }
                _ => {
                    let poller = Epoll::new(EpollCreateFlags::empty()).unwrap();
                    let count = EventFd::from_value_and_flags(7, EfdFlags::EFD_NONBLOCK).unwrap();
                    let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, 5);
                    poller.add(&count, event).unwrap();
                    others.polled.push((poller, count));
                }
            }
        }
        others
    }

    /// Each is open and holds what was put into it, and nothing else.
    fn check(mut self) {
        let expect = |read: std::io::Result<usize>, bytes: &[u8]| assert_eq!(&bytes[..read.unwrap()], WORDS);
        let mut bytes = [0; 64];
        for file in &mut self.files {
            let read = file.read_at(&mut bytes, 0);
            expect(read, &bytes);
        }
        for (reader, _writer) in &self.pipes {
            let read = unistd::read(reader, &mut bytes).unwrap();
            assert_eq!(&bytes[..read], WORDS);
            assert_eq!(
                unistd::read(reader, &mut bytes),
                Err(Errno::EAGAIN),
                "a pipe holds more, or has ended"
            );
        }
        for end in self.sockets.iter_mut().flat_map(|(one, two)| [one, two]) {
            let read = end.read(&mut bytes);
            expect(read, &bytes);
            let more = end.read(&mut bytes).map_err(|error| error.kind());
            assert_eq!(more, Err(std::io::ErrorKind::WouldBlock), "a socket holds more, or has ended");
        }
        for (poller, count) in &self.polled {
            let mut events = [EpollEvent::empty(); 4];
            assert_eq!(poller.wait(&mut events, 0_u16), Ok(1));
            assert_eq!(events[0].data(), 5);
            assert_eq!(count.read(), Ok(7));
        }
        // To close one that is closed already is an error.
        let numbers = self.files.iter().map(|file| file.as_raw_fd());
        let numbers: Vec<RawFd> = numbers.chain(self.pipes.iter().map(|pipe| pipe.0.as_raw_fd())).collect();
        assert!(numbers.iter().all(|&number| {
            // SAFETY: fcntl with F_GETFD reads nothing but the descriptor table.
            unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
        }));
    }
}

fn cpu_time() -> Duration {
    let used = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let micros = used.user_time().num_microseconds() + used.system_time().num_microseconds();
    Duration::from_micros(micros.try_into().unwrap())
}

/// Closes descriptors at the moment when a pool that was at rest, or a process, is given a task. The thread that watches it may not have
/// noticed the task yet. Prints the error of each time.
pub(super) fn play_at_once(call: &str) {
    let begun = scratch("begun");
    for _ in 0..4 {
        let task = delayed!(stay(begun.clone()));
        let error = match call {
            "future" => {
                let pool = Pool::new(1).unwrap();
                let handle = pool.submit(task);
                close_from_3();
                block_on(handle).unwrap_err()
            }
            "process" => {
                let mut process = Process::spawn(task).unwrap();
                close_from_3();
                process.join().unwrap_err()
            }
            "parallel" => {
                assert_eq!(parallel!(square(n) for n in 1..4).unwrap(), [1, 4, 9]);
                close_from_3();
                // One call finds the pool as it is, unless another thread of it did. The next one has a new pool.
                let errors: Vec<_> = (0..5).filter_map(|_| parallel!(nap() for _ in 0..2).err()).collect();
                assert!(errors.len() <= 1, "{errors:?}");
                continue;
            }
            other => panic!("no call {other:?}"),
        };
        println!("{error}");
    }
    let _ = fs::remove_file(begun);
}

/// Closes descriptors before, or during, a call and prints its error. `then`: the numbers are `reused`, or `free`.
pub(super) fn play(call: &str, when: &str, then: &str) {
    let others = || {
        close_from_3();
        (then == "reused").then(|| (cpu_time(), Others::open(unistd::getpid().as_raw() as usize)))
    };
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.map((0..9).map(|n| delayed!(square(n)))).unwrap().len(), 9);
    // Both workers are up, and a template has had time to fork the next one: a connection that is being made at the very moment when
    // its number is closed and reused cannot be distinguished from another.
    assert_eq!(pool.broadcast(delayed!(square(3))).unwrap(), [9, 9]);
    thread::sleep(Duration::from_millis(100));
    let begun = scratch("begun");
    let during = || {
        await_file(&begun);
        others()
    };
    let (others, said) = if when == "running" {
        thread::scope(|scope| {
            let call = scope.spawn(|| run(&pool, call, &begun));
            let others = during();
            (others, call.join().unwrap())
        })
    } else {
        let process = (call == "process").then(|| Process::spawn(delayed!(stay(begun.clone()))).unwrap());
        match process {
            Some(mut process) => {
                let others = during();
                (others, process.join().unwrap_err().to_string())
            }
            None => {
                let others = others();
                (others, run(&pool, call, &begun))
            }
        }
    };
    println!("{said}");
    if call != "process" {
        println!("{}", pool.submit(delayed!(square(3))).join().unwrap_err());
    }
    // It may have the numbers that the other has lost.
    let new = Pool::new(2).unwrap();
    println!("{:?}", new.map((1..4).map(|n| delayed!(square(n)))));
    let before = Instant::now();
    drop(pool);
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    println!("{:?}", new.map((1..4).map(|n| delayed!(square(n)))));
    println!("{:?}", Process::spawn(delayed!(square(5))).unwrap().join());
    drop(new);
    if let Some((_, others)) = others {
        others.check();
    }
    let used = cpu_time();
    assert!(used < Duration::from_secs(1), "{used:?} of a CPU's time");
}

/// The device and the inode of the file that has this number, if it is open.
fn identity(number: RawFd) -> Option<(u64, u64)> {
    // SAFETY: it is used for one call, which reads nothing but the descriptor table.
    let stat = nix::sys::stat::fstat(unsafe { BorrowedFd::borrow_raw(number) }).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

/// Closes one descriptor of a host that is at rest, and nothing else. Prints whether there is one with this number in the list.
/// `then`: its number is `free`, or means a `pipe` of the host from which nothing ever comes, or `null`, which is always ready.
pub(super) fn play_one(then: &str, index: usize) {
    let (empty, writer) = unistd::pipe().unwrap();
    let null = OwnedFd::from(File::options().read(true).write(true).open("/dev/null").unwrap());
    let own = [empty.as_raw_fd(), writer.as_raw_fd(), null.as_raw_fd()];
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.broadcast(delayed!(square(3))).unwrap(), [9, 9]);
    let names = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().file_name());
    let numbers: Vec<RawFd> = names.map(|name| name.to_str().unwrap().parse().unwrap()).collect();
    // SAFETY: fcntl with F_GETFD reads nothing but the descriptor table. The list has the folder's own, which is closed by now.
    let is_open = |number: &RawFd| *number > 2 && unsafe { libc::fcntl(*number, libc::F_GETFD) } >= 0;
    let is_open = |number: &RawFd| is_open(number) && !own.contains(number);
    let Some(number) = numbers.into_iter().filter(is_open).nth(index) else { return println!("no more") };
    eprintln!("{:?}", fs::read_link(format!("/proc/self/fd/{number}")));
    let other = match then {
        "free" => None,
        "pipe" => Some(&empty),
        "null" => Some(&null),
        other => panic!("no way {other:?}"),
    };
    match other {
        // SAFETY: the loss of the descriptor by its owner is the subject of the test.
        None => assert_eq!(unsafe { libc::close(number) }, 0),
        // SAFETY: as above.
        Some(other) => assert_eq!(unsafe { libc::dup2(other.as_raw_fd(), number) }, number),
    }
    match pool.map((0..100).map(|n| delayed!(square(n)))) {
        Ok(squares) => assert!(squares.into_iter().eq((0..100).map(|n| n * n))),
        Err(error) => println!("{error}"),
    }
    let before = Instant::now();
    drop(pool);
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
    if let Some(other) = other {
        assert_eq!(
            identity(number),
            identity(other.as_raw_fd()),
            "the host's own file is not there any more"
        );
    }
    println!("ended");
    let used = cpu_time();
    assert!(used < Duration::from_secs(2), "{used:?} of a CPU's time");
}

fn run(pool: &Pool, call: &str, begun: &Path) -> String {
    let task = || delayed!(stay(begun.to_owned()));
    match call {
        "map" => pool.map([task()]).unwrap_err().to_string(),
        "submit" => pool.submit(task()).join().unwrap_err().to_string(),
        "imap" => pool.imap([task()]).next().unwrap().unwrap_err().to_string(),
        "future" => block_on(pool.submit(task())).unwrap_err().to_string(),
        "process" => Process::spawn(task()).unwrap().join().unwrap_err().to_string(),
        other => panic!("no call {other:?}"),
    }
}

/// Wakes the thread that waits for a future.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
