//! Memory that can be changed and that moves between the caller and its workers, which is never copied.

use std::{collections::BTreeMap, path::Path, sync::Mutex};

use procession::{Pool, Process, RemoteError, SharedSlice, SharedSliceMut, delayed, parallel, worker};
use serde::{Deserialize, Serialize};

use super::{
    parts::{count_up, writable_mappings, writable_now},
    slices::{lies_in_shared_memory, mapped},
};
use crate::{
    alone::alone,
    end::End,
    event::{block_on, until},
    scratch::Folder,
};

#[worker]
fn step(mut grid: SharedSliceMut<u64>, by: u64) -> SharedSliceMut<u64> {
    grid.iter_mut().for_each(|cell| *cell += by);
    grid
}

#[worker]
fn steps(grids: Vec<SharedSliceMut<u64>>) -> Vec<SharedSliceMut<u64>> {
    grids.into_iter().rev().map(|grid| step(grid, 1)).collect()
}

#[worker]
fn make(len: usize, from: u64) -> Result<SharedSliceMut<u64>, RemoteError> {
    let mut made = SharedSliceMut::zeroed(len)?;
    count_up(from, &mut made);
    Ok(made)
}

#[worker]
fn make_within(len: usize) -> Result<SharedSliceMut<u64>, RemoteError> {
    let pool = Pool::new(1)?;
    let made = pool.submit(delayed!(make(len, 1))).join()??;
    Ok(pool.submit(delayed!(step(made, 1))).join()?)
}

#[worker]
fn render(len: usize, color: u8) -> Result<SharedSlice<u8>, RemoteError> {
    let mut image = SharedSliceMut::zeroed(len)?;
    image.fill(color);
    Ok(image.freeze())
}

#[worker]
fn finish(grid: SharedSliceMut<u64>, by: u64) -> SharedSlice<u64> {
    step(grid, by).freeze()
}

#[worker]
fn die_once(mut grid: SharedSliceMut<u64>, once: &Path) -> Result<SharedSliceMut<u64>, RemoteError> {
    grid[0] += 10;
    if !once.exists() {
        std::fs::write(once, "")?;
        grid[0] -= 9;
        End::Kill.strike();
    }
    Ok(grid)
}

#[worker]
fn freeze_and_die(grid: SharedSliceMut<u64>, once: &Path) -> Result<SharedSlice<u64>, RemoteError> {
    let frozen = grid.freeze();
    if !once.exists() {
        std::fs::write(once, "")?;
        End::Kill.strike();
    }
    Ok(frozen)
}

/// What is returned with a name, or not.
type Named = (Option<SharedSliceMut<u64>>, BTreeMap<String, SharedSliceMut<u64>>);

#[worker]
fn name(grid: SharedSliceMut<u64>, middle: usize) -> Named {
    let (left, right) = grid.split_at(middle);
    (Some(left), [("right".to_owned(), right)].into())
}

#[worker]
fn last_half(grid: SharedSliceMut<u64>) -> SharedSliceMut<u64> {
    let half = grid.len() / 2;
    let (left, right) = grid.split_at(half);
    *KEPT.lock().expect("no task has panicked") = Some(left);
    right
}

#[worker]
fn keep_on() -> Option<u64> {
    let mut kept = KEPT.lock().expect("no task has panicked").take()?;
    kept[0] += 1;
    Some(kept[0])
}

/// What a process has kept.
static KEPT: Mutex<Option<SharedSliceMut<u64>>> = Mutex::new(None);

/// A result that is kept when it is dropped.
#[derive(Serialize, Deserialize)]
struct Kept(Option<SharedSliceMut<u64>>);

impl Drop for Kept {
    fn drop(&mut self) {
        *KEPT.lock().expect("no task has panicked") = self.0.take();
    }
}

#[worker]
fn keep() -> Result<Kept, RemoteError> {
    Ok(Kept(Some(SharedSliceMut::zeroed(1)?)))
}

#[test]
fn a_slice_that_moves_to_a_task_and_back_stays_where_it_is() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let mut grid = SharedSliceMut::zeroed(1 << 20).unwrap();
        let at = grid.as_ptr();
        for round in 1..=10 {
            grid = pool.submit(delayed!(step(grid, 1))).join().unwrap();
            assert!(std::ptr::eq(grid.as_ptr(), at));
            assert!(grid.iter().all(|cell| *cell == round));
            grid[0] = round;
        }
        let (left, right) = grid.split_at(1 << 17);
        let (left, right) = parallel!(pool = &pool; step(left, 1), step(right, 2)).unwrap();
        let mut grids = pool.submit(delayed!(steps(vec![left, right]))).join().unwrap();
        grids.reverse();
        let mut grid = SharedSliceMut::rejoin(grids).unwrap();
        assert!(std::ptr::eq(grid.as_ptr(), at), "the halves belong together");
        assert_eq!((grid[0], grid[1 << 17]), (12, 13));
        grid = block_on(pool.submit(delayed!(step(grid, 1)))).unwrap();
        grid = Process::spawn(delayed!(step(grid, 1))).unwrap().join().unwrap();
        grid = pool.map([delayed!(step(grid, 1))]).unwrap().remove(0);
        grid = delayed!(step(grid, 1)).call().unwrap();
        grid = Pool::in_process().submit(delayed!(step(grid, 1))).join().unwrap();
        let (left, mut others) = pool.submit(delayed!(name(grid, 1000))).join().unwrap();
        grid = SharedSliceMut::rejoin([left.unwrap(), others.remove("right").unwrap()]).unwrap();
        // It is lent to those who had it.
        parallel!(pool = &pool; count_up(n, part) for (n, part) in (0..).step_by(999).zip(grid.chunks_mut(999)))
            .unwrap();
        assert!(grid.iter().copied().eq(0..1 << 20) && std::ptr::eq(grid.as_ptr(), at));
        let bytes = pool.stats().total().bytes_received();
        assert!(bytes < 1 << 19, "{bytes} bytes were received");
    });
}

#[test]
fn a_slice_that_a_worker_has_made_is_the_callers_own() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let made = parallel!(pool = &pool; make(1 << 20, n)? for n in 0..3).unwrap();
        for (n, made) in (0..).zip(&made) {
            assert!(lies_in_shared_memory(made.as_ptr().addr()));
            assert!(made.iter().copied().eq(n..n + (1 << 20)));
        }
        let bytes = pool.stats().total().bytes_received();
        assert!(bytes < 1 << 19, "{bytes} bytes were received");
        let mut first = made.into_iter().next().unwrap();
        first[0] = 50;
        let mut first = pool.submit(delayed!(step(first, 1))).join().unwrap();
        first[1] += 1;
        assert_eq!(first[..3], [51, 3, 3]);
        assert_eq!(first.freeze()[..3], [51, 3, 3]);
        let made = pool.submit(delayed!(make_within(3))).join().unwrap().unwrap();
        assert_eq!(*made, [2, 3, 4]);
        drop(made);
        drop(pool.submit(delayed!(make(3, 0))));
        assert!(
            pool.broadcast(delayed!(make(0, 0))).unwrap().into_iter().all(|made| made.unwrap().is_empty())
        );
        until("nothing is mapped", || mapped().count() == 0);
    });
}

#[test]
fn a_worker_unmaps_what_it_has_made_and_returned() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let made = pool.submit(delayed!(make(1000, 1))).join().unwrap().unwrap();
        assert_eq!(pool.submit(delayed!(writable_now())).join().unwrap(), 0);
        assert_eq!((made[0], writable_mappings()), (1, 1));
        let made = pool.submit(delayed!(step(made, 1))).join().unwrap();
        drop(made);
        until("it has forgotten what it was given", || {
            pool.submit(delayed!(writable_now())).join().unwrap() == 0
        });
    });
}

#[test]
fn a_slice_that_was_moved_to_a_worker_that_died_is_moved_to_the_next() {
    alone(|| {
        let folder = Folder::new();
        let pool = Pool::builder().jobs(1).retries(1).build().unwrap();
        let grid = SharedSliceMut::from_slice(&[1, 2, 3]).unwrap();
        let at = grid.as_ptr();
        let mut grid = pool.submit(delayed!(die_once(grid, &folder.path("died")))).join().unwrap().unwrap();
        assert_eq!((&*grid, grid.as_ptr()), (&[12, 2, 3][..], at));
        grid[0] = 0;
        let grid = pool.submit(delayed!(step(grid, 1))).join().unwrap();
        assert_eq!((&*grid, grid.as_ptr()), (&[1, 3, 4][..], at));
        drop(grid);
        until("nothing is mapped", || mapped().count() == 0);
    });
}

#[test]
fn a_slice_that_was_frozen_by_a_worker_that_died_is_lost() {
    alone(|| {
        let folder = Folder::new();
        let pool = Pool::builder().jobs(1).retries(1).build().unwrap();
        let grid = SharedSliceMut::from_slice(&[1, 2, 3]).unwrap();
        let error = pool.submit(delayed!(freeze_and_die(grid, &folder.path("died")))).join().unwrap_err();
        assert!(error.is_codec() && error.to_string().contains("has frozen it"), "{error}");
        until("nothing is mapped", || mapped().count() == 0);
    });
}

#[test]
fn a_worker_keeps_the_half_that_it_does_not_give_back() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let grid = SharedSliceMut::zeroed(2000).unwrap();
        let mut right = pool.submit(delayed!(last_half(grid))).join().unwrap();
        right.fill(3);
        assert_eq!(pool.submit(delayed!(keep_on())).join().unwrap(), Some(1));
        assert_eq!((right.len(), right[0]), (1000, 3));
    });
}

#[test]
fn what_a_worker_keeps_a_reference_to_is_not_a_result() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let error = pool.submit(delayed!(keep())).join().err().unwrap();
        assert!(error.is_codec() && error.to_string().contains("also exists elsewhere"), "{error}");
        assert_eq!(pool.submit(delayed!(keep_on())).join().unwrap(), Some(1));
    });
}

#[test]
fn a_slice_that_a_worker_has_frozen_is_not_copied() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let images = parallel!(pool = &pool; render(64 << 20, color)? for color in 1..4).unwrap();
        for (color, image) in (1..4).zip(&images) {
            assert!(lies_in_shared_memory(image.as_ptr().addr()));
            assert_eq!((image.len(), image[0], image[(64 << 20) - 1]), (64 << 20, color, color));
        }
        let grid = SharedSliceMut::zeroed(1 << 20).unwrap();
        let grid = pool.submit(delayed!(finish(grid, 5))).join().unwrap();
        assert!(grid.len() == 1 << 20 && grid.iter().all(|cell| *cell == 5));
        let bytes = pool.stats().total().bytes_received();
        assert!(bytes < 1 << 19, "{bytes} bytes were received");
        drop((images, grid));
        until("nothing is mapped", || mapped().count() == 0);
    });
}
