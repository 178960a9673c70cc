//! Code of users that the library calls in the host and that forks: the copy returns into the library, touches nothing of its parent's,
//! and its calls end with an error. The parent's results are right.
#![expect(unsafe_code, reason = "forks, as code of others does, and a waker whose clones fork")]
#![expect(clippy::print_stderr, reason = "a copy says what it found")]

mod callbacks;
mod copy;

use std::{
    future::{Future, poll_fn},
    path::Path,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::{Context, Waker},
    time::Duration,
};

use futures_core::Stream;
use procession::{Pool, Process, delayed, parallel, worker};
use serde::{Deserialize, Deserializer, Serialize};
use tracing_subscriber::layer::SubscriberExt as _;

use self::{
    callbacks::{Listening, Waking, forking_waker, set_logger},
    copy::{
        ARMED, COPY, Code, FOUND, TASKS, arm, call_until_forked, check, end_copy, expect_copy_ended,
        expect_copy_ends, is_copy, user_code,
    },
};
use crate::{
    alone::alone,
    event::{block_on, take_time, until, until_exists},
    leak::workers,
    scratch::Folder,
};

type Outcome = Result<Vec<u64>, String>;

/// A call with its name.
type NamedCall = (&'static str, fn(&Pool) -> Outcome);

/// A call that makes a file.
type FileCall = fn(&Pool, &Path) -> Outcome;

/// A number whose decoding runs code of users.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Value(u64);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        user_code(Code::Deserialize);
        u64::deserialize(deserializer).map(Self)
    }
}

#[worker]
fn echo(n: u64) -> u64 {
    n
}

/// Sends records to the host's logger and subscriber, and returns.
#[worker]
fn speak(n: u64) -> Value {
    log::info!("{n}");
    tracing::info_span!("span").in_scope(|| tracing::info!("{n}"));
    Value(n)
}

fn numbers() -> impl Iterator<Item = u64> {
    (0..TASKS).inspect(|_| user_code(Code::Input))
}

fn sorted<E: ToString>(values: Result<Vec<Value>, E>) -> Outcome {
    let mut values: Vec<u64> =
        values.map_err(|error| error.to_string())?.into_iter().map(|value| value.0).collect();
    values.sort_unstable();
    Ok(values)
}

fn all_of<T>(stream: impl Stream<Item = T>) -> Vec<T> {
    let mut stream = pin!(stream);
    let mut items = Vec::new();
    while let Some(item) = block_on(poll_fn(|context| stream.as_mut().poll_next(context))) {
        items.push(item);
    }
    items
}

/// The calls of many tasks.
const CALLS: &[NamedCall] = &[
    ("map", |pool| sorted(pool.map(numbers().map(|n| delayed!(speak(n)))))),
    ("imap", |pool| sorted(pool.imap(numbers().map(|n| delayed!(speak(n)))).collect::<Result<_, _>>())),
    ("imap_unordered", |pool| {
        let tasks = numbers().map(|n| delayed!(speak(n)));
        sorted(pool.imap_unordered(tasks).map(|(_, result)| result).collect::<Result<_, _>>())
    }),
    ("parallel!", |pool| sorted(parallel!(pool = pool; speak(n) for n in numbers()))),
    ("parallel! that collects", |pool| {
        let outcomes = parallel!(pool = pool, on_error = collect; speak(n) for n in numbers()).unwrap();
        assert_eq!(outcomes.len() as u64, TASKS, "each task has its item, in a copy, too");
        sorted(outcomes.into_iter().collect::<Result<_, _>>())
    }),
    ("parallel! that reports", |pool| {
        sorted(parallel!(pool = pool, verbose = 1, order = unordered; speak(n) for n in numbers()))
    }),
    ("submit and join", |pool| {
        let handles: Vec<_> = numbers().map(|n| pool.submit(delayed!(speak(n)))).collect();
        sorted(handles.into_iter().map(|handle| handle.join()).collect::<Result<_, _>>())
    }),
    ("submit and join with a timeout", |pool| {
        let handles: Vec<_> = numbers().map(|n| pool.submit(delayed!(speak(n)))).collect();
        let result = |mut handle: procession::Handle<Value>| loop {
            if let Some(result) = handle.join_timeout(Duration::from_millis(1)) {
                return result;
            }
        };
        sorted(handles.into_iter().map(result).collect::<Result<_, _>>())
    }),
    ("stream", |pool| {
        sorted(
            all_of(pool.stream(numbers().map(|n| delayed!(speak(n))))).into_iter().collect::<Result<_, _>>(),
        )
    }),
    ("stream_unordered", |pool| {
        let items = all_of(pool.stream_unordered(numbers().map(|n| delayed!(speak(n)))));
        sorted(items.into_iter().map(|(_, result)| result).collect::<Result<_, _>>())
    }),
];

/// A pool with two workers that run, and a logger.
fn pool_and_logger() -> Pool {
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.broadcast(delayed!(echo(1))).unwrap(), [1, 1]);
    set_logger();
    pool
}

fn check_calls(code: Code, before: &[u32]) {
    let pool = pool_and_logger();
    let subscriber = tracing_subscriber::registry().with(Listening);
    // For the pool's own thread, too.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    for (name, call) in CALLS {
        for before in before {
            // What is joined one by one has its result when it is decoded, and what a copy submits itself is its own.
            let is_single = name.starts_with("submit");
            let may_succeed = is_single && matches!(code, Code::Deserialize | Code::Input);
            check(&pool, name, (code, *before), may_succeed, call);
        }
    }
}

#[test]
fn a_logger_may_fork() {
    alone(|| check_calls(Code::Logger, &[0, 7, 50]));
}

#[test]
fn a_subscriber_may_fork() {
    alone(|| check_calls(Code::Subscriber, &[0, 1, 2, 3, 20]));
}

#[test]
fn an_input_may_fork() {
    alone(|| check_calls(Code::Input, &[0, 1, 70, TASKS as u32 - 1]));
}

#[test]
fn a_deserialize_may_fork() {
    alone(|| check_calls(Code::Deserialize, &[0, 3]));
}

#[test]
fn results_are_right_however_often_a_logger_forks() {
    alone(|| {
        let pool = pool_and_logger();
        for round in 0..20 {
            arm(Code::Logger, round, true);
            let right = |values: procession::Result<Vec<Value>>| {
                assert!(values.unwrap().into_iter().map(|value| value.0).eq(0..3000), "round {round}");
            };
            let result = call_until_forked(|| pool.map((0..3000).map(|n| delayed!(speak(n)))), right);
            if is_copy() {
                end_copy("map", Ok(sorted(result)), None, false);
            }
            right(result);
            expect_copy_ends(&format!("round {round}"), FOUND);
        }
    });
}

/// Ends once the file is there.
#[worker]
fn wait_for(file: &Path) -> u64 {
    until_exists(file);
    0
}

/// Makes the file, and works on for a while.
#[worker]
fn let_go(file: &Path, n: u64) -> Value {
    std::fs::write(file, "").unwrap();
    take_time(Duration::from_millis(200));
    Value(n)
}

#[test]
fn a_waker_may_fork() {
    alone(|| {
        let pool = pool_and_logger();
        let calls: [(&str, FileCall); 4] = [
            ("map", |pool, file| sorted(pool.map((0..2).map(|n| delayed!(let_go(file, n)))))),
            ("imap", |pool, file| {
                sorted(pool.imap((0..2).map(|n| delayed!(let_go(file, n)))).collect::<Result<_, _>>())
            }),
            ("parallel! of a tuple", |pool, file| {
                let values = parallel!(pool = pool; let_go(file, 0), let_go(file, 1));
                sorted(values.map(|(a, b)| vec![a, b]))
            }),
            ("submit and join", |pool, file| {
                let handles: Vec<_> = (0..2).map(|n| pool.submit(delayed!(let_go(file, n)))).collect();
                sorted(handles.into_iter().map(|handle| handle.join()).collect::<Result<_, _>>())
            }),
        ];
        for (name, call) in calls {
            let folder = Folder::new();
            let file = folder.path("go");
            let mut awaited = pool.submit(delayed!(wait_for(&file)));
            arm(Code::Waker, 0, false);
            let waker = Waker::from(Arc::new(Waking));
            assert!(Pin::new(&mut awaited).poll(&mut Context::from_waker(&waker)).is_pending());
            let outcome = call(&pool, &file);
            if is_copy() {
                // What was awaited has ended, and so its result is in the copy, too.
                let is_ended = awaited.is_finished();
                std::mem::forget(folder);
                end_copy(name, Ok(outcome), is_ended.then_some(&pool), false);
            }
            assert_eq!(outcome.unwrap(), [0, 1], "{name}");
            until("the waker has forked", || COPY.load(Ordering::Relaxed) != 0);
            expect_copy_ended(name);
            assert_eq!(awaited.join().unwrap(), 0, "{name}");
        }
    });
}

#[test]
fn the_clone_and_the_drop_of_a_waker_may_fork() {
    alone(|| {
        let pool = pool_and_logger();
        let folder = Folder::new();
        let file = folder.path("go");
        let other = Waker::from(Arc::new(Waking));
        for code in [Code::WakerClone, Code::WakerDrop] {
            let mut handle = pool.submit(delayed!(wait_for(&file)));
            let mut stream = pool.stream((0..1).map(|_| delayed!(wait_for(&file))));
            let waker = forking_waker();
            for is_stream in [false, true] {
                let mut poll = |waker: &Waker| {
                    let context = &mut Context::from_waker(waker);
                    if is_stream {
                        let polled = Pin::new(&mut stream).poll_next(context);
                        polled.map(|item| item.expect("an item").map_err(|error| error.to_string()))
                    } else {
                        Pin::new(&mut handle)
                            .poll(context)
                            .map(|result| result.map_err(|error| error.to_string()))
                    }
                };
                if code == Code::WakerDrop {
                    assert!(poll(&waker).is_pending());
                }
                arm(code, 0, true);
                // Another waker takes the place of the first, which is dropped.
                let polled = poll(if code == Code::WakerDrop { &other } else { &waker });
                let what = format!("{code:?} forks, stream: {is_stream}");
                if is_copy() {
                    let outcome = match polled {
                        std::task::Poll::Ready(result) => result.map(|value| vec![value]),
                        std::task::Poll::Pending => Err("the copy waits for its parent".to_owned()),
                    };
                    end_copy(&what, Ok(outcome), Some(&pool), false);
                }
                assert!(polled.is_pending(), "{what}");
                expect_copy_ends(&what, FOUND);
            }
            drop((handle, stream));
        }
    });
}

#[test]
fn the_members_of_a_tuple_and_a_broadcast_are_errors_in_a_copy() {
    alone(|| {
        let pool = pool_and_logger();
        let calls: [NamedCall; 2] = [
            ("a tuple", |pool| {
                let values = parallel!(pool = pool; speak(0), speak(1), speak(2));
                sorted(values.map(|(a, b, c)| vec![a, b, c]))
            }),
            ("broadcast", |pool| sorted(pool.broadcast(delayed!(speak(1))))),
        ];
        for ((name, call), right) in calls.into_iter().zip([vec![0, 1, 2], vec![1, 1]]) {
            for code in [Code::Logger, Code::Deserialize] {
                arm(code, 0, true);
                let right = |outcome: Outcome| assert_eq!(outcome.unwrap(), right, "{name}");
                let outcome = call_until_forked(|| call(&pool), right);
                if is_copy() {
                    // All results are there before the first is decoded.
                    end_copy(name, Ok(outcome), Some(&pool), code == Code::Deserialize);
                }
                right(outcome);
                expect_copy_ends(name, FOUND);
            }
        }
    });
}

#[test]
fn a_copy_of_the_pools_own_thread_ends_when_it_returns() {
    alone(|| {
        let pool = pool_and_logger();
        let pids = workers();
        for before in 0..3 {
            arm(Code::Logger, before, false);
            let handles: Vec<_> = (0..TASKS).map(|n| pool.submit(delayed!(speak(n)))).collect();
            // No thread waits for results, so the pool's own thread delivers the first records, or this thread does while it submits.
            until("a logger has forked", || COPY.load(Ordering::Relaxed) != 0);
            if is_copy() {
                let first = sorted(handles.into_iter().map(|handle| handle.join()).collect::<Result<_, _>>());
                end_copy("submit", Ok(first), None, false);
            }
            let results: Vec<_> = handles.into_iter().map(|handle| handle.join().unwrap().0).collect();
            assert!(results.into_iter().eq(0..TASKS));
            expect_copy_ended("submit");

            arm(Code::Waker, 0, false);
            let mut handle = pool.submit(delayed!(speak(9)));
            let waker = Waker::from(Arc::new(Waking));
            let polled = Pin::new(&mut handle).poll(&mut Context::from_waker(&waker));
            if polled.is_pending() {
                until("a waker has forked", || COPY.load(Ordering::Relaxed) != 0);
                assert!(!is_copy(), "the pool's own thread wakes");
                expect_copy_ends("await", 0);
                assert_eq!(handle.join().unwrap().0, 9);
            }
            assert_eq!(block_on(pool.submit(delayed!(speak(10)))).unwrap().0, 10);
        }
        assert_eq!(workers(), pids);
    });
}

#[test]
fn a_process_is_its_parents_though_a_logger_or_a_waker_forks() {
    alone(|| {
        set_logger();
        for code in [Code::Logger, Code::Waker, Code::Deserialize] {
            arm(code, 0, false);
            let mut process = Process::spawn(delayed!(speak(5))).unwrap();
            if code == Code::Waker {
                let waker = Waker::from(Arc::new(Waking));
                assert!(Pin::new(&mut process).poll(&mut Context::from_waker(&waker)).is_pending());
                until("a waker has forked", || COPY.load(Ordering::Relaxed) != 0);
            }
            let result = process.join();
            if is_copy() {
                // Its result was there before it was decoded. Dropping the process is harmless.
                assert_eq!(code, Code::Deserialize);
                drop(process);
                end_copy(
                    "join",
                    Ok(result.map(|value| vec![value.0]).map_err(|error| error.to_string())),
                    None,
                    true,
                );
            }
            assert_eq!(result.unwrap().0, 5, "{code:?}");
            assert!(process.exit_status().is_some_and(|exit| exit.code() == Some(0)), "{code:?}");
            expect_copy_ends(&format!("{code:?}"), if code == Code::Deserialize { FOUND } else { 0 });
        }
        // The watching thread continues.
        assert_eq!(Process::spawn(delayed!(speak(6))).unwrap().join().unwrap().0, 6);
    });
}

#[test]
fn the_drop_of_a_waker_may_fork_as_a_process_is_joined() {
    alone(|| {
        let folder = Folder::new();
        let file = folder.path("go");
        let mut process = Process::spawn(delayed!(wait_for(&file))).unwrap();
        let waker = forking_waker();
        assert!(Pin::new(&mut process).poll(&mut Context::from_waker(&waker)).is_pending());
        std::mem::forget(waker);
        arm(Code::WakerDrop, 0, true);
        // This thread waits in the place of the waker, which is dropped.
        let go_on = std::thread::spawn(move || {
            until("the drop has forked", || COPY.load(Ordering::Relaxed) > 0);
            std::fs::write(file, "").unwrap();
        });
        let result = process.join();
        if is_copy() {
            drop(process);
            end_copy(
                "join",
                Ok(result.map(|value| vec![value]).map_err(|error| error.to_string())),
                None,
                false,
            );
        }
        go_on.join().unwrap();
        assert!(result.is_ok());
        drop(process);
        expect_copy_ends("join", FOUND);
    });
}

#[test]
fn a_pool_that_is_joined_or_dropped_ends_though_a_logger_forks() {
    alone(|| {
        set_logger();
        for is_joined in [true, false] {
            for before in [0, 20] {
                let end = || {
                    let pool = Pool::new(2).unwrap();
                    let handles: Vec<_> = (0..TASKS).map(|n| pool.submit(delayed!(speak(n)))).collect();
                    arm(Code::Logger, before, true);
                    let outcome = if is_joined {
                        pool.join()
                    } else {
                        drop(pool);
                        Ok(())
                    };
                    ARMED.store(0, Ordering::Relaxed);
                    (outcome, handles)
                };
                let right = |(outcome, handles): (procession::Result<()>, Vec<procession::Handle<Value>>)| {
                    outcome.unwrap();
                    if is_joined {
                        assert!(handles.into_iter().map(|handle| handle.join().unwrap().0).eq(0..TASKS));
                    }
                    assert!(workers().is_empty());
                };
                // A dropped pool reads only what delays its end.
                let (outcome, handles) = if is_joined { call_until_forked(end, right) } else { end() };
                if is_copy() {
                    drop(handles);
                    let outcome = outcome.map(|()| Vec::new()).map_err(|error| error.to_string());
                    end_copy("the end of a pool", Ok(outcome), None, !is_joined);
                }
                if is_joined || COPY.load(Ordering::Relaxed) != 0 {
                    expect_copy_ends("the end of a pool", FOUND);
                }
                right((outcome, handles));
            }
        }
    });
}
