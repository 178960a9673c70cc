//! Memory that tasks share instead of receiving copies of it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use procession::{Pool, Process, RemoteError, Shared, SharedSlice, delayed, parallel, worker};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::{
    alone::alone,
    end::End,
    event::{until, until_exists},
    scratch::Folder,
};

/// How many values were decoded in this process.
static DECODED: AtomicU32 = AtomicU32::new(0);

/// A value that counts how often it is decoded.
#[derive(Debug, Serialize)]
struct Index(Vec<u64>);

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Plain(Vec<u64>);
        DECODED.fetch_add(1, Ordering::Relaxed);
        Plain::deserialize(deserializer).map(|plain| Self(plain.0))
    }
}

/// A value that cannot be decoded.
#[derive(Debug, Serialize)]
struct Lost;

impl<'de> Deserialize<'de> for Lost {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom("it is lost"))
    }
}

#[worker]
fn look_up(index: &Index, at: usize) -> (u64, u32, u32) {
    (index.0[at], std::process::id(), DECODED.load(Ordering::Relaxed))
}

#[worker]
fn look_up_twice(index: Shared<Index>, again: &Index, at: usize) -> (u64, bool, u32) {
    (index.0[at], std::ptr::eq(&*index, again), DECODED.load(Ordering::Relaxed))
}

#[worker]
fn sum(numbers: &[u64]) -> u64 {
    numbers.iter().sum()
}

/// Returns whether the elements lie in shared memory.
#[worker]
fn is_shared(numbers: &[u64]) -> bool {
    lies_in_shared_memory(numbers.as_ptr().addr())
}

#[worker]
fn are_shared(bytes: &[u8], text: &str) -> (bool, bool, usize, String) {
    let [first, second] = [bytes.as_ptr(), text.as_ptr()].map(|at| lies_in_shared_memory(at.addr()));
    (first, second, bytes.len(), text.to_owned())
}

#[worker]
fn is_owned_shared(numbers: SharedSlice<u64>) -> (bool, u64) {
    (lies_in_shared_memory(numbers.as_ptr().addr()), numbers.iter().sum())
}

#[derive(Serialize, Deserialize)]
struct Picture {
    name: String,
    pixels: SharedSlice<f32>,
    palette: Option<Shared<str>>,
}

#[worker]
fn brightness(picture: &Picture) -> (f32, String, bool) {
    let sum = picture.pixels.iter().sum();
    (
        sum,
        picture.palette.as_deref().unwrap_or_default().to_owned(),
        lies_in_shared_memory(picture.pixels.as_ptr().addr()),
    )
}

#[worker]
fn make_picture(of: usize) -> Result<Picture, RemoteError> {
    let pixels = SharedSlice::from_iter(of, (0..).map(|n| n as f32))?;
    Ok(Picture { name: "new".to_owned(), pixels, palette: Some(Shared::new("grey")?) })
}

#[worker]
fn make_shared_picture(of: usize) -> Result<Shared<Picture>, RemoteError> {
    Ok(Shared::new(&make_picture(of)?)?)
}

#[worker]
fn hand_on(picture: &Picture) -> Result<Vec<(f32, String, bool)>, RemoteError> {
    Ok(parallel!(brightness(picture) for _ in 0..2)?)
}

#[worker]
fn count_all(slices: Vec<SharedSlice<u64>>) -> u64 {
    slices.iter().map(|slice| slice.iter().sum::<u64>()).sum()
}

#[worker]
fn sum_in_turn(numbers: &[u64], keep: &Path) -> Result<Vec<u64>, RemoteError> {
    // What was handed to this process is handed on, and so is what it has made.
    let own = SharedSlice::from_slice(numbers)?;
    assert!(parallel!(is_shared(part) for part in numbers.chunks(10))?.into_iter().all(|is| is));
    let sums = parallel!(sum(part) for part in own.chunks(10))?;
    std::fs::write(keep, "")?;
    Ok(sums)
}

#[worker]
fn die_once(numbers: &[u64], file: &Path) -> u64 {
    if !file.exists() {
        std::fs::write(file, "").expect("a file of the test's");
        End::Kill.strike();
    }
    assert!(lies_in_shared_memory(numbers.as_ptr().addr()));
    numbers.iter().sum()
}

/// Returns how many mappings of shared values this process has.
#[worker]
fn mappings() -> usize {
    mapped().count()
}

#[worker]
fn hold(begun: &Path, go: &Path, numbers: SharedSlice<u64>) -> u64 {
    std::fs::write(begun, "").expect("a file of the test's");
    until_exists(go);
    numbers.iter().sum()
}

#[worker]
fn take_owned_lost(lost: Shared<Lost>) {
    let _: &Lost = &lost;
}

pub(super) fn mapped() -> impl Iterator<Item = std::ops::Range<usize>> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux says what is mapped");
    let lines: Vec<String> =
        maps.lines().filter(|line| line.contains("procession-shared")).map(str::to_owned).collect();
    lines.into_iter().map(|line| {
        let (start, end) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let [start, end] = [start, end].map(|number| usize::from_str_radix(number, 16).expect("a number"));
        start..end
    })
}

pub(super) fn lies_in_shared_memory(address: usize) -> bool {
    mapped().any(|range| range.contains(&address))
}

fn total_of(numbers: &[u64]) -> u64 {
    numbers.iter().sum()
}

fn numbers(len: usize) -> Vec<u64> {
    (0..len as u64).map(|n| n * 7).collect()
}

#[test]
fn a_shared_value_is_decoded_once_in_each_worker() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let index = Shared::new(&Index(numbers(1000))).unwrap();
        let found = parallel!(pool = &pool; look_up(&index, at) for at in 0..1000).unwrap();
        for (at, (value, _, decoded)) in found.into_iter().enumerate() {
            assert_eq!((value, decoded), (at as u64 * 7, 1), "once in its worker");
        }
        assert_eq!(DECODED.load(Ordering::Relaxed), 1, "and once here, where a reference to it was made");
        assert_eq!(
            pool.submit(delayed!(look_up_twice(index.clone(), &index, 9))).join().unwrap(),
            (63, true, 1)
        );
    });
}

#[test]
fn elements_that_lie_in_a_shared_slice_are_not_copied_to_workers() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let shared = SharedSlice::from_slice(&numbers(100_000)).unwrap();
        assert!(
            parallel!(pool = &pool; is_shared(part) for part in shared.chunks(999))
                .unwrap()
                .into_iter()
                .all(|is| is)
        );
        assert_eq!(
            pool.map(shared.chunks(1000).map(|part| delayed!(sum(part)))).unwrap().iter().sum::<u64>(),
            total_of(&shared)
        );
        assert!(pool.submit(delayed!(is_shared(&shared))).join().unwrap());
        assert!(pool.broadcast(delayed!(is_shared(&shared.slice(5..)))).unwrap().into_iter().all(|is| is));
        let (is, total) = pool.submit(delayed!(is_owned_shared(shared.slice(1..3)))).join().unwrap();
        assert_eq!((is, total), (true, 21));
        let own = numbers(100);
        assert!(!pool.submit(delayed!(is_shared(&own))).join().unwrap(), "an ordinary slice is a copy there");
        assert!(!pool.submit(delayed!(is_shared(&shared[..0]))).join().unwrap(), "nothing lies nowhere");
    });
}

#[test]
fn shared_bytes_and_shared_text_are_used_where_they_are() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let bytes = Shared::new(&[7_u8; 5000][..]).unwrap();
        let text = Shared::new("zażółć gęślą jaźń").unwrap();
        let shown = pool.submit(delayed!(are_shared(&bytes, &text[2..]))).join().unwrap();
        assert_eq!(shown, (true, true, 5000, text[2..].to_owned()));
        let shown = pool.submit(delayed!(are_shared(&bytes[1..], "own"))).join().unwrap();
        assert_eq!(shown, (true, false, 4999, "own".to_owned()));
    });
}

#[test]
fn handles_within_other_values_are_handles_there() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let pixels = SharedSlice::from_slice(&[1.0_f32, 2.0, 4.0]).unwrap();
        let picture = Picture { name: "own".to_owned(), pixels, palette: Some(Shared::new("red").unwrap()) };
        assert_eq!(
            pool.submit(delayed!(brightness(&picture))).join().unwrap(),
            (7.0, "red".to_owned(), true)
        );
        let shared = Shared::new(&picture).unwrap();
        drop(picture);
        assert_eq!(pool.submit(delayed!(brightness(&shared))).join().unwrap(), (7.0, "red".to_owned(), true));
        assert_eq!(shared.name, "own");
    });
}

#[test]
fn results_may_be_shared_values_and_are_shared_on() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let picture = pool.submit(delayed!(make_picture(4))).join().unwrap().unwrap();
        assert_eq!((&picture.name[..], &*picture.pixels), ("new", &[0.0, 1.0, 2.0, 3.0][..]));
        assert_eq!(picture.palette.as_deref(), Some("grey"));
        assert_eq!(
            pool.submit(delayed!(brightness(&picture))).join().unwrap(),
            (6.0, "grey".to_owned(), true)
        );
    });
}

#[test]
fn a_shared_value_with_handles_within_is_a_result_and_is_handed_on_by_workers() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let picture = pool.submit(delayed!(make_shared_picture(4))).join().unwrap().unwrap();
        assert_eq!(picture.pixels.len(), 4);
        let expected = (6.0, "grey".to_owned(), true);
        assert_eq!(pool.submit(delayed!(brightness(&picture))).join().unwrap(), expected);
        let handed_on = pool.submit(delayed!(hand_on(&picture))).join().unwrap().unwrap();
        assert_eq!(handed_on, vec![expected; 2]);
    });
}

#[test]
fn one_task_may_name_any_number_of_slices() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let slices: Vec<_> = (0..700).map(|n| SharedSlice::from_slice(&[n]).unwrap()).collect();
        let sum = pool.submit(delayed!(count_all(slices.clone()))).join().unwrap();
        assert_eq!(sum, (0..700).sum::<u64>());
    });
}

#[test]
fn a_worker_that_takes_the_place_of_another_is_handed_what_it_needs() {
    alone(|| {
        let folder = Folder::new();
        let pool = Pool::builder().jobs(1).retries(1).build().unwrap();
        let shared = SharedSlice::from_slice(&numbers(100)).unwrap();
        assert_eq!(pool.submit(delayed!(sum(&shared))).join().unwrap(), total_of(&shared));
        let total = pool.submit(delayed!(die_once(&shared, &folder.path("died")))).join().unwrap();
        assert_eq!(total, total_of(&shared));
    });
}

#[test]
fn workers_forget_what_the_caller_has_dropped() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        // By Fork they are copied from this process, with what it has mapped then.
        assert!(pool.broadcast(delayed!(mappings())).unwrap().into_iter().all(|mappings| mappings == 0));
        for _ in 0..3 {
            let shared: Vec<_> = (1..20).map(|n| SharedSlice::from_slice(&numbers(n)).unwrap()).collect();
            let sums = parallel!(pool = &pool; sum(slice) for slice in &shared).unwrap();
            assert_eq!(sums.len(), 19);
            assert!(pool.broadcast(delayed!(mappings())).unwrap().into_iter().sum::<usize>() >= 19);
        }
        // No task tells them now.
        assert_eq!(mapped().count(), 0);
        until("the workers have forgotten it", || {
            pool.broadcast(delayed!(mappings())).unwrap().into_iter().all(|mappings| mappings == 0)
        });
    });
}

#[test]
fn a_slice_lives_as_long_as_a_worker_uses_it() {
    alone(|| {
        let folder = Folder::new();
        let (begun, go) = (folder.path("begun"), folder.path("go"));
        let pool = Pool::new(1).unwrap();
        let shared = SharedSlice::from_slice(&numbers(10)).unwrap();
        let total = total_of(&shared);
        let handle = pool.submit(delayed!(hold(&begun, &go, shared)));
        until_exists(&begun);
        std::fs::write(&go, "").unwrap();
        assert_eq!(handle.join().unwrap(), total);
    });
}

#[test]
fn many_slices_in_one_call_are_each_handed_over() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let shared: Vec<_> = (0..600).map(|n| SharedSlice::from_slice(&[n, n + 1]).unwrap()).collect();
        let sums = parallel!(pool = &pool; sum(slice) for slice in &shared).unwrap();
        assert!(sums.into_iter().eq((0..600).map(|n| 2 * n + 1)));
    });
}

#[test]
fn one_process_and_a_call_in_this_process_share_too() {
    alone(|| {
        let shared = SharedSlice::from_slice(&numbers(100)).unwrap();
        let total = total_of(&shared);
        assert!(Process::spawn(delayed!(is_shared(&shared))).unwrap().join().unwrap());
        assert_eq!(delayed!(sum(&shared[..])).call().unwrap(), total);
        assert!(delayed!(is_shared(&shared)).call().unwrap());
        let pool = Pool::in_process();
        assert!(pool.submit(delayed!(is_shared(&shared))).join().unwrap());
        let index = Shared::new(&Index(vec![5])).unwrap();
        assert_eq!(parallel!(pool = &pool; look_up(&index, 0)).unwrap().0, 5);
        assert_eq!(sum(&shared), total, "and it is a plain function");
    });
}

#[test]
fn a_pool_within_a_worker_shares_its_own_memory() {
    alone(|| {
        let folder = Folder::new();
        let pool = Pool::new(1).unwrap();
        let shared = SharedSlice::from_slice(&numbers(100)).unwrap();
        let sums = pool.submit(delayed!(sum_in_turn(&shared, &folder.path("done")))).join().unwrap().unwrap();
        assert_eq!(sums.iter().sum::<u64>(), total_of(&shared));
    });
}

#[test]
fn a_value_that_cannot_be_decoded_is_an_error_of_the_task() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let fields = BTreeMap::from([("a".to_owned(), 1_u64)]);
        assert_eq!(Shared::new(&fields).unwrap()["a"], 1);
        let lost = Shared::new(&Lost).unwrap();
        let error = pool.submit(delayed!(take_owned_lost(lost))).join().unwrap_err();
        assert!(error.is_panic() && error.to_string().contains("a shared value: "), "{error}");
    });
}
