//! Processes of processes: they may have their own, to a limit, and end with their parents.

use std::path::Path;

use procession::{Pool, Process, delayed, parallel, worker};

use super::who;
use crate::{
    alone::alone,
    event::{is_there, until},
    scratch::{Folder, append, numbers},
};

#[worker]
fn nest() -> (u32, Vec<u32>, u32) {
    let pids = parallel!(who() for _ in 0..3).expect("it runs here");
    let mut inner = Process::spawn(delayed!(who())).expect("a process of a process");
    (std::process::id(), pids.into_iter().map(|(pid, ..)| pid).collect(), inner.join().expect("who it is").0)
}

#[test]
fn a_process_runs_a_parallel_itself_and_may_have_processes() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        for (outer, here, inner) in [
            Process::spawn(delayed!(nest())).unwrap().join().unwrap(),
            pool.submit(delayed!(nest())).join().unwrap(),
        ] {
            assert!(here == [outer; 3] && inner != outer && outer != std::process::id());
        }
    });
}

/// Returns how deep it goes, and why no deeper.
#[worker]
fn dive() -> (u32, String) {
    match Process::spawn(delayed!(dive())) {
        Ok(mut process) => match process.join() {
            Ok((deep, why)) => (deep + 1, why),
            Err(error) => (0, error.to_string()),
        },
        Err(error) => (0, error.to_string()),
    }
}

#[test]
fn processes_of_processes_have_a_depth_limit() {
    alone(|| {
        let (deep, why) = Process::spawn(delayed!(dive())).unwrap().join().unwrap();
        assert!((3..20).contains(&deep) && why.contains("workers deep"), "{deep}: {why}");
    });
}

/// One of a tree: starts its two children, waits for them, and notes its end.
#[worker]
fn grow(name: u32, levels: u32, ends: &Path) -> u32 {
    let mut children: Vec<_> = (0..if levels > 1 { 2 } else { 0 })
        .map(|n| Process::spawn(delayed!(grow(name * 2 + n, levels - 1, ends))).expect("room for a child"))
        .collect();
    let below: u32 = children.iter_mut().map(|child| child.join().expect("it ends well")).sum();
    append(ends, name);
    below + 1
}

#[test]
fn a_tree_of_seven_processes_ends_in_the_stated_order() {
    alone(|| {
        let folder = Folder::new();
        let ends = folder.path("ends");
        let mut root = Process::spawn(delayed!(grow(1, 3, &ends))).unwrap();
        assert_eq!(root.join().unwrap(), 7);
        assert_eq!(numbers(&ends), [1, 2, 3, 4, 5, 6, 7]);
        let order: Vec<u32> =
            std::fs::read_to_string(&ends).unwrap().lines().map(|line| line.parse().unwrap()).collect();
        let at = |name: u32| order.iter().position(|one| *one == name).unwrap();
        for name in 2..=7 {
            assert!(at(name) < at(name / 2), "{name} was joined by {}: {order:?}", name / 2);
        }
    });
}

/// Leaves two children behind, each of which has a child.
#[worker]
fn leave_behind(levels: u32, pids: &Path) {
    let _children: Vec<_> = (0..if levels > 1 { 2 } else { 0 })
        .map(|_| Process::spawn(delayed!(leave_behind(levels - 1, pids))).expect("room for a child"))
        .collect();
    append(pids, std::process::id());
    loop {
        std::thread::park();
    }
}

#[test]
fn a_tree_that_is_cut_at_its_root_falls() {
    alone(|| {
        let folder = Folder::new();
        let pids = folder.path("pids");
        let root = Process::spawn(delayed!(leave_behind(3, &pids))).unwrap();
        until("all are there", || numbers(&pids).len() == 7);
        root.kill().unwrap();
        for pid in numbers(&pids) {
            until("it falls", || !is_there(u32::try_from(pid).unwrap()));
        }
        drop(root);
    });
}
