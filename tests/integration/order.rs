//! Results arrive in the order of the input, and the input is read only as far as needed.

use std::{
    cell::Cell,
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use procession::{Pool, delayed, parallel, worker};

use crate::{
    alone::{alone, alone_with_warm_pool},
    event::{take_time, until_exists},
    scratch::Folder,
};

#[worker]
fn double_after(n: u64, micros: u64) -> u64 {
    take_time(Duration::from_micros(micros));
    2 * n
}

#[worker]
fn double(n: u64) -> u64 {
    2 * n
}

#[worker]
fn len_of(words: &str, by: usize) -> usize {
    words.len() * by
}

#[worker]
fn bytes_len(bytes: &[u8], millis: u64) -> usize {
    take_time(Duration::from_millis(millis));
    bytes.len()
}

/// Records that it ran.
#[worker]
fn touch(path: &Path) {
    std::fs::write(path, "").expect("a file of the test's");
}

/// A time that differs from task to task, with the long ones among the first.
fn uneven(n: u64) -> u64 {
    if n.is_multiple_of(50) { 20_000 } else { n * 7 % 11 * 50 }
}

#[test]
fn map_keeps_the_order_of_the_input() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let results = pool.map((0..300).map(|n| delayed!(double_after(n, uneven(n))))).unwrap();
        assert_eq!(results, (0..300).map(|n| 2 * n).collect::<Vec<_>>());
        assert_eq!(pool.map((0..0).map(|n| delayed!(double(n)))).unwrap(), []);
    });
}

#[test]
fn imap_keeps_the_order_of_the_input() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let results = pool.imap((0..300).map(|n| delayed!(double_after(n, uneven(n))))).map(Result::unwrap);
        assert!(results.eq((0..300).map(|n| 2 * n)));
        assert_eq!(pool.imap((0..0).map(|n| delayed!(double(n)))).count(), 0);
    });
}

#[test]
fn imap_unordered_gives_each_result_once_and_the_quick_before_the_slow() {
    alone(|| {
        let folder = Folder::new();
        let go = folder.path("go");
        #[worker]
        fn wait_if_first(n: u64, go: &Path) -> u64 {
            if n == 0 {
                until_exists(go);
            }
            n
        }
        let pool = Pool::new(2).unwrap();
        let mut results = pool.imap_unordered((0..100).map(|n| delayed!(wait_if_first(n, &go))));
        let (index, first) = results.next().unwrap();
        assert_ne!((index, first.unwrap()), (0, 0), "the slow one has not ended");
        std::fs::write(&go, "").unwrap();
        let mut indices: Vec<usize> = results
            .map(|(index, result)| {
                assert_eq!(result.unwrap(), index as u64);
                index
            })
            .collect();
        indices.push(index);
        indices.sort_unstable();
        assert_eq!(indices, (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn parallel_keeps_the_order_of_nested_loops_with_borrowed_arguments() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let words: Vec<String> = (0..40).map(|n| "x".repeat(n)).collect();
        let factors = vec![1, 2, 3];
        let results =
            parallel!(pool = &pool; len_of(word, *by) for word in &words if word.len() % 2 == 0 for by in &factors if *by != 2)
                .unwrap();
        let expected: Vec<usize> =
            words.iter().filter(|w| w.len() % 2 == 0).flat_map(|w| [w.len(), 3 * w.len()]).collect();
        assert_eq!(results, expected);
        let lent = parallel!(pool = &pool; len_of(&word, 1) for word in words).unwrap();
        assert_eq!(lent, (0..40).collect::<Vec<_>>());
    });
}

#[test]
fn parallel_has_a_pool_of_its_own() {
    alone_with_warm_pool(|| {
        let results = parallel!(double(n) for n in 0..10_000).unwrap();
        assert_eq!(results, (0..10_000).map(|n| 2 * n).collect::<Vec<_>>());
        let (a, b) = parallel!(jobs = 2; double(1), len_of("abc", 2)).unwrap();
        assert_eq!((a, b), (2, 6));
    });
}

#[test]
fn batches_of_every_size_keep_the_order() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        for batch in [1, 2, 7, 64, 5000] {
            let results = parallel!(pool = &pool, batch = batch; double(n) for n in 0..1000).unwrap();
            assert_eq!(results, (0..1000).map(|n| 2 * n).collect::<Vec<_>>(), "{batch}");
        }
    });
}

#[test]
fn a_hundred_thousand_quick_tasks_keep_their_order() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let results = pool.map((0..100_000).map(|n| delayed!(double(n)))).unwrap();
        assert!(results.into_iter().eq((0..100_000).map(|n| 2 * n)));
    });
}

#[test]
fn nothing_is_read_before_the_first_result_is_asked_for() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let results = pool.imap((0..3).map(|n| delayed!(double(n))).inspect(|_| panic!("it was read")));
        drop(results);
    });
}

/// The most input that may be read ahead of quick tasks: a few of the largest batches for each worker.
const WINDOW_PER_WORKER: u64 = 4 * 512;

#[test]
fn an_endless_input_is_read_within_a_window() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let read = Rc::new(Cell::new(0));
        let counter = read.clone();
        let endless = (0..).inspect(move |_| counter.set(counter.get() + 1)).map(|n| delayed!(double(n)));
        let mut results = pool.imap(endless);
        for n in 0..20_000 {
            assert_eq!(results.next().unwrap().unwrap(), 2 * n);
            let ahead = read.get() - n;
            assert!(ahead <= 2 * WINDOW_PER_WORKER + 1, "{ahead} were read ahead of task {n}");
        }
        drop(results);
        assert_eq!(pool.submit(delayed!(double(4))).join().unwrap(), 8, "the pool serves on");
    });
}

/// Runs for this number of microseconds.
#[worker]
fn double_busily(n: u64, micros: u64) -> u64 {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(micros) {
        std::hint::spin_loop();
    }
    2 * n
}

#[test]
fn what_a_map_has_learned_of_its_tasks_does_not_widen_the_window_of_an_iterator() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        for (micros, most) in [(0, 2 * WINDOW_PER_WORKER), (10, 2 * 4 * 20), (100, 2 * 4 * 2)] {
            let tasks = |n: u64| delayed!(double_busily(n, micros));
            assert_eq!(pool.map((0..500).map(tasks)).unwrap().len(), 500);
            let read = Cell::new(0);
            let input = (0..5_000).inspect(|_| read.set(read.get() + 1)).map(tasks);
            for (given, result) in (0..2_000).zip(pool.imap(input)) {
                assert_eq!(result.unwrap(), 2 * given);
                let ahead = read.get() - given;
                assert!(ahead <= most + 1, "{ahead} tasks of {micros} us were read ahead of task {given}");
            }
        }
    });
}

#[test]
fn an_endless_input_of_slow_tasks_is_hardly_read_ahead() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let read = Rc::new(Cell::new(0));
        let counter = read.clone();
        let endless =
            (0..).inspect(move |_| counter.set(counter.get() + 1)).map(|n| delayed!(double_after(n, 3000)));
        let mut given = 0;
        for (_, result) in pool.imap_unordered(endless).take(60) {
            result.unwrap();
            given += 1;
            let ahead = read.get() - given;
            assert!(ahead <= 16, "{ahead} were read ahead");
        }
    });
}

#[test]
fn a_result_that_is_not_taken_holds_the_input_back() {
    alone(|| {
        let folder = Folder::new();
        let go = folder.path("go");
        #[worker]
        fn wait_for(path: &Path, n: u64) -> u64 {
            if n == 0 {
                until_exists(path);
            }
            n
        }
        let pool = Pool::new(2).unwrap();
        let read = Rc::new(Cell::new(0));
        let (counter, starter) = (read.clone(), go.clone());
        // The first task waits for the input to be read far ahead, which must not happen; the producer lets it go in the end.
        let endless = (0..).inspect(move |&n| {
            counter.set(n);
            assert!(n < 100_000, "the window is not bounded");
            if n == 3 {
                let starter = starter.clone();
                std::thread::spawn(move || {
                    crate::event::take_time(Duration::from_millis(300));
                    std::fs::write(starter, "").expect("a file of the test's");
                });
            }
        });
        let mut results = pool.imap(endless.map(|n| delayed!(wait_for(&go, n))));
        assert_eq!(results.next().unwrap().unwrap(), 0);
        assert!(read.get() <= 2 * WINDOW_PER_WORKER, "{} were read while the first ran", read.get());
    });
}

#[test]
fn the_window_is_bounded_in_bytes_too() {
    alone(|| {
        const LEN_BYTES: usize = 8 << 20;
        let pool = Pool::builder().jobs(2).chunk_size(64).build().unwrap();
        let read = Rc::new(Cell::new(0));
        let counter = read.clone();
        // The same bytes would be shared, and cost nothing.
        let endless = (0..)
            .inspect(move |_| counter.set(counter.get() + 1))
            .map(|n: u64| delayed!(bytes_len(&vec![n as u8; LEN_BYTES], 1)));
        for (given, result) in (1..).zip(pool.imap(endless).take(20)) {
            assert_eq!(result.unwrap(), LEN_BYTES);
            let ahead = read.get() - given;
            assert!(ahead <= 16, "{ahead} arguments of 8 MiB were read ahead");
        }
    });
}

fn check_slow_producer(builder: procession::Builder) {
    let folder = Folder::new();
    let path = |n: u64| folder.path(&n.to_string());
    let pool = builder.jobs(2).build().unwrap();
    // Each item comes only after the task before has run.
    let tasks = (0..50).map(|n| {
        if n > 0 {
            until_exists(&path(n - 1));
        }
        delayed!(touch(&path(n)))
    });
    assert_eq!(pool.map(tasks).unwrap().len(), 50);
    // Two tasks that wait for each other, so that both workers must have one, before the input continues.
    for round in 0..5 {
        let name = |n: u64| path(100 + 3 * round + n);
        let pair = (0..3).map(|n| {
            if n == 2 {
                (0..2).for_each(|n| until_exists(&name(n)));
            }
            delayed!(touch_and_wait(&name(n), &name(1 - n % 2)))
        });
        assert_eq!(pool.map(pair).unwrap().len(), 3);
    }
}

#[worker]
fn touch_and_wait(own: &Path, awaited: &Path) {
    touch(own);
    until_exists(awaited);
}

#[test]
fn a_slow_producers_tasks_are_not_held_back() {
    alone(|| check_slow_producer(Pool::builder()));
}

#[test]
fn a_slow_producers_tasks_are_not_held_back_to_fill_a_chunk() {
    alone(|| check_slow_producer(Pool::builder().chunk_size(50)));
}

#[test]
fn a_producer_that_becomes_slow_does_not_hold_its_tasks_back() {
    alone(|| {
        let folder = Folder::new();
        let pool = Pool::new(2).unwrap();
        // Quick tasks make batches large. Then comes one that the producer waits for.
        let quick = (0..5000).map(|n: u64| delayed!(touch_if(&folder.path("last"), n == 4999)));
        #[worker]
        fn touch_if(path: &Path, really: bool) {
            if really {
                touch(path);
            }
        }
        let after = (0..1).map(|_| {
            until_exists(&folder.path("last"));
            delayed!(touch_if(&folder.path("after"), true))
        });
        let count = pool.imap(quick.chain(after)).map(Result::unwrap).count();
        assert_eq!(count, 5001);
        assert!(folder.path("after").exists());
    });
}

#[test]
fn an_iterator_sends_chunks_of_the_requested_size() {
    alone(|| {
        let pool = Pool::builder().jobs(2).chunk_size(1000).build().unwrap();
        let results = pool.imap((0..300).map(|n| delayed!(double(n)))).chunk_size(7).map(Result::unwrap);
        assert!(results.eq((0..300).map(|n| 2 * n)));
        let mut results: Vec<(usize, u64)> = pool
            .imap_unordered((0..300).map(|n| delayed!(double(n))))
            .chunk_size(1)
            .map(|(index, result)| (index, result.unwrap()))
            .collect();
        results.sort_unstable();
        assert!(results.into_iter().eq((0..300).map(|n| (n as usize, 2 * n))));
    });
}
