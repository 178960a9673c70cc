//! Files that are mapped by the processes that use them.
#![expect(
    unsafe_code,
    reason = "`map_file`, of files of these tests, which nothing changes while they are mapped"
)]

use std::path::Path;

use procession::{Manager, Pool, Process, RemoteError, Shared, SharedSlice, delayed, parallel, worker};
use serde::{Deserialize, Serialize};

use super::slices::lies_in_shared_memory;
use crate::{alone::alone, end::End, event::until, scratch::Folder};

/// Returns where files of this name are mapped in this process.
fn mapped(name: &str) -> Vec<std::ops::Range<usize>> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux says what is mapped");
    let lines = maps.lines().filter(|line| line.contains(name));
    let range = |line: &str| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
    };
    lines.map(|line| range(line).expect("a range")).collect()
}

fn lies_in(name: &str, numbers: &[u64]) -> bool {
    mapped(name).iter().any(|range| range.contains(&numbers.as_ptr().addr()))
}

#[worker]
fn sum_mapped(name: &str, numbers: &[u64]) -> (bool, u64) {
    (lies_in(name, numbers), numbers.iter().sum())
}

#[worker]
fn sum_owned(name: &str, numbers: SharedSlice<u64>) -> (bool, u64) {
    (lies_in(name, &numbers), numbers.iter().sum())
}

#[worker]
fn mappings(name: &str) -> usize {
    mapped(name).len()
}

#[derive(Serialize, Deserialize)]
struct Table {
    name: String,
    columns: Vec<SharedSlice<u64>>,
}

#[worker]
fn sum_table(table: &Table) -> (bool, u64) {
    let all = table.columns.iter().all(|column| lies_in(&table.name, column));
    (all, table.columns.iter().map(|column| column.iter().sum::<u64>()).sum())
}

#[worker]
fn middle(numbers: SharedSlice<u64>) -> SharedSlice<u64> {
    numbers.slice(1..3)
}

#[worker]
fn add_all(sum: u64, numbers: &[u64]) -> u64 {
    sum + numbers.iter().sum::<u64>()
}

#[worker]
fn return_table(table: Shared<Table>) -> Shared<Table> {
    table
}

#[worker]
fn sum_within(name: &str, numbers: &[u64]) -> Result<Vec<(bool, u64)>, RemoteError> {
    Ok(parallel!(sum_mapped(name, part) for part in numbers.chunks(2))?)
}

#[worker]
fn die_once(name: &str, numbers: &[u64], file: &Path) -> (bool, u64) {
    if !file.exists() {
        std::fs::write(file, "").expect("a file of the test's");
        End::Kill.strike();
    }
    (lies_in(name, numbers), numbers.iter().sum())
}

/// Maps a file of these numbers, and deletes it.
fn map(folder: &Folder, name: &str, numbers: &[u64]) -> SharedSlice<u64> {
    let path = folder.path(name);
    std::fs::write(&path, numbers.iter().flat_map(|n| n.to_ne_bytes()).collect::<Vec<_>>()).unwrap();
    // SAFETY: nothing else knows the file.
    let mapped = unsafe { SharedSlice::map_file(&path) }.unwrap();
    std::fs::remove_file(&path).unwrap();
    mapped
}

#[test]
fn a_file_becomes_a_slice_where_it_is_if_its_length_fits() {
    let folder = Folder::new();
    let path = folder.path("numbers");
    std::fs::write(&path, [1, 0, 2, 0, 3]).unwrap();
    // SAFETY: the file is not changed before the slice is dropped.
    let error = unsafe { SharedSlice::<u16>::map_file(&path) }.unwrap_err();
    assert!(error.to_string().contains("5 bytes are not a number of elements of 2 bytes"), "{error}");
    // SAFETY: as above.
    let bytes = unsafe { SharedSlice::<u8>::map_file(&path) }.unwrap();
    assert_eq!((&*bytes, &*bytes.slice(2..)), (&[1, 0, 2, 0, 3][..], &[2, 0, 3][..]));
    drop(bytes);
    std::fs::write(&path, []).unwrap();
    // SAFETY: as above.
    assert!(unsafe { SharedSlice::<u64>::map_file(&path) }.unwrap().is_empty());
    // SAFETY: a folder is not mapped.
    let error = unsafe { SharedSlice::<u8>::map_file(folder.root()) }.unwrap_err();
    assert!(error.to_string().contains("it is not a regular file"), "{error}");
    nix::unistd::mkfifo(&folder.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = SharedSlice::<u8>::from_file(folder.path("fifo")).unwrap_err();
    assert!(error.to_string().contains("it is not a regular file"), "{error}");
    let error = SharedSlice::<u8>::from_file("/proc/self/status").unwrap_err();
    assert!(error.to_string().contains("its length is not known"), "{error}");
    // SAFETY: there is no file.
    assert!(unsafe { SharedSlice::<u8>::map_file(folder.path("missing")) }.is_err());
}

#[test]
fn workers_map_a_file_themselves_and_forget_it() {
    alone(|| {
        let (folder, name) = (Folder::new(), "mapped-by-workers");
        let pool = Pool::new(2).unwrap();
        // By Fork they are copied from this process, with what it has mapped then.
        assert!(pool.broadcast(delayed!(mappings(name))).unwrap().into_iter().all(|mappings| mappings == 0));
        let numbers = map(&folder, name, &[1, 2, 3, 4]);
        assert!(!lies_in_shared_memory(numbers.as_ptr().addr()));
        let sums = parallel!(pool = &pool; sum_mapped(name, part) for part in numbers.chunks(2)).unwrap();
        assert_eq!(sums, [(true, 3), (true, 7)]);
        let part = numbers.slice(1..);
        assert_eq!(pool.submit(delayed!(sum_owned(name, part.clone()))).join().unwrap(), (true, 9));
        assert_eq!(Process::spawn(delayed!(sum_mapped(name, &part))).unwrap().join().unwrap(), (true, 9));
        assert_eq!(delayed!(sum_mapped(name, &part)).call().unwrap(), (true, 9));
        let sums = pool.submit(delayed!(sum_within(name, &numbers))).join().unwrap().unwrap();
        assert_eq!(sums, [(true, 3), (true, 7)]);
        drop((numbers, part));
        assert!(mapped(name).is_empty());
        until("the workers have forgotten it", || {
            pool.broadcast(delayed!(mappings(name))).unwrap().into_iter().all(|mappings| mappings == 0)
        });
    });
}

#[test]
fn a_worker_that_takes_the_place_of_another_maps_the_file() {
    alone(|| {
        let (folder, name) = (Folder::new(), "mapped-by-another");
        let pool = Pool::builder().jobs(1).retries(1).build().unwrap();
        let numbers = map(&folder, name, &[1, 2, 3, 4]);
        let died = folder.path("died");
        assert_eq!(pool.submit(delayed!(die_once(name, &numbers, &died))).join().unwrap(), (true, 10));
    });
}

#[test]
fn mapped_files_within_other_values_are_mapped_there_and_come_back_as_copies() {
    alone(|| {
        let (folder, name) = (Folder::new(), "mapped-within-others");
        let pool = Pool::new(1).unwrap();
        let numbers = map(&folder, name, &[1, 2, 3, 4]);
        let columns = vec![numbers.clone(), numbers.slice(2..)];
        let table = Shared::new(&Table { name: name.to_owned(), columns }).unwrap();
        assert_eq!(pool.submit(delayed!(sum_table(&table))).join().unwrap(), (true, 17));
        // The caller does not rely on a file that a worker can change.
        let middle = pool.submit(delayed!(middle(numbers))).join().unwrap();
        assert_eq!((&*middle, lies_in(name, &middle)), (&[2, 3][..], false));
        let manager = Manager::start().unwrap();
        let sums = manager.dict::<u8, u64>().unwrap();
        sums.insert(1, 1).unwrap();
        let copy = table.columns[0].to_vec();
        assert_eq!(sums.update(&1, delayed!(add_all(_, &copy))).unwrap(), 11);
        let refused = sums.update(&1, delayed!(add_all(_, &table.columns[0]))).unwrap_err();
        assert!(refused.to_string().contains("cannot be given a mapped file"), "{refused}");
        let back = pool.submit(delayed!(return_table(table.clone()))).join().unwrap();
        assert_eq!((&*back.columns[0], lies_in(name, &back.columns[0])), (&[1, 2, 3, 4][..], false));
    });
}
