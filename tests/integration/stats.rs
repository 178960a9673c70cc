//! `Pool::stats` reports what the workers have done, and nothing else.

use std::{path::Path, time::Duration};

use procession::{Pool, Stats, WorkerStats, delayed, parallel, worker};

use crate::{
    alone::alone,
    end::End,
    event::{take_time, until, until_exists},
    scratch::Folder,
};

#[worker]
fn echo(n: u64) -> u64 {
    n
}

#[worker]
fn pid() -> u32 {
    std::process::id()
}

#[worker]
fn take(millis: u64) {
    take_time(Duration::from_millis(millis));
}

#[worker]
fn bytes(n: usize) -> Vec<u8> {
    vec![7; n]
}

#[worker]
fn len(bytes: &[u8]) -> usize {
    bytes.len()
}

#[worker]
fn strike(end: End) {
    end.strike()
}

fn sum<T: std::iter::Sum>(stats: &Stats, of: impl Fn(&procession::WorkerStats) -> T) -> T {
    stats.workers().iter().map(of).sum()
}

#[test]
fn the_statistics_of_an_unused_pool_are_zero() {
    alone(|| {
        let stats = Pool::new(2).unwrap().stats();
        assert_eq!(stats.workers().len(), 2);
        for (index, worker) in stats.workers().iter().enumerate() {
            assert_eq!(
                (worker.index(), worker.pid(), worker.tasks(), worker.restarts()),
                (index, None, 0, 0)
            );
            assert_eq!((worker.busy(), worker.startup(), worker.waiting()), Default::default());
        }
        assert!(stats.slowest().is_empty() && stats.hint().is_none());
    });
}

#[test]
fn every_task_is_counted_once_and_where_it_ran() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        pool.map((0..10_000).map(|n| delayed!(echo(n)))).unwrap();
        assert_eq!(pool.imap((0..1000).map(|n| delayed!(echo(n)))).count(), 1000);
        let handles: Vec<_> = (0..500).map(|n| pool.submit(delayed!(echo(n)))).collect();
        handles.into_iter().for_each(|handle| assert!(handle.join().is_ok()));
        assert!(pool.submit(delayed!(strike(End::Panic))).join().is_err());
        let stats = pool.stats();
        assert_eq!(stats.total().tasks(), 11_501);
        assert_eq!(sum(&stats, |worker| worker.tasks()), 11_501);
        assert!(stats.total().startup() > Duration::ZERO);
        let running = pool.broadcast(delayed!(pid())).unwrap();
        let told: Vec<u32> = pool.stats().workers().iter().map(|worker| worker.pid().unwrap()).collect();
        assert_eq!(told, running);
    });
}

/// Ends after it has worked for a while.
#[worker]
fn strike_after(millis: u64, end: End) {
    take_time(Duration::from_millis(millis));
    end.strike()
}

/// Begins, and never ends.
#[worker]
fn begin(begun: &Path) {
    std::fs::write(begun, "").expect("a file of the test's");
    take_time(Duration::from_secs(3600));
}

#[worker]
fn refuse() -> Result<(), String> {
    Err("no".to_owned())
}

#[worker]
fn hoard(bytes: usize) -> u8 {
    vec![1u8; bytes][bytes / 2]
}

#[test]
fn every_task_is_counted_once_by_its_outcome_and_its_time_is_working() {
    alone(|| {
        let folder = Folder::new();
        let pool = Pool::builder().jobs(1).memory_limit(256 << 20).build().unwrap();
        pool.map((0..100).map(|n| delayed!(echo(n)))).unwrap();
        pool.submit(delayed!(refuse())).join().unwrap().unwrap_err();
        for _ in 0..2 {
            assert!(pool.submit(delayed!(strike_after(50, End::Panic))).join().unwrap_err().is_panic());
        }
        for end in [End::Exit, End::Kill, End::StackOverflow] {
            assert!(pool.submit(delayed!(strike_after(50, end))).join().unwrap_err().is_crash());
        }
        let error =
            parallel!(pool = &pool, timeout = millis(300); take(3_600_000) for _ in 0..1).unwrap_err();
        assert!(error.as_task_error().unwrap().is_timeout(), "{error}");
        let begun = folder.path("begun");
        let (running, queued) = (pool.submit(delayed!(begin(&begun))), pool.submit(delayed!(echo(1))));
        until_exists(&begun);
        queued.cancel();
        take_time(Duration::from_millis(100));
        running.cancel();
        for handle in [running.join().map(drop), queued.join().map(drop)] {
            assert!(handle.unwrap_err().is_cancelled());
        }
        assert!(pool.submit(delayed!(hoard(1 << 30))).join().unwrap_err().is_out_of_memory());
        let stats = pool.stats();
        let counts = |of: &WorkerStats| {
            [
                of.finished(),
                of.failed(),
                of.crashed(),
                of.timed_out(),
                of.cancelled(),
                of.out_of_memory(),
                of.lost(),
            ]
        };
        assert_eq!(counts(stats.total()), [101, 2, 3, 1, 2, 1, 0], "{stats}");
        assert_eq!(
            counts(&stats.workers()[0]),
            [101, 2, 3, 1, 1, 1, 0],
            "one never came to a worker: {stats}"
        );
        assert_eq!((stats.total().tasks(), sum(&stats, |worker| worker.tasks())), (110, 109));
        // Two panics, three crashes, a timeout, and what was cancelled.
        let worked = Duration::from_millis(5 * 50 + 300 + 100);
        assert!(stats.total().working() >= worked, "{stats}");
        assert!(stats.total().transport() < worked, "what tasks did is no transport: {stats}");
    });
}

#[test]
fn attempts_are_not_counted_and_their_time_is() {
    alone(|| {
        let pool = Pool::builder().jobs(1).retries(2).build().unwrap();
        let error = pool.submit(delayed!(strike_after(50, End::Exit))).join().unwrap_err();
        assert_eq!(error.attempts(), 3);
        let stats = pool.stats();
        assert_eq!((stats.total().tasks(), stats.total().crashed()), (1, 1), "{stats}");
        assert!(stats.total().working() >= Duration::from_millis(150), "{stats}");
    });
}

#[test]
fn tasks_of_a_call_that_ends_early_are_counted_as_cancelled() {
    alone(|| {
        let pool = Pool::builder().jobs(1).chunk_size(1).build().unwrap();
        // Those behind the failure take long enough for it to arrive before they have all run.
        let tasks = (0..100).map(|n| match n {
            10 => delayed!(strike(End::Panic)),
            n => delayed!(take(if n < 10 { 0 } else { 300 })),
        });
        assert!(pool.map(tasks).is_err());
        let stats = pool.stats();
        let total = stats.total();
        assert_eq!(total.failed(), 1, "{stats}");
        assert_eq!(total.finished() + total.failed() + total.cancelled(), total.tasks(), "{stats}");
        assert!(total.finished() >= 10 && total.cancelled() > 0, "{stats}");
    });
}

#[test]
fn the_time_of_tasks_is_separated_from_waiting() {
    alone(|| {
        let pool = Pool::builder().jobs(1).initializer(delayed!(take(20))).build().unwrap();
        pool.submit(delayed!(take(30))).join().unwrap();
        take_time(Duration::from_millis(25));
        let stats = pool.stats();
        let worker = &stats.workers()[0];
        assert!(worker.busy() >= Duration::from_millis(30), "{stats}");
        assert!(worker.working() + worker.encoding() == worker.busy(), "{stats}");
        assert!(worker.initializing() >= Duration::from_millis(20), "{stats}");
        assert!(worker.waiting() >= Duration::from_millis(20), "{stats}");
        assert_eq!(worker.tasks(), 1, "the initializer is none");
        let again = pool.stats();
        assert!(again.total().waiting() >= stats.total().waiting(), "waiting goes on");
        assert_eq!(again.total().busy(), stats.total().busy());
    });
}

#[test]
fn the_slowest_tasks_are_named_with_their_place() {
    alone(|| {
        // Those that travel together may be timed together, and the last of them is named then.
        let pool = Pool::builder().jobs(2).chunk_size(1).build().unwrap();
        let millis = |n: u64| match n {
            17 => 300,
            5 => 200,
            _ => 0,
        };
        pool.map((0..50).map(|n| delayed!(take(millis(n))))).unwrap();
        pool.submit(delayed!(take(400))).join().unwrap();
        let stats = pool.stats();
        for (index, millis) in [(None, 400), (Some(17), 300), (Some(5), 200)] {
            let task = stats.slowest().iter().find(|task| task.task_index() == index);
            let task = task.unwrap_or_else(|| panic!("{index:?} is among them: {stats}"));
            assert!(task.took() >= Duration::from_millis(millis), "{stats}");
            assert!(task.function().ends_with("stats::take"));
        }
        assert!(stats.slowest().len() <= 10);
        assert!(stats.slowest().is_sorted_by(|a, b| a.took() >= b.took()));
    });
}

#[test]
fn bytes_are_counted_each_way() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        pool.submit(delayed!(pid())).join().unwrap();
        let before = pool.stats();
        pool.submit(delayed!(bytes(1_000_000))).join().unwrap();
        let between = pool.stats();
        pool.submit(delayed!(len(&[0; 2_000_000]))).join().unwrap();
        let after = pool.stats();
        let grown = |a: &Stats, b: &Stats| {
            let (a, b) = (a.total(), b.total());
            (b.bytes_sent() - a.bytes_sent(), b.bytes_received() - a.bytes_received())
        };
        let (sent, received) = grown(&before, &between);
        assert!(sent < 1000 && (1_000_000..1_010_000).contains(&received), "{sent} {received}");
        let (sent, received) = grown(&between, &after);
        assert!((2_000_000..2_010_000).contains(&sent) && received < 10_000, "{sent} {received}");
    });
}

#[test]
fn restarts_are_counted_and_what_a_place_has_done_stays() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        for n in 1..=3 {
            pool.submit(delayed!(echo(1))).join().unwrap();
            assert!(pool.submit(delayed!(strike(End::Abort))).join().unwrap_err().is_crash());
            pool.submit(delayed!(echo(1))).join().unwrap();
            let stats = pool.stats();
            assert_eq!((stats.total().restarts(), stats.total().tasks()), (n, 3 * n), "{stats}");
            assert_eq!((stats.total().finished(), stats.total().crashed()), (2 * n, n), "{stats}");
        }
    });
}

#[test]
fn the_peak_memory_of_each_worker_is_reported() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        pool.submit(delayed!(bytes(1))).join().unwrap();
        let before = pool.stats().total().peak_rss_bytes();
        pool.submit(delayed!(bytes(100 << 20))).join().unwrap();
        let after = pool.stats().total().peak_rss_bytes();
        assert!(before > 500_000 && after > before + (80 << 20), "{before} {after}");
    });
}

#[test]
fn many_small_tasks_bring_a_hint_and_few_long_ones_none() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        pool.map((0..20).map(|_| delayed!(take(1)))).unwrap();
        assert_eq!(pool.stats().hint(), None);
        let pool = Pool::new(1).unwrap();
        // One at a time: each is sent for itself.
        for n in 0..5000 {
            pool.submit(delayed!(echo(n))).join().unwrap();
        }
        let stats = pool.stats();
        assert!(stats.hint().is_some_and(|hint| hint.contains("give each task more work")), "{stats}");
        assert!(stats.to_string().contains("hint: "));
    });
}

#[test]
fn encoding_is_estimated_from_samples_of_the_workers() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        until("a worker has told", || {
            pool.map((0..100).map(|n| delayed!(echo(n)))).unwrap();
            pool.stats().total().encoding() > Duration::ZERO
        });
        let stats = pool.stats();
        assert!(stats.total().encoding() <= stats.total().busy());
    });
}

#[test]
fn printed_it_is_a_table_with_a_row_a_worker() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        pool.broadcast(delayed!(pid())).unwrap();
        let text = pool.stats().to_string();
        let rows: Vec<&str> = text.lines().collect();
        assert!(rows[0].contains("worker") && rows[0].contains("peak RSS"), "{text}");
        let width = rows[0].chars().count();
        assert!(rows[1..4].iter().all(|row| row.chars().count() == width), "{text}");
        assert!(rows[3].trim_start().starts_with("all"), "{text}");
        assert!(text.contains("of `") && text.contains("stats::pid"), "{text}");
    });
}

#[test]
fn a_pool_without_processes_counts_too() {
    alone(|| {
        let pool = Pool::in_process();
        pool.map((0..10).map(|n| delayed!(echo(n)))).unwrap();
        pool.submit(delayed!(take(5))).join().unwrap();
        let stats = pool.stats();
        assert!(pool.submit(delayed!(strike(End::Panic))).join().unwrap_err().is_panic());
        let (before, stats) = (stats, pool.stats());
        assert_eq!(before.total().tasks(), 11);
        assert_eq!((stats.total().tasks(), stats.total().finished(), stats.total().failed()), (12, 11, 1));
        assert!(stats.total().busy() >= Duration::from_millis(5));
    });
}
