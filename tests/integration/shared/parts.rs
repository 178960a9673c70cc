//! Memory that workers write and the caller reads.

use procession::{
    Manager, Pool, Process, RemoteError, Shared, SharedSlice, SharedSliceMut, channel, delayed, parallel,
    worker,
};
use serde::{Deserialize, Serialize};

use super::slices::lies_in_shared_memory;
use crate::{alone::alone, event::until};

/// Writes where it is lent. Returns whether that is shared memory, and the process.
#[worker]
pub(super) fn count_up(from: u64, target: &mut [u64]) -> (bool, u32) {
    (from..).zip(&mut *target).for_each(|(n, to)| *to = n);
    (lies_in_shared_memory(target.as_ptr().addr()), std::process::id())
}

#[worker]
fn add_all(by: &u64, source: &[u64], target: &mut [u64], more: &mut [u8], name: &str) -> usize {
    for (to, from) in target.iter_mut().zip(source) {
        *to = from + by;
    }
    more.fill(name.len() as u8);
    more.len()
}

#[worker(instances(<u8>, <f64>))]
fn reverse<T: Copy>(part: &mut [T], #[default(1)] times: u32) {
    (0..times).for_each(|_| part.reverse());
}

/// Returns how many mappings this process may write to.
#[worker]
fn writable(_part: &mut [u64]) -> usize {
    writable_mappings()
}

#[worker]
pub(super) fn writable_now() -> usize {
    writable_mappings()
}

pub(super) fn writable_mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux says what is mapped");
    maps.lines().filter(|line| line.contains("procession-shared") && line.contains(" rw-s ")).count()
}

#[worker]
fn step(mut grid: SharedSliceMut<u64>, by: u64) -> SharedSliceMut<u64> {
    grid.iter_mut().for_each(|cell| *cell += by);
    grid
}

#[derive(Debug, Serialize, Deserialize)]
struct World {
    name: String,
    grid: SharedSliceMut<u64>,
}

#[worker]
fn visit(world: World) -> (bool, u64) {
    (lies_in_shared_memory(world.grid.as_ptr().addr()), world.grid.iter().sum())
}

#[worker]
fn look_at(world: &World) -> u64 {
    world.grid.iter().sum()
}

#[worker]
fn hand_on(mut grid: SharedSliceMut<u64>) -> Result<(Vec<u64>, bool), RemoteError> {
    let wrote = parallel!(count_up(10, part) for part in grid.chunks_mut(2))?;
    let pool = Pool::new(1)?;
    let (there, _) = pool.submit(delayed!(count_up(0, &mut grid))).join()?;
    Ok((grid.to_vec(), there && wrote.into_iter().all(|(there, _)| there)))
}

fn expected(len: u64) -> Vec<u64> {
    (0..len).collect()
}

#[test]
fn workers_write_the_parts_of_a_slice_and_the_caller_reads_them() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let mut out = SharedSliceMut::zeroed(100_000).unwrap();
        let parts = (0..).step_by(999).zip(out.chunks_mut(999));
        let wrote = parallel!(pool = &pool; count_up(n, part) for (n, part) in parts).unwrap();
        assert_eq!(wrote.len(), 101);
        assert!(wrote.iter().all(|(there, _)| *there));
        assert_eq!(*out, expected(100_000));

        out.fill(0);
        let parts = (0..).step_by(7).zip(out.chunks_mut(7));
        assert_eq!(pool.map(parts.map(|(n, part)| delayed!(count_up(n, part)))).unwrap().len(), 14_286);
        assert_eq!(*out, expected(100_000));

        out.fill(0);
        let parts = (0..).step_by(30_000).zip(out.chunks_mut(30_000));
        let wrote = pool.imap_unordered(parts.map(|(n, part)| delayed!(count_up(n, part))));
        assert_eq!(wrote.filter(|(_, outcome)| outcome.is_ok()).count(), 4);
        assert_eq!(*out, expected(100_000));
    });
}

#[test]
fn parts_are_lent_to_single_tasks_to_processes_and_to_calls_in_this_process() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let mut out = SharedSliceMut::zeroed(10).unwrap();
        assert!(pool.submit(delayed!(count_up(0, &mut out))).join().unwrap().0);
        assert_eq!(*out, expected(10));
        let (left, right) = out.split_at_mut(4);
        let (a, b) = parallel!(pool = &pool; count_up(4, left), count_up(0, right)).unwrap();
        assert!(a.0 && b.0);
        assert_eq!(*out, [4, 5, 6, 7, 0, 1, 2, 3, 4, 5]);
        assert!(Process::spawn(delayed!(count_up(0, &mut out))).unwrap().join().unwrap().0);
        assert_eq!(*out, expected(10));
        assert_eq!(delayed!(count_up(1, &mut out)).call().unwrap(), (true, std::process::id()));
        assert_eq!((out[0], out[9]), (1, 10));
        let wrote = parallel!(pool = &Pool::in_process(); count_up(0, part) for part in out.chunks_mut(5));
        assert_eq!(wrote.unwrap().len(), 2);
        assert_eq!(*out, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
        count_up(5, &mut out);
        assert_eq!(out[9], 14, "and it is a plain function");
        let mut ordinary = [0; 3];
        count_up(1, &mut ordinary);
        std::thread::scope(|scope| {
            scope.spawn(|| count_up(5, &mut ordinary));
        });
        assert_eq!(ordinary, [5, 6, 7]);
    });
}

#[test]
fn a_part_may_be_lent_beside_all_that_is_shared() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let by = Shared::new(&100_u64).unwrap();
        let source = SharedSlice::from_slice(&expected(50)).unwrap();
        let mut target = SharedSliceMut::zeroed(50).unwrap();
        let mut more = SharedSliceMut::zeroed(10).unwrap();
        let parts = source.chunks(5).zip(target.chunks_mut(5)).zip(more.chunks_mut(1));
        let lens = parallel!(pool = &pool; add_all(&by, from, to, one, "six") for ((from, to), one) in parts);
        assert_eq!(lens.unwrap(), [1; 10]);
        assert!(target.iter().copied().eq(100..150));
        assert_eq!(*more, [3; 10]);
        // A part of no elements is one, too.
        let (none, _) = more.split_at_mut(0);
        assert_eq!(pool.submit(delayed!(add_all(&by, &source, &mut target, none, ""))).join().unwrap(), 0);
    });
}

#[test]
fn generic_functions_and_calls_by_name_take_parts() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let mut bytes = SharedSliceMut::from_slice(&[1_u8, 2, 3]).unwrap();
        let mut numbers = SharedSliceMut::from_slice(&[1.5, 2.5]).unwrap();
        pool.submit(delayed!(reverse(&mut bytes))).join().unwrap();
        pool.submit(delayed!(reverse(&mut numbers, times = 3))).join().unwrap();
        pool.submit(delayed!(reverse(&mut bytes, times = 2))).join().unwrap();
        assert_eq!((&*bytes, &*numbers), (&[3, 2, 1][..], &[2.5, 1.5][..]));
    });
}

#[test]
fn a_slice_is_mapped_once_in_each_worker_and_until_the_caller_drops_it() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let mut out = SharedSliceMut::zeroed(1000).unwrap();
        let mapped = parallel!(pool = &pool; writable(part) for part in out.chunks_mut(10)).unwrap();
        assert!(mapped.into_iter().all(|mappings| mappings == 1));
        drop(out);
        until("the workers have forgotten it", || {
            pool.broadcast(delayed!(writable_now())).unwrap().into_iter().all(|mappings| mappings == 0)
        });
    });
}

#[test]
fn a_frozen_slice_is_read_where_it_was_written_and_cannot_be_written_any_more() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let mut out = SharedSliceMut::zeroed(100).unwrap();
        parallel!(pool = &pool; count_up(n, part) for (n, part) in (0..).step_by(10).zip(out.chunks_mut(10)))
            .unwrap();
        let frozen = out.freeze();
        assert_eq!(*frozen, expected(100));
        let mut sums = SharedSliceMut::zeroed(100).unwrap();
        let added = pool.submit(delayed!(add_all(
            &1,
            &frozen,
            &mut sums,
            &mut SharedSliceMut::zeroed(1).unwrap(),
            ""
        )));
        added.join().unwrap();
        assert!(sums.iter().copied().eq(1..101));
        drop(sums);
        assert_eq!(writable_mappings(), 0, "nor in this process");
        until("the workers have forgotten how to write it", || {
            pool.broadcast(delayed!(writable_now())).unwrap().into_iter().all(|mappings| mappings == 0)
        });
        let (left, right) = SharedSliceMut::from_slice(&[1_u8, 2, 3]).unwrap().split_at(1);
        assert_eq!((&*left.freeze(), &*right.freeze()), (&[1][..], &[2, 3][..]));
        assert_eq!(SharedSliceMut::<u16>::zeroed(0).unwrap().freeze().len(), 0);
    });
}

#[test]
fn a_slice_is_moved_to_a_task_and_back() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let grid = SharedSliceMut::from_slice(&expected(1000)).unwrap();
        let grid = pool.submit(delayed!(step(grid, 1))).join().unwrap();
        assert!(grid.iter().copied().eq(1..1001));
        let (left, right) = grid.split_at(500);
        let (left, right) = parallel!(pool = &pool; step(left, 1), step(right, 2)).unwrap();
        let grid = SharedSliceMut::rejoin([left, right]).unwrap();
        assert_eq!((grid.len(), grid[0], grid[500]), (1000, 2, 503));
        let world = World { name: "flat".to_owned(), grid };
        let (there, sum) = pool.submit(delayed!(visit(world))).join().unwrap();
        assert_eq!((there, sum), (true, (2..502).chain(503..1003).sum()));
        let world = World { name: "flat".to_owned(), grid: SharedSliceMut::from_slice(&[1, 2]).unwrap() };
        assert_eq!(delayed!(visit(world)).call().unwrap(), (true, 3));
    });
}

#[test]
fn a_slice_that_the_caller_keeps_is_not_moved_to_a_task() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let mut world =
            World { name: "round".to_owned(), grid: SharedSliceMut::from_slice(&[1, 2]).unwrap() };
        for error in [
            pool.submit(delayed!(look_at(&world))).join().unwrap_err(),
            delayed!(look_at(&world)).call().unwrap_err(),
            parallel!(pool = &pool; look_at(world) for world in [&world])
                .unwrap_err()
                .as_task_error()
                .unwrap()
                .clone(),
        ] {
            assert!(error.is_codec() && error.to_string().contains("also exists elsewhere"), "{error}");
        }
        let task = delayed!(look_at(&world));
        world.grid[0] = 5;
        drop(world);
        assert_eq!(pool.submit(task).join().unwrap(), 7, "now the task alone has it");
    });
}

#[test]
fn what_several_processes_would_write_is_refused() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let mut out = SharedSliceMut::<u64>::zeroed(10).unwrap();
        let error = pool.broadcast(delayed!(count_up(0, &mut out))).unwrap_err().to_string();
        assert!(error.contains("one process at a time"), "{error}");
        let grid = SharedSliceMut::zeroed(1).unwrap();
        assert!(pool.broadcast(delayed!(step(grid, 1))).is_err());
        let built = Pool::builder().jobs(1).initializer(delayed!(count_up(0, &mut out))).build();
        assert!(built.unwrap_err().to_string().contains("one process at a time"));
        let error = Shared::new(&out).unwrap_err().to_string();
        assert!(error.contains("one process at a time"), "{error}");
        assert_eq!(*out, [0; 10]);
    });
}

#[test]
fn messages_and_managed_values_have_the_contents_of_a_slice_that_can_be_changed() {
    alone(|| {
        let grid = SharedSliceMut::from_slice(&[1_u64, 2]).unwrap();
        let (sender, receiver) = channel(1).unwrap();
        sender.send(grid).unwrap();
        let mut grid: SharedSliceMut<u64> = receiver.recv().unwrap();
        grid[0] = 7;
        let manager = Manager::start().unwrap();
        let grids = manager.list().unwrap();
        grids.push(grid).unwrap();
        let grid: SharedSliceMut<u64> = grids.get(0).unwrap().unwrap();
        assert_eq!(*grid, [7, 2]);
    });
}

#[test]
fn a_worker_lends_to_its_own_tasks_and_to_a_pool_of_its_own() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let grid = SharedSliceMut::zeroed(5).unwrap();
        let (written, there) = pool.submit(delayed!(hand_on(grid))).join().unwrap().unwrap();
        assert_eq!((written, there), (expected(5), true));
    });
}
