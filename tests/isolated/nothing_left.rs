//! Alone in its process, to count what the process has: nothing of a pool outlives it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    time::{Duration, Instant},
};

use procession::{Pool, delayed, worker};

#[worker]
fn square(n: u64) -> u64 {
    n * n
}

#[worker]
fn stay() {
    loop {
        std::thread::park();
    }
}

#[worker]
fn crash() {
    std::process::abort();
}

/// Everything that a pool could leave behind.
#[derive(Debug, PartialEq)]
struct Belongings {
    children: Vec<String>,
    descriptors: usize,
    threads: usize,
    segments: Vec<String>,
}

fn belongings() -> Belongings {
    let tasks: Vec<_> = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path()).collect();
    Belongings {
        // Zombies are children, too.
        children: tasks
            .iter()
            .flat_map(|task| {
                let children = fs::read_to_string(task.join("children")).unwrap_or_default();
                children.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
            })
            .collect(),
        descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
        threads: tasks.len(),
        segments: fs::read_to_string("/proc/self/maps")
            .unwrap()
            .lines()
            .filter(|line| line.contains("memfd:"))
            .map(str::to_owned)
            .collect(),
    }
}

/// A thread that was joined is gone from the list of threads a moment later; nothing else is waited for.
#[track_caller]
fn assert_left(before: &Belongings, when: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut left = belongings();
    while left.threads > before.threads && Instant::now() < deadline {
        std::thread::yield_now();
        left = belongings();
    }
    assert_eq!(&left, before, "{when}");
}

#[test]
fn no_child_descriptor_thread_or_segment_outlives_a_pool_however_it_ends() {
    let before = belongings();
    assert_eq!((before.children.len(), before.segments.len()), (0, 0));
    let squares = |pool: &Pool| assert_eq!(pool.map((0..50).map(|n| delayed!(square(n)))).unwrap().len(), 50);

    for round in 0..5 {
        drop(Pool::new(2).unwrap());
        assert_left(&before, &format!("round {round}: a pool that did nothing"));

        let pool = Pool::new(2).unwrap();
        squares(&pool);
        assert_ne!(belongings(), before, "the count sees a pool");
        drop(pool);
        assert_left(&before, &format!("round {round}: an idle pool, dropped"));

        let pool = Pool::new(2).unwrap();
        squares(&pool);
        pool.join().unwrap();
        assert_left(&before, &format!("round {round}: a joined pool"));

        let pool = Pool::new(2).unwrap();
        squares(&pool);
        let handles: Vec<_> = (0..10).map(|_| pool.submit(delayed!(stay()))).collect();
        pool.terminate();
        assert_left(&before, &format!("round {round}: a terminated pool"));
        assert!(handles.into_iter().all(|handle| handle.join().unwrap_err().is_cancelled()));

        let pool = Pool::new(2).unwrap();
        let handle = pool.submit(delayed!(stay()));
        drop(pool);
        assert_left(&before, &format!("round {round}: a pool that was still starting"));
        assert!(handle.join().unwrap_err().is_cancelled());

        let pool = Pool::new(2).unwrap();
        assert!(pool.submit(delayed!(crash())).join().unwrap_err().is_crash());
        squares(&pool);
        drop(pool);
        assert_left(&before, &format!("round {round}: a pool that replaced a worker"));

        let pool = std::thread::spawn(move || {
            let pool = Pool::new(2).unwrap();
            squares(&pool);
            pool
        });
        drop(pool.join().unwrap());
        assert_left(&before, &format!("round {round}: a pool from a thread that has ended"));
    }
}
