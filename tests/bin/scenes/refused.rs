//! Scenes in which the system refuses calls or is short of memory.

use std::{
    fs::{self},
    hint::black_box,
    process::{self},
    time::{Duration, Instant},
};

use nix::{libc, sys::signal};
use procession::{Pool, delayed, worker};

use super::{square, whoami};

/// From now on this process and all that it starts are refused the system call of this name.
pub(super) fn refuse_by_name(call: &str) {
    let number = match call {
        "pidfd_open" => libc::SYS_pidfd_open,
        "pidfd_send_signal" => libc::SYS_pidfd_send_signal,
        "setpgid" => libc::SYS_setpgid,
        other => panic!("no refusal is called {other:?}"),
    };
    refuse(number, None);
}

/// Has one worker run one task, and prints the outcome.
/// The most memory that this process has had, in bytes.
#[worker]
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[worker]
fn panic_as_told() {
    panic!("as it was told");
}

/// Prints how much more memory a worker has had after its first panic than before, and whether that has a backtrace.
pub(super) fn panic_once() {
    let pool = Pool::new(1).unwrap();
    let before = pool.submit(delayed!(peak())).join().unwrap();
    let error = pool.submit(delayed!(panic_as_told())).join().unwrap_err();
    let after = pool.submit(delayed!(peak())).join().unwrap();
    println!("{} {}", after - before, error.panic().unwrap().backtrace().is_empty());
}

pub(super) fn try_one() {
    let begun = Instant::now();
    match Pool::new(1).map(|pool| (pool.submit(delayed!(square(3))).join(), pool)) {
        Ok((Ok(square), _)) => println!("{square}"),
        Ok((Err(error), pool)) => {
            println!("{error}");
            // Nor has a lazy call to wait.
            let outcomes = pool.imap((0..500).map(|n| delayed!(square(n)))).chunk_size(1);
            assert_eq!(outcomes.filter(Result::is_err).count(), 500);
        }
        Err(error) => println!("{error}"),
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// From now on this process, with all its threads, and all that it starts are refused a system call: if `op` is given, only with it as its
/// second argument.
pub(super) fn refuse(call: libc::c_long, op: Option<libc::c_int>) {
    const NUMBER: u32 = 0;
    const SECOND_ARGUMENT: u32 = 16 + 8;
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let skip_unless = |k: u32, over| libc::sock_filter {
        jf: over,
        ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k)
    };
    let say = |verdict| statement(libc::BPF_RET | libc::BPF_K, verdict);
    let call = u32::try_from(call).unwrap();
    let no = say(libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned());
    let yes = say(libc::SECCOMP_RET_ALLOW);
    let mut program = match op {
        None => vec![load(NUMBER), skip_unless(call, 1), no, yes],
        Some(op) => vec![
            load(NUMBER),
            skip_unless(call, 3),
            load(SECOND_ARGUMENT),
            skip_unless(op.cast_unsigned(), 1),
            no,
            yes,
        ],
    };
    let filter = libc::sock_fprog { len: program.len().try_into().unwrap(), filter: program.as_mut_ptr() };
    nix::sys::prctl::set_no_new_privs().unwrap();
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_TSYNC);
    // SAFETY: the filter points to a program of its length, which the kernel copies before the call returns.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const filter) };
    assert_eq!(done, 0, "the filter is refused: {}", std::io::Error::last_os_error());
}

/// Panics, and has another thread panic, whose words are printed.
#[worker]
fn panic_in(thread: bool) {
    if thread {
        let _ = std::thread::spawn(|| panic!("in a thread")).join();
    }
    panic!("as it was told");
}

/// Does `what` on a thread that a task has started.
#[worker]
pub(super) fn do_in_a_thread(what: &str) {
    let what = what.to_owned();
    let _ = std::thread::spawn(|| panic!("in a thread")).join();
    let thread = std::thread::spawn(move || match &*what {
        "abort" => process::abort(),
        "allocation" => std::alloc::handle_alloc_error(std::alloc::Layout::new::<u64>()),
        // As the timer does that looks at a thread whose panic takes long.
        "look" => signal::raise(signal::Signal::SIGURG).unwrap(),
        other => panic!("nothing to do with a thread: {other:?}"),
    });
    thread.join().unwrap();
}

#[worker]
fn fill(bytes: usize) -> usize {
    black_box(vec![1u8; bytes]).len()
}

/// Runs a task for which there is too little memory, and prints how and when it ended.
pub(super) fn run_short_of_memory(what: &str) {
    let pool = Pool::builder().jobs(1).backtrace(true).build().unwrap();
    pool.submit(delayed!(whoami())).join().unwrap();
    let start = Instant::now();
    let error = match what {
        "panic" => pool.submit(delayed!(panic_in(false))).join().unwrap_err(),
        "thread" => pool.submit(delayed!(panic_in(true))).join().unwrap_err(),
        _ => pool.submit(delayed!(fill(1 << 30))).join().unwrap_err(),
    };
    let took = start.elapsed();
    // On a loaded machine a backtrace takes long. A thread that waits for itself never ends.
    println!("out of memory: {}, soon: {}", error.is_out_of_memory(), took < Duration::from_secs(5));
    println!("{error}");
    // The next worker serves.
    pool.submit(delayed!(whoami())).join().unwrap();
}
