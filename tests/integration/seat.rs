//! A pool at rest uses no CPU, whatever it did before, and a task that nobody waits for runs as soon as any other.

use std::{path::Path, time::Duration};

use nix::time::{ClockId, clock_gettime};
use procession::{Pool, delayed, worker};

use crate::{
    alone::alone,
    event::{take_time, within},
    scratch::{Folder, append, numbers},
};

#[worker]
fn echo(n: u64) -> u64 {
    n
}

#[worker]
fn take(millis: u64) {
    take_time(Duration::from_millis(millis));
}

#[worker]
fn note(file: &Path, n: u64) {
    append(file, n);
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap().into()
}

/// A call whose end and the next submit lie within a millisecond left `look_at_feeds` in the past for ever.
#[test]
fn a_call_and_a_submit_behind_it_leave_the_pool_at_rest() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        for _ in 0..20 {
            pool.map((0..3).map(|n| delayed!(echo(n)))).unwrap();
        }
        pool.submit(delayed!(echo(1))).join().unwrap();
        take_time(Duration::from_millis(20));
        let before = cpu_time();
        take_time(Duration::from_millis(200));
        let used = cpu_time() - before;
        assert!(used < Duration::from_millis(20), "{used:?} of 200 ms");
    });
}

/// Whoever drives sleeps, and was not to look for what had been handed in meanwhile.
#[test]
fn what_is_handed_in_now_and_then_runs_while_another_thread_waits_for_a_long_task() {
    alone(|| {
        let folder = Folder::new();
        let file = folder.path("numbers");
        let pool = Pool::new(2).unwrap();
        pool.broadcast(delayed!(echo(1))).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| pool.submit(delayed!(take(3000))).join().unwrap());
            take_time(Duration::from_millis(100));
            for n in 0..60 {
                drop(pool.submit(delayed!(note(&file, n))));
                let begins = within(Duration::from_millis(500), || numbers(&file).len() > n as usize);
                assert!(begins, "task {n} does not begin");
            }
            waiting.join().unwrap();
        });
    });
}
