//! A task that needs more memory than there is fails as out of memory. Other tasks are not affected.
#![expect(unsafe_code, reason = "memory that C code would ask for")]

use std::{fs, hint::black_box, path::PathBuf, time::Duration};

use procession::{Pool, Process, StartMethod, TaskError, delayed, worker};

use crate::{
    alone::alone,
    end::End,
    event::{is_there, until},
};

const MIB: usize = 1 << 20;
/// The memory limit of the pools of these tests, in bytes.
const LIMIT: usize = 96 * MIB;

#[worker]
fn pid() -> u32 {
    std::process::id()
}

#[worker]
fn fill(bytes: usize) -> usize {
    black_box(vec![1u8; bytes]).len()
}

/// Grows bit by bit, as most do.
#[worker]
fn hoard() -> usize {
    let mut hoard = Vec::new();
    loop {
        hoard.push(vec![1u8; 100_000]);
    }
}

/// The same, in a thread of the task's own.
#[worker]
fn hoard_in_a_thread() -> usize {
    std::thread::spawn(|| fill(10 * LIMIT)).join().expect("it does not get so far")
}

/// Writes to memory without checking that it was allocated, as some C code does.
#[worker]
fn write_without_looking() {
    // SAFETY: malloc takes any number.
    let memory = unsafe { nix::libc::malloc(10 * LIMIT) }.cast::<u8>();
    // SAFETY: none: where the memory was refused the write faults, which is what this is for.
    unsafe { memory.write_volatile(1) };
    unreachable!("the write faults");
}

/// Aborts if memory was not allocated, as some C code does.
#[worker]
fn abort_without_memory() {
    // SAFETY: malloc takes any number.
    if unsafe { nix::libc::malloc(10 * LIMIT) }.is_null() {
        End::Abort.strike();
    }
}

/// Is refused what has nothing to do with how much memory there is.
#[worker]
fn be_refused() {
    // SAFETY: mlock takes any address, and the first page is never mapped.
    let refused = unsafe { nix::libc::mlock(std::ptr::null(), 1) } != 0;
    assert!(refused && nix::errno::Errno::last() == nix::errno::Errno::ENOMEM, "it says so");
}

#[worker]
fn be_refused_and_strike(end: End) {
    be_refused();
    end.strike()
}

/// Is refused something, and panics where that ends the process.
#[worker]
fn be_refused_and_panic() {
    extern "C" fn foreign() {
        panic!("as it was told");
    }
    be_refused();
    foreign();
}

/// Looks whether there is enough, and does without.
#[worker]
fn try_to_have(bytes: usize) -> bool {
    Vec::<u8>::new().try_reserve_exact(bytes).is_ok()
}

/// Takes all that there is, and panics.
#[worker]
fn hoard_and_panic() {
    let mut hoard: Vec<Vec<u8>> = Vec::with_capacity(2 * LIMIT / 1024);
    let mut size = MIB;
    while size >= 1024 {
        let mut more = Vec::new();
        match more.try_reserve_exact(size) {
            Ok(()) => hoard.push(more),
            Err(_) => size /= 2,
        }
    }
    panic!("{} are not enough", black_box(&hoard).len());
}

#[worker]
fn count(bytes: &[u8]) -> usize {
    bytes.len()
}

#[worker]
fn strike(end: End) {
    end.strike()
}

fn pool() -> Pool {
    Pool::builder().jobs(1).memory_limit(LIMIT as u64).build().unwrap()
}

fn assert_out_of_memory(error: &TaskError, signal: i32) {
    assert!(error.is_out_of_memory() && !error.is_crash(), "{error}");
    assert_eq!(error.exit().and_then(|exit| exit.signal()), Some(signal), "{error}");
    assert_eq!(error.attempts(), 1, "{error}");
    assert!(error.to_string().contains("ran out of memory"), "{error}");
}

#[test]
fn a_task_past_the_limit_fails_as_out_of_memory_and_its_worker_is_replaced() {
    alone(|| {
        // A backtrace that is printed meanwhile changes nothing.
        let tasks = || [delayed!(fill(10 * LIMIT)), delayed!(hoard()), delayed!(hoard_in_a_thread())];
        let with = |backtrace| {
            let builder = Pool::builder().jobs(1).memory_limit(LIMIT as u64);
            builder.env("RUST_BACKTRACE", backtrace).build().unwrap()
        };
        let (plain, wordy) = (with("0"), with("1"));
        for (task, pool) in tasks().into_iter().zip([&plain; 3]).chain([(delayed!(fill(10 * LIMIT)), &wordy)])
        {
            let before = pool.submit(delayed!(pid())).join().unwrap();
            let error = pool.submit(task).join().unwrap_err();
            assert_out_of_memory(&error, nix::libc::SIGABRT);
            assert!(error.to_string().contains("96 MiB"), "the words say the limit: {error}");
            assert_eq!(error.worker_pid(), Some(before));
            until("it is gone", || !is_there(before));
        }
        assert_eq!(plain.submit(delayed!(fill(LIMIT / 2))).join().unwrap(), LIMIT / 2);
    });
}

#[test]
fn a_process_past_its_limit_fails_as_out_of_memory_under_every_start_method() {
    alone(|| {
        let process = || Process::builder().memory_limit(LIMIT as u64);
        for method in [StartMethod::Spawn, StartMethod::ForkServer] {
            let mut small = process().start_method(method).spawn(delayed!(fill(LIMIT / 2))).unwrap();
            assert_eq!(small.join().unwrap(), LIMIT / 2);
            let mut large = process().start_method(method).spawn(delayed!(fill(10 * LIMIT))).unwrap();
            let error = large.join().unwrap_err();
            assert_out_of_memory(&error, nix::libc::SIGABRT);
            assert!(error.to_string().contains("96 MiB"), "{method}: the message names the limit: {error}");
        }
        let error = Process::builder().memory_limit(0).spawn(delayed!(pid())).unwrap_err();
        assert!(error.to_string().contains("memory_limit"), "{error}");
    });
}

#[test]
fn a_task_that_writes_where_no_memory_is_fails_as_out_of_memory() {
    alone(|| {
        let error = pool().submit(delayed!(write_without_looking())).join().unwrap_err();
        assert_out_of_memory(&error, nix::libc::SIGSEGV);
    });
}

#[test]
fn a_task_that_aborts_as_it_was_refused_memory_fails_as_out_of_memory() {
    alone(|| {
        let error = pool().submit(delayed!(abort_without_memory())).join().unwrap_err();
        assert_out_of_memory(&error, nix::libc::SIGABRT);
    });
}

#[test]
fn a_failed_allocation_of_an_earlier_task_is_not_the_cause_of_a_crash() {
    alone(|| {
        let pool = Pool::builder().jobs(1).chunk_size(2).memory_limit(LIMIT as u64).build().unwrap();
        for end in [End::Abort, End::Segfault] {
            let mut results = pool.imap([delayed!(be_refused()), delayed!(strike(end))]);
            results.next().unwrap().unwrap();
            let error = results.next().unwrap().unwrap_err();
            assert!(error.is_crash() && error.to_string().contains(end.words()), "{error}");
        }
    });
}

#[test]
fn without_a_memory_limit_a_failed_allocation_is_not_the_cause_of_a_crash() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        for end in [End::Abort, End::Segfault] {
            let error = pool.submit(delayed!(be_refused_and_strike(end))).join().unwrap_err();
            assert!(error.is_crash() && error.to_string().contains(end.words()), "{error}");
        }
    });
}

#[test]
fn a_panic_that_ends_the_process_is_reported_even_after_a_failed_allocation() {
    alone(|| {
        let error = pool().submit(delayed!(be_refused_and_panic())).join().unwrap_err();
        let panic = error.panic().unwrap_or_else(|| panic!("it panicked: {error}"));
        assert_eq!(panic.message(), "as it was told");
    });
}

#[test]
fn a_panic_with_little_memory_is_reported_with_its_backtrace() {
    alone(|| {
        let builder = Pool::builder().jobs(1).memory_limit(LIMIT as u64);
        let pool = builder.env("RUST_BACKTRACE", "1").build().unwrap();
        let mut handle = pool.submit(delayed!(hoard_and_panic()));
        let error = handle.join_timeout(Duration::from_secs(20)).expect("it ends").unwrap_err();
        let panic = error.panic().unwrap_or_else(|| panic!("it panicked: {error}"));
        assert!(panic.message().ends_with("are not enough") && panic.backtrace().contains("hoard_and_panic"));
        // The limit counts again.
        let error = pool.submit(delayed!(fill(10 * LIMIT))).join().unwrap_err();
        assert_out_of_memory(&error, nix::libc::SIGABRT);
    });
}

#[test]
fn an_argument_that_is_larger_than_the_limit_fails_its_task_only() {
    alone(|| {
        let pool = pool();
        let large = vec![1u8; 2 * LIMIT];
        let sizes = [1000, 2 * LIMIT, 2000];
        let handles = sizes.map(|size| pool.submit(delayed!(count(&large[..size]))));
        for (handle, size) in handles.into_iter().zip(sizes) {
            match handle.join() {
                Ok(len) => assert!(len == size && size < LIMIT),
                Err(error) => {
                    assert!(size > LIMIT, "{error}");
                    assert!(error.is_out_of_memory() && error.attempts() == 1, "{error}");
                }
            }
        }
    });
}

#[test]
fn a_task_that_can_do_without_goes_on() {
    alone(|| {
        let pool = pool();
        let before = pool.submit(delayed!(pid())).join().unwrap();
        assert!(!pool.submit(delayed!(try_to_have(10 * LIMIT))).join().unwrap());
        assert!(pool.submit(delayed!(try_to_have(LIMIT / 2))).join().unwrap());
        assert_eq!(pool.submit(delayed!(pid())).join().unwrap(), before);
    });
}

#[test]
fn other_causes_are_distinguished_under_a_limit() {
    alone(|| {
        let pool = pool();
        for end in [End::Abort, End::Exit, End::Segfault, End::Kill, End::StackOverflow] {
            assert!(!pool.submit(delayed!(try_to_have(10 * LIMIT))).join().unwrap());
            let error = pool.submit(delayed!(strike(end))).join().unwrap_err();
            assert!(error.is_crash() && !error.is_out_of_memory(), "{error}");
            assert!(error.to_string().contains(end.words()), "{error}");
        }
    });
}

#[test]
fn without_a_limit_there_is_none() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        assert!(pool.submit(delayed!(try_to_have(10 * LIMIT))).join().unwrap());
        assert!(Pool::builder().memory_limit(0).build().unwrap_err().to_string().contains("memory_limit"));
    });
}

#[test]
fn a_task_that_ran_out_of_memory_is_tried_again_if_there_are_retries() {
    alone(|| {
        let pool = Pool::builder().jobs(1).memory_limit(LIMIT as u64).retries(2).build().unwrap();
        let error = pool.submit(delayed!(hoard())).join().unwrap_err();
        assert!(error.is_out_of_memory() && error.attempts() == 3, "{error}");
    });
}

/// A group of processes that may have little memory, if one can be made here: that takes rights that few have.
struct Group {
    folder: PathBuf,
    /// The group that this process was in before.
    outer: PathBuf,
}

impl Group {
    fn new(bytes: usize) -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        for line in groups.lines() {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let (root, limit) = match controllers {
                "" => ("/sys/fs/cgroup", "memory.max"),
                "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
                _ => continue,
            };
            let outer = PathBuf::from(format!("{root}{path}"));
            let folder = outer.join(format!("procession-{}", std::process::id()));
            if fs::create_dir(&folder).is_err() {
                continue;
            }
            let group = Self { folder, outer };
            if fs::write(group.folder.join(limit), bytes.to_string()).is_ok()
                && fs::write(group.folder.join("cgroup.procs"), std::process::id().to_string()).is_ok()
            {
                return Some(group);
            }
        }
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.outer.join("cgroup.procs"), std::process::id().to_string());
        until("the group is empty", || fs::remove_dir(&self.folder).is_ok());
    }
}

#[test]
fn a_kill_by_the_kernel_for_lack_of_memory_is_distinguished_from_others() {
    alone(|| {
        let Some(_group) = Group::new(LIMIT) else {
            eprintln!("no group of processes with little memory can be made here");
            return;
        };
        let pool = Pool::new(1).unwrap();
        for _ in 0..2 {
            let before = pool.submit(delayed!(pid())).join().unwrap();
            let error = pool.submit(delayed!(hoard())).join().unwrap_err();
            assert_out_of_memory(&error, nix::libc::SIGKILL);
            assert!(error.to_string().contains("kernel"), "{error}");
            assert_eq!(error.worker_pid(), Some(before));
            let error = pool.submit(delayed!(strike(End::Kill))).join().unwrap_err();
            assert!(error.is_crash() && !error.is_out_of_memory(), "{error}");
        }
    });
}
