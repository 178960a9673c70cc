//! Large arguments, which are shared without being asked.

use std::path::Path;

use procession::{Pool, Process, RemoteError, SharedSlice, delayed, parallel, worker};

use super::slices::{lies_in_shared_memory, mapped};
use crate::{alone::alone, end::End, event::until, scratch::Folder};

/// From this size on, arguments are shared.
const LARGE: usize = 1 << 20;

/// Returns whether the bytes lie in shared memory, and their sum.
#[worker]
fn look_at_bytes(bytes: &[u8]) -> (bool, u64) {
    (lies_in_shared_memory(bytes.as_ptr().addr()), bytes.iter().map(|&byte| u64::from(byte)).sum())
}

/// Returns whether the numbers lie in shared memory, where, and their sum.
#[worker]
fn look(numbers: &[u32]) -> (bool, usize, u64) {
    let at = numbers.as_ptr().addr();
    (lies_in_shared_memory(at), at, numbers.iter().map(|&number| u64::from(number)).sum())
}

#[worker]
fn look_at_text(text: &str) -> (bool, usize) {
    (lies_in_shared_memory(text.as_ptr().addr()), text.chars().count())
}

#[worker]
fn look_at_numbers(numbers: &[f32]) -> (bool, f32) {
    (lies_in_shared_memory(numbers.as_ptr().addr()), numbers.iter().sum())
}

#[worker]
fn look_at_flags(flags: &[Option<u8>]) -> (bool, usize) {
    (lies_in_shared_memory(flags.as_ptr().addr()), flags.iter().flatten().count())
}

#[worker]
fn look_at_two(first: &[u32], second: &[u32]) -> (usize, usize) {
    assert!(lies_in_shared_memory(second.as_ptr().addr()));
    (first.as_ptr().addr(), second.as_ptr().addr())
}

#[worker]
fn own(bytes: Vec<u8>, text: String) -> usize {
    bytes.len() + text.len()
}

#[worker]
fn look_within(numbers: &[u32]) -> Result<Vec<(bool, usize, u64)>, RemoteError> {
    let copy = numbers.to_vec();
    Ok(parallel!(look(numbers) for numbers in [numbers, &copy])?)
}

#[worker]
fn die_once(numbers: &[u32], file: &Path) -> bool {
    if !file.exists() {
        std::fs::write(file, "").expect("a file of the test's");
        End::Kill.strike();
    }
    lies_in_shared_memory(numbers.as_ptr().addr()) && numbers.iter().all(|&number| number == 7)
}

#[worker]
fn mappings() -> usize {
    mapped().count()
}

#[test]
fn large_slices_of_numbers_are_shared_without_being_asked() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let numbers = vec![0.5; LARGE / 4];
        let expected = (true, (LARGE / 8) as f32);
        assert_eq!(pool.submit(delayed!(look_at_numbers(&numbers))).join().unwrap(), expected);
        assert_eq!(delayed!(look_at_numbers(&numbers)).call().unwrap(), expected);
        assert_eq!(Process::spawn(delayed!(look_at_numbers(&numbers))).unwrap().join().unwrap(), expected);
        let smaller = pool.submit(delayed!(look_at_numbers(&numbers[1..]))).join().unwrap();
        assert!(!smaller.0);
        let flags = vec![Some(1); LARGE];
        assert_eq!(
            pool.submit(delayed!(look_at_flags(&flags))).join().unwrap(),
            (false, LARGE),
            "not numbers"
        );
        let within = pool.submit(delayed!(look_within(&[1; LARGE / 4]))).join().unwrap().unwrap();
        assert!(within.iter().all(|&(is, _, sum)| is && sum == LARGE as u64 / 4));
    });
}

#[test]
fn large_bytes_and_long_text_are_shared_when_they_are_given_again() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let mut bytes = vec![1; LARGE];
        let look = |bytes: &[u8]| pool.submit(delayed!(look_at_bytes(bytes))).join().unwrap();
        let mut sum = LARGE as u64;
        assert_eq!([look(&bytes), look(&bytes), look(&bytes)], [(false, sum), (true, sum), (true, sum)]);
        for _ in 0..3 {
            bytes[LARGE - 1] += 1;
            sum += 1;
            assert_eq!([look(&bytes).1, look(&bytes).1, look(&bytes).1], [sum; 3]);
        }
        let text = "ż".repeat(LARGE / 2);
        let shown: Vec<_> =
            (0..3).map(|_| pool.submit(delayed!(look_at_text(&text))).join().unwrap()).collect();
        assert_eq!(shown, [(false, LARGE / 2), (true, LARGE / 2), (true, LARGE / 2)]);
        assert_eq!(pool.submit(delayed!(own(bytes.clone(), text.clone()))).join().unwrap(), 2 * LARGE);
    });
}

#[test]
fn the_same_elements_are_shared_once_and_changed_ones_anew() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let (mut numbers, other) = (vec![1; LARGE / 4], vec![2; LARGE / 4]);
        let look = |numbers: &[u32]| pool.submit(delayed!(look(numbers))).join().unwrap();
        let total = LARGE as u64 / 4;
        // Before the pool has begun, nothing is kept for its next tasks.
        assert_eq!(look(&numbers).2, total);
        let (_, first, _) = look(&numbers);
        assert_eq!(look(&numbers), (true, first, total));
        let pairs = parallel!(pool = &pool; look_at_two(&numbers, &other) for _ in 0..3).unwrap();
        assert!(pairs.iter().all(|pair| *pair == pairs[0] && pair.0 == first));
        assert_eq!(look(&numbers), (true, first, total));
        for n in 2..5 {
            numbers[LARGE / 4 - 1] = n;
            let (is, _, sum) = look(&numbers);
            assert_eq!((is, sum), (true, total - 1 + u64::from(n)));
        }
    });
}

#[test]
fn tasks_that_have_not_run_keep_what_they_were_given() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let mut numbers = vec![0; LARGE / 4];
        let give = |n| {
            numbers[0] = n;
            pool.submit(delayed!(look(&numbers)))
        };
        let handles: Vec<_> = (0..4).map(give).collect();
        for (n, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.join().unwrap().2, n as u64);
        }
    });
}

#[test]
fn many_large_arguments_need_few_descriptors() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let all = vec![1; LARGE / 4 + 100];
        let tasks: Vec<_> = (0..100).map(|n| delayed!(look(&all[n..][..LARGE / 4]))).collect();
        assert_eq!(mapped().count(), 64);
        let seen = pool.map(tasks).unwrap();
        assert!(seen.iter().all(|&(_, _, sum)| sum == LARGE as u64 / 4));
        assert_eq!(seen.iter().filter(|(is, ..)| *is).count(), 64);
    });
}

#[test]
fn large_arguments_are_dropped_with_their_tasks_and_the_last_with_the_pool() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        // By Fork they are copied from this process, with what it has mapped then.
        assert_eq!(pool.submit(delayed!(mappings())).join().unwrap(), 0);
        for n in 0..20 {
            assert!(pool.submit(delayed!(look(&vec![n; LARGE / 4]))).join().unwrap().0);
        }
        assert!(mapped().count() <= 4);
        let huge = vec![1; 17 << 20];
        assert!(pool.submit(delayed!(look(&huge))).join().unwrap().0);
        until("one that is so large is not kept", || mapped().count() == 0);
        until("the worker has forgotten them", || pool.submit(delayed!(mappings())).join().unwrap() == 0);
        assert!(pool.submit(delayed!(look(&huge[..LARGE / 4]))).join().unwrap().0);
        drop(pool);
        assert_eq!(mapped().count(), 0);
        drop(delayed!(look(&huge[..LARGE / 4])));
        assert_eq!(mapped().count(), 0, "without a pool nothing is kept");
    });
}

#[test]
fn of_an_argument_that_changes_only_the_last_state_is_kept() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let mut numbers = vec![0; LARGE / 4];
        for n in 1..6 {
            numbers[7] = n;
            assert_eq!(pool.submit(delayed!(look(&numbers))).join().unwrap().2, u64::from(n));
            until("what was replaced is dropped", || mapped().count() <= 1);
        }
    });
}

#[test]
fn a_worker_that_takes_the_place_of_another_is_handed_a_large_argument() {
    alone(|| {
        let folder = Folder::new();
        let pool = Pool::builder().jobs(1).retries(1).build().unwrap();
        let mut numbers = vec![7; LARGE / 4];
        let handle = pool.submit(delayed!(die_once(&numbers, &folder.path("died"))));
        numbers.fill(8);
        assert!(handle.join().unwrap());
    });
}

#[test]
fn shared_slices_are_not_shared_again() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let shared = SharedSlice::from_slice(&vec![1; LARGE / 4]).unwrap();
        let before = mapped().count();
        assert!(pool.submit(delayed!(look(&shared))).join().unwrap().0);
        assert_eq!(mapped().count(), before);
    });
}
