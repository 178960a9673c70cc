//! Broadcasts: a task on every worker.

use std::{path::Path, time::Duration};

use procession::{Pool, delayed, worker};

use super::{begin_and_wait, echo, place, strike};
use crate::{
    alone::alone,
    end::End,
    event::{until, until_exists},
    leak::workers,
    scratch::{Folder, is_first},
};

#[test]
fn a_broadcast_that_needs_a_worker_that_cannot_start_fails_while_another_serves() {
    alone(|| {
        #[worker]
        fn strike_but_once(file: &Path) {
            if !is_first(file) {
                End::Exit.strike()
            }
        }
        let there = Folder::new();
        let file = there.path("attempts");
        let builder = Pool::builder().jobs(2).initializer(delayed!(strike_but_once(&file)));
        let pool = builder.start_timeout(Duration::from_secs(3)).build().unwrap();
        assert_eq!(pool.submit(delayed!(echo(3))).join().unwrap(), 3);
        let error = pool.broadcast(delayed!(echo(4))).unwrap_err().to_string();
        assert!(error.contains("no worker could be started: the initializer `"), "{error}");
        assert_eq!(pool.submit(delayed!(echo(5))).join().unwrap(), 5);
    });
}

#[test]
fn broadcast_reaches_workers_that_are_busy_or_dead() {
    alone(|| {
        let there = Folder::new();
        let (begun, go) = (there.path("begun"), there.path("go"));
        let pool = Pool::new(3).unwrap();
        let _ = pool.broadcast(delayed!(place())).unwrap();
        let busy = pool.submit(delayed!(begin_and_wait(&begun, &go)));
        assert!(pool.submit(delayed!(strike(End::Kill))).join().unwrap_err().is_crash());
        until_exists(&begun);
        std::thread::scope(|scope| {
            let broadcast = scope.spawn(|| pool.broadcast(delayed!(place())));
            assert_eq!(pool.submit(delayed!(echo(1))).join().unwrap(), 1);
            assert!(!broadcast.is_finished());
            std::fs::write(&go, "").unwrap();
            let places = broadcast.join().unwrap().unwrap();
            assert!(places.iter().map(|(index, _)| *index).eq((0..3).map(Some)));
        });
        busy.join().unwrap();
    });
}

#[test]
fn broadcast_fails_with_the_task_that_fails() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let error = pool.broadcast(delayed!(strike(End::Panic))).unwrap_err();
        assert!(error.as_task_error().unwrap().is_panic(), "{error}");
        let error = pool.broadcast(delayed!(strike(End::Segfault))).unwrap_err();
        assert!(error.as_task_error().unwrap().is_crash(), "{error}");
        assert_eq!(pool.broadcast(delayed!(echo(2))).unwrap(), [2, 2]);
    });
}

/// Refuses to cross.
struct Stubborn;

impl serde::Serialize for Stubborn {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("no"))
    }
}

impl<'de> serde::Deserialize<'de> for Stubborn {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Self)
    }
}

#[test]
fn a_broadcast_whose_argument_does_not_encode_is_an_error_and_starts_nothing() {
    alone(|| {
        #[worker]
        fn take(value: Stubborn) -> usize {
            size_of_val(&value)
        }
        let pool = Pool::new(2).unwrap();
        let error = pool.broadcast(delayed!(take(Stubborn))).unwrap_err().into_task_error().unwrap();
        assert!(error.is_codec() && error.to_string().contains("argument `value`"), "{error}");
        assert_eq!(error.attempts(), 0);
        // A template is known as such a moment after its start.
        until("there is no worker", || workers().is_empty());
    });
}
