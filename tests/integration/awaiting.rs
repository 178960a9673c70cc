//! Results are awaited on any executor: no thread is blocked, a dropped future loses nothing, and no other waker is woken.

use std::{
    future::{Future, poll_fn},
    path::Path,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures_core::Stream;
use procession::{Handle, Pool, RemoteError, Task, TaskError, delayed, worker};

use crate::{
    alone::{alone, alone_with_warm_pool},
    end::End,
    event::{block_on, until, until_exists},
    scratch::{Folder, append, numbers},
};

#[worker]
fn echo(n: u64) -> u64 {
    n
}

/// Ends once the file exists.
#[worker]
fn until_made(file: &Path, n: u64) -> u64 {
    until_exists(file);
    n
}

#[worker]
fn note(file: &Path, n: u64) -> u64 {
    append(file, n);
    n
}

#[worker]
fn fail_at(n: u64, failing: u64) -> Result<u64, RemoteError> {
    if n == failing { Err(RemoteError::msg("the one that fails")) } else { Ok(n) }
}

#[worker]
fn strike(end: End) {
    end.strike()
}

fn make(file: &Path) {
    std::fs::write(file, "").expect("a file of the test's");
}

/// Lets the executor do something else.
async fn pause() {
    let mut polls = 0;
    poll_fn(|context| {
        polls += 1;
        context.waker().wake_by_ref();
        if polls > 3 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

pub(crate) async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}

/// Both, on one thread, in turn.
pub(crate) async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut of_a, mut of_b) = (None, None);
    poll_fn(move |context| {
        if of_a.is_none()
            && let Poll::Ready(output) = a.as_mut().poll(context)
        {
            of_a = Some(output);
        }
        if of_b.is_none()
            && let Poll::Ready(output) = b.as_mut().poll(context)
        {
            of_b = Some(output);
        }
        if of_a.is_some() && of_b.is_some() {
            Poll::Ready(of_a.take().zip(of_b.take()))
        } else {
            Poll::Pending
        }
    })
    .await
    .expect("both are there")
}

/// Counts how often it is woken.
#[derive(Default)]
pub(crate) struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn new() -> (Arc<Self>, Waker) {
        let count = Arc::<Self>::default();
        (count.clone(), count.into())
    }

    fn woken(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Begins to count anew. Returns how often it was woken.
    pub(crate) fn take(&self) -> usize {
        self.0.swap(0, Ordering::SeqCst)
    }
}

fn poll_once<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// Checks on one executor: many results, a failure, and that the executor is not blocked meanwhile.
async fn ask(pool: &Pool, gate: &Path) {
    assert_eq!(pool.submit(delayed!(echo(3))).await.unwrap(), 3);
    // The task ends only if this thread goes on.
    let (waited, ()) = both(pool.submit(delayed!(until_made(gate, 5))), async {
        for _ in 0..10 {
            pause().await;
        }
        make(gate);
    })
    .await;
    assert_eq!(waited.unwrap(), 5);
    let handles: Vec<Handle<u64>> = (0..1000).map(|n| pool.submit(delayed!(echo(n)))).collect();
    for (n, handle) in (0..).zip(handles) {
        assert_eq!(handle.await.unwrap(), n);
    }
    assert!(pool.submit(delayed!(strike(End::Panic))).await.unwrap_err().is_panic());
    assert!(pool.submit(delayed!(strike(End::Abort))).await.unwrap_err().is_crash());
    let mut stream = pool.stream((0..3000).map(|n| delayed!(echo(n))));
    let mut expected = 0..3000;
    while let Some(result) = next(&mut stream).await {
        assert_eq!(Some(result.unwrap()), expected.next());
    }
    assert_eq!(expected.next(), None);
}

#[test]
fn results_are_awaited_on_tokios_current_thread_runtime() {
    alone(|| {
        let (folder, pool) = (Folder::new(), Pool::new(2).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(ask(&pool, &folder.path("gate")));
    });
}

#[test]
fn results_are_awaited_on_tokios_multi_thread_runtime() {
    alone(|| {
        let folder = Folder::new();
        let pool = Arc::new(Pool::new(2).unwrap());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (asking, gate) = (pool.clone(), folder.path("gate"));
        runtime.block_on(async { tokio::spawn(async move { ask(&asking, &gate).await }).await.unwrap() });
    });
}

#[test]
fn results_are_awaited_on_smol() {
    // Its reactor stays with the process.
    alone_with_warm_pool(|| {
        let (folder, pool) = (Folder::new(), Pool::new(2).unwrap());
        smol::block_on(ask(&pool, &folder.path("gate")));
    });
}

#[test]
fn results_are_awaited_on_pollster() {
    alone(|| {
        let (folder, pool) = (Folder::new(), Pool::new(2).unwrap());
        pollster::block_on(ask(&pool, &folder.path("gate")));
    });
}

#[test]
fn a_pool_without_processes_is_awaited_too() {
    alone(|| {
        let pool = Pool::in_process();
        block_on(async {
            assert_eq!(pool.submit(delayed!(echo(3))).await.unwrap(), 3);
            let mut stream = pool.stream_unordered((0..100).map(|n| delayed!(echo(n))));
            for n in 0..100 {
                let (index, result) = next(&mut stream).await.unwrap();
                assert_eq!((index as u64, result.unwrap()), (n, n));
            }
            assert!(next(&mut stream).await.is_none());
        });
    });
}

#[test]
fn thousands_of_futures_are_outstanding_at_once() {
    alone(|| {
        let pool = Arc::new(Pool::new(2).unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for n in 0..5000 {
                let pool = pool.clone();
                tasks.spawn(async move { pool.submit(delayed!(echo(n))).await.unwrap() });
            }
            let mut sum = 0;
            while let Some(n) = tasks.join_next().await {
                sum += n.unwrap();
            }
            assert_eq!(sum, 5000 * 4999 / 2);
        });
    });
}

#[test]
fn a_future_that_is_dropped_in_the_middle_cancels_nothing_and_keeps_nothing() {
    alone(|| {
        let folder = Folder::new();
        let (gate, ran) = (folder.path("gate"), folder.path("ran"));
        let pool = Pool::new(1).unwrap();
        let first = pool.submit(delayed!(until_made(&gate, 0)));
        for n in 0..100 {
            let (count, waker) = Count::new();
            let mut handle = pool.submit(delayed!(note(&ran, n)));
            assert!(poll_once(&mut handle, &waker).is_pending());
            assert_eq!(Arc::strong_count(&count), 3);
            drop(handle);
            assert_eq!(Arc::strong_count(&count), 2, "the waker goes with the handle, not with the task");
            drop(waker);
            assert_eq!(count.woken(), 0);
        }
        make(&gate);
        assert_eq!(first.join().unwrap(), 0);
        pool.join().unwrap();
        assert_eq!(numbers(&ran), (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn only_the_last_waker_is_woken_and_only_once() {
    alone(|| {
        let folder = Folder::new();
        let gate = folder.path("gate");
        let pool = Pool::new(1).unwrap();
        let mut handle = pool.submit(delayed!(until_made(&gate, 7)));
        let ((first, first_waker), (second, second_waker)) = (Count::new(), Count::new());
        for _ in 0..3 {
            assert!(poll_once(&mut handle, &first_waker).is_pending());
        }
        for _ in 0..3 {
            assert!(poll_once(&mut handle, &second_waker).is_pending());
        }
        assert_eq!(Arc::strong_count(&first), 2, "what is replaced is let go");
        make(&gate);
        until("the second is woken", || second.woken() > 0);
        assert_eq!((first.woken(), second.woken()), (0, 1));
        let Poll::Ready(result) = poll_once(&mut handle, &second_waker) else { panic!("it was woken") };
        assert_eq!(result.unwrap(), 7);
    });
}

#[test]
fn one_handle_is_awaited_asked_and_joined_in_turn() {
    alone(|| {
        let folder = Folder::new();
        let pool = Pool::new(2).unwrap();
        let (count, waker) = Count::new();
        for round in 0..20 {
            let gate = folder.path(&format!("gate{round}"));
            let mut handle = pool.submit(delayed!(until_made(&gate, round)));
            assert!(poll_once(&mut handle, &waker).is_pending());
            assert!(!handle.is_finished());
            assert!(handle.join_timeout(Duration::from_millis(1)).is_none());
            assert!(handle.join_timeout(Duration::ZERO).is_none());
            assert!(poll_once(&mut handle, &waker).is_pending());
            // Others that wait on the same pool neither take its place nor lose theirs.
            assert_eq!(pool.submit(delayed!(echo(round))).join().unwrap(), round);
            make(&gate);
            let result = match round % 4 {
                0 => handle.join(),
                1 => block_on(handle),
                2 => loop {
                    if let Some(result) = handle.join_timeout(Duration::from_secs(20)) {
                        break result;
                    }
                },
                _ => {
                    until("it is finished", || handle.is_finished());
                    handle.join_timeout(Duration::ZERO).expect("it is finished")
                }
            };
            assert_eq!(result.unwrap(), round);
        }
        drop(waker);
        // The thread that has woken it may not have dropped it yet.
        until("nothing holds the waker", || Arc::strong_count(&count) == 1);
    });
}

#[test]
fn is_finished_alone_brings_a_result_about() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        for n in 0..200 {
            let handle = pool.submit(delayed!(echo(n)));
            until("it is finished", || handle.is_finished());
            assert_eq!(handle.join().unwrap(), n);
        }
        let mut handle = pool.submit(delayed!(echo(1)));
        let mut result = None;
        until("a timeout of zero looks, too", || {
            result = handle.join_timeout(Duration::ZERO);
            result.is_some()
        });
        assert_eq!(result.unwrap().unwrap(), 1);
    });
}

#[test]
fn futures_and_blocking_joins_share_a_pool() {
    alone(|| {
        let pool = Arc::new(Pool::new(2).unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let blocking = std::thread::spawn({
            let pool = pool.clone();
            move || (0..500).all(|n| pool.submit(delayed!(echo(n))).join().unwrap() == n)
        });
        runtime.block_on(async {
            let tasks: Vec<_> = (0..4)
                .map(|_| {
                    let pool = pool.clone();
                    tokio::spawn(async move {
                        for n in 0..500 {
                            assert_eq!(pool.submit(delayed!(echo(n))).await.unwrap(), n);
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        assert!(blocking.join().unwrap());
    });
}

#[test]
fn a_future_gives_way_to_a_timeout_and_is_awaited_again() {
    alone(|| {
        let folder = Folder::new();
        let gate = folder.path("gate");
        let pool = Pool::new(1).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut handle = pool.submit(delayed!(until_made(&gate, 9)));
            let early = tokio::time::timeout(Duration::from_millis(5), &mut handle).await;
            assert!(early.is_err());
            make(&gate);
            assert_eq!(handle.await.unwrap(), 9);
        });
    });
}

/// Numbers, counting how many were read.
fn counted(read: &Arc<AtomicUsize>) -> impl Iterator<Item = u64> + Send + use<> {
    let read = read.clone();
    (0..).inspect(move |_| {
        read.fetch_add(1, Ordering::SeqCst);
    })
}

#[test]
fn a_stream_reads_its_input_lazily_and_no_further_than_its_window() {
    alone(|| {
        let folder = Folder::new();
        let gate = folder.path("gate");
        let pool = Pool::builder().jobs(1).chunk_size(4).build().unwrap();
        let read = Arc::new(AtomicUsize::new(0));
        let mut stream = pool.stream(counted(&read).map(|n| delayed!(until_made(&gate, n))));
        assert_eq!(read.load(Ordering::SeqCst), 0, "nothing is read before it is polled");
        let (_, waker) = Count::new();
        for _ in 0..100 {
            assert!(Pin::new(&mut stream).poll_next(&mut Context::from_waker(&waker)).is_pending());
        }
        let window = read.load(Ordering::SeqCst);
        assert!((4..=16).contains(&window), "{window} were read of an endless input");
        make(&gate);
        block_on(async {
            for n in 0..1000 {
                assert_eq!(next(&mut stream).await.unwrap().unwrap(), n);
                assert!(read.load(Ordering::SeqCst) <= n as usize + 1 + 16);
            }
        });
    });
}

#[test]
fn a_stream_that_is_dropped_ends_its_call() {
    alone(|| {
        let folder = Folder::new();
        let (gate, ran) = (folder.path("gate"), folder.path("ran"));
        let pool = Pool::new(1).unwrap();
        let (count, waker) = Count::new();
        let first = pool.submit(delayed!(until_made(&gate, 0)));
        let mut stream = pool.stream((0..).map(|n| delayed!(note(&ran, n))));
        assert!(Pin::new(&mut stream).poll_next(&mut Context::from_waker(&waker)).is_pending());
        drop(stream);
        drop(waker);
        assert_eq!(Arc::strong_count(&count), 1, "the waker goes with the stream");
        make(&gate);
        first.join().unwrap();
        assert_eq!(pool.submit(delayed!(echo(1))).join().unwrap(), 1);
        assert_eq!(numbers(&ran), []);
    });
}

#[test]
fn a_failed_task_is_an_item_of_a_stream_which_goes_on() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let tasks = |n: u64| -> Task<Result<u64, RemoteError>> { delayed!(fail_at(n, 3)) };
        block_on(async {
            let mut stream = pool.stream((0..10).map(tasks));
            for n in 0..10 {
                let result = next(&mut stream).await.unwrap().unwrap();
                assert_eq!(result.ok(), (n != 3).then_some(n));
            }
            assert!(next(&mut stream).await.is_none());
            assert!(next(&mut stream).await.is_none(), "it may be asked again");
            let ends = [End::Panic, End::Abort, End::Panic];
            let mut stream = pool.stream_unordered(ends.into_iter().map(|end| delayed!(strike(end))));
            let mut seen = Vec::new();
            while let Some((index, result)) = next(&mut stream).await {
                let error: TaskError = result.unwrap_err();
                assert_eq!(error.is_crash(), index == 1);
                assert_eq!(error.task_index(), Some(index));
                seen.push(index);
            }
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2]);
        });
    });
}

#[test]
fn several_streams_are_read_on_one_thread() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let read = |from: u64| {
            let mut stream = pool.stream_unordered((from..from + 2000).map(|n| delayed!(echo(n))));
            async move {
                let mut sum = 0;
                while let Some((_, result)) = next(&mut stream).await {
                    sum += result.unwrap();
                }
                sum
            }
        };
        let (a, b) = block_on(both(read(0), read(10_000)));
        assert_eq!((a, b), ((0..2000).sum(), (10_000..12_000).sum()));
    });
}

#[test]
fn streams_and_handles_move_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let stream = pool.stream((0..10).map(|n| delayed!(echo(n))));
        let unordered = pool.stream_unordered((0..10).map(|n| delayed!(echo(n))));
        is_send(&stream);
        is_send(&unordered);
        is_send(&pool.submit(delayed!(echo(1))));
    });
}
