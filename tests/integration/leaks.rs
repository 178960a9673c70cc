//! A task that was submitted or has ended costs no descriptor, no thread, no child and no segment.

use std::path::Path;

use procession::{Handle, Pool, delayed, worker};

use crate::{
    alone::alone,
    end::End,
    event::until_exists,
    leak::{Snapshot, children, descriptors, settle, threads},
    scratch::Folder,
};

#[worker]
fn echo(n: u64) -> u64 {
    n
}

#[worker]
fn begin_and_wait(begun: &Path, go: &Path) {
    std::fs::write(begun, "").expect("a file of the test's");
    until_exists(go);
}

#[worker]
fn strike(end: End) {
    end.strike()
}

#[worker]
fn open_descriptors() -> Vec<String> {
    descriptors().into_iter().filter(|(fd, _)| *fd > 2).map(|(fd, target)| format!("{fd} {target}")).collect()
}

#[test]
fn twenty_thousand_outstanding_tasks_cost_no_descriptors_and_no_threads() {
    alone(|| {
        let folder = Folder::new();
        let (begun, go) = (folder.path("begun"), folder.path("go"));
        let pool = Pool::new(1).unwrap();
        let first = pool.submit(delayed!(begin_and_wait(&begun, &go)));
        until_exists(&begun);
        settle();
        let before = Snapshot::take();
        let handles: Vec<Handle<u64>> = (0..20_000).map(|n| pool.submit(delayed!(echo(n)))).collect();
        before.assert_same_now();
        std::fs::write(&go, "").unwrap();
        first.join().unwrap();
        assert!(handles.into_iter().map(|handle| handle.join().unwrap()).eq(0..20_000));
        before.assert_same_now();
    });
}

#[test]
fn fifty_pools_made_and_dropped_leave_nothing() {
    alone(|| {
        let before = Snapshot::take();
        for n in 0..50 {
            let pool = Pool::new(1 + n % 3).unwrap();
            match n % 4 {
                0 => drop(pool),
                1 => assert_eq!(pool.map((0..20).map(|n| delayed!(echo(n)))).unwrap().len(), 20),
                // Dropped as it starts.
                2 => drop(pool.submit(delayed!(echo(1)))),
                _ => drop(pool.imap((0..).map(|n| delayed!(echo(n)))).take(3).count()),
            }
        }
        before.assert_same_now();
    });
}

#[test]
fn a_pool_dropped_while_it_is_busy_leaves_nothing() {
    alone(|| {
        let folder = Folder::new();
        let never = folder.path("never");
        for n in 0..10 {
            let begun = folder.path(&format!("begun {n}"));
            let before = Snapshot::take();
            let pool = Pool::new(2).unwrap();
            let _busy = pool.submit(delayed!(begin_and_wait(&begun, &never)));
            let _queued: Vec<_> = (0..100).map(|n| pool.submit(delayed!(echo(n)))).collect();
            until_exists(&begun);
            drop((pool, _busy, _queued));
            before.assert_same_now();
        }
    });
}

#[test]
fn a_handle_that_outlives_its_pool_keeps_nothing_open() {
    alone(|| {
        let folder = Folder::new();
        let (begun, never) = (folder.path("begun"), folder.path("never"));
        let before = Snapshot::take();
        let pool = Pool::new(1).unwrap();
        let handles = [pool.submit(delayed!(echo(1))), pool.submit(delayed!(echo(2)))];
        let running = pool.submit(delayed!(begin_and_wait(&begun, &never)));
        until_exists(&begun);
        drop(pool);
        before.assert_same_now();
        assert!(handles.into_iter().map(|handle| handle.join().unwrap()).eq([1, 2]));
        assert!(running.join().unwrap_err().is_cancelled());
    });
}

#[test]
fn a_lazy_iterator_that_outlives_its_pool_keeps_nothing_open() {
    alone(|| {
        let before = Snapshot::take();
        let pool = Pool::new(1).unwrap();
        let mut results = pool.imap((0..).map(|n| delayed!(echo(n))));
        assert_eq!(results.next().unwrap().unwrap(), 0);
        drop(pool);
        before.assert_same_now();
        assert!(results.find_map(Result::err).unwrap().is_cancelled());
        before.assert_same_now();
    });
}

#[test]
fn crashes_leave_nothing_in_a_pool_that_lives_on() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        assert_eq!(pool.submit(delayed!(echo(1))).join().unwrap(), 1);
        let count = || {
            settle();
            (descriptors().len(), threads().len())
        };
        let before = count();
        for round in 0..20 {
            let end = [End::Kill, End::Exit, End::Abort][round % 3];
            assert!(pool.submit(delayed!(strike(end))).join().unwrap_err().is_crash());
            assert_eq!(pool.submit(delayed!(echo(1))).join().unwrap(), 1);
            assert_eq!(count(), before, "round {round}");
        }
    });
}

#[test]
fn a_worker_holds_its_own_connection_and_nothing_of_the_parents() {
    alone(|| {
        let folder = Folder::new();
        let _open = std::fs::File::create(folder.path("a file of the parent's")).unwrap();
        let others = Pool::new(2).unwrap();
        let _ = others.broadcast(delayed!(echo(1))).unwrap();
        let pool = Pool::new(3).unwrap();
        for open in pool.broadcast(delayed!(open_descriptors())).unwrap() {
            assert!(open.len() <= 2, "{open:?}");
            assert!(open.iter().filter(|fd| fd.contains("socket:")).count() == 1, "{open:?}");
            assert!(!open.iter().any(|fd| fd.contains("a file of the parent's")), "{open:?}");
        }
    });
}

#[test]
fn many_calls_on_one_pool_leave_it_as_it_was() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        // A worker that is slow to end a task of a call that was dropped is killed and replaced: it is the number that stays.
        let count = || {
            let _ = pool.broadcast(delayed!(echo(1))).unwrap();
            settle();
            (children().len(), descriptors().len(), threads().len())
        };
        let before = count();
        for _ in 0..100 {
            assert_eq!(pool.map((0..30).map(|n| delayed!(echo(n)))).unwrap().len(), 30);
            assert_eq!(pool.imap((0..).map(|n| delayed!(echo(n)))).take(5).count(), 5);
        }
        assert_eq!(count(), before);
    });
}
