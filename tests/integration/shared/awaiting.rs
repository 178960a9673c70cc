//! Channels are awaited on any executor: no thread is blocked, and a dropped future neither loses nor sends a message.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use procession::{Pipe, Pool, Process, TryRecvError, channel, delayed, pipe, worker};

use super::channels::{collect, echo_all, keep, nothing, produce};
use crate::{
    alone::{alone, alone_with_warm_pool},
    awaiting::{Count, next},
    event::{block_on, until, until_exists},
    scratch::Folder,
};

#[worker]
async fn double_awaited(pipe: Pipe<u64, u64>) {
    while let Ok(n) = pipe.recv_async().await {
        pipe.send_async(2 * n).await.expect("the caller receives");
    }
}

/// A future that is polled by hand.
struct Polled<'a, R> {
    future: Pin<Box<dyn Future<Output = R> + Send + 'a>>,
    count: Arc<Count>,
}

impl<'a, R> Polled<'a, R> {
    fn new(future: impl Future<Output = R> + Send + 'a) -> Self {
        Self { future: Box::pin(future), count: Arc::default() }
    }

    fn poll(&mut self) -> Poll<R> {
        self.future.as_mut().poll(&mut Context::from_waker(&Waker::from(self.count.clone())))
    }

    fn is_woken(&self) -> bool {
        self.count.take() > 0
    }

    /// Polls it whenever it is woken.
    fn until_ready(&mut self) -> R {
        let mut output = None;
        until("the future is ready", || {
            if self.is_woken()
                && let Poll::Ready(result) = self.poll()
            {
                output = Some(result);
            }
            output.is_some()
        });
        output.expect("it is ready")
    }
}

/// Checks on one executor.
async fn ask(pool: &Pool) {
    let (tx, rx) = channel(3).unwrap();
    let producing = pool.submit(delayed!(produce(0..3000, tx)));
    for n in 0..1500 {
        assert_eq!(rx.recv_async().await.unwrap(), n);
    }
    let mut messages = rx.into_stream();
    for n in 1500..3000 {
        assert_eq!(next(&mut messages).await, Some(n));
    }
    assert_eq!(next(&mut messages).await, None);
    producing.await.unwrap().unwrap();

    let (tx, rx) = channel(3).unwrap();
    let collecting = pool.submit(delayed!(collect(rx)));
    for n in 0..3000 {
        tx.send_async(n).await.unwrap();
    }
    drop(tx);
    assert!(collecting.await.unwrap().into_iter().eq(0..3000));
}

#[test]
fn messages_are_awaited_on_pollster() {
    alone(|| block_on(ask(&Pool::new(1).unwrap())));
}

#[test]
fn messages_are_awaited_on_smol() {
    // Its reactor stays with the process.
    alone_with_warm_pool(|| {
        let pool = Pool::new(1).unwrap();
        smol::block_on(ask(&pool));
    });
}

#[test]
fn messages_are_awaited_on_tokio() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        // The future is moved between threads.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async { tokio::spawn(async move { ask(&pool).await }).await.unwrap() });
    });
}

#[test]
fn both_sides_of_a_pipe_await() {
    alone(|| {
        let (here, there) = pipe::<u64, u64>().unwrap();
        let mut process = Process::spawn(delayed!(double_awaited(there))).unwrap();
        block_on(async {
            let mut doubled = here.stream();
            for n in 0..300 {
                here.send_async(n).await.unwrap();
                assert_eq!(here.recv_async().await.unwrap(), 2 * n);
                here.send_async(n + 1).await.unwrap();
                assert_eq!(next(&mut doubled).await, Some(2 * n + 2));
            }
        });
        drop(here);
        process.join().unwrap();
    });
}

#[test]
fn a_process_that_is_killed_wakes_all_that_await_it() {
    alone(|| {
        let folder = Folder::new();
        let (begun, go) = (folder.path("begun"), folder.path("go"));
        let ((tx, rx), (there, here)) = (channel(1).unwrap(), channel(1).unwrap());
        let mut process = Process::spawn(delayed!(keep(tx, here, &begun, &go))).unwrap();
        until_exists(&begun);
        there.send(1).unwrap();
        let mut receiving = [0, 1, 2].map(|_| Polled::new(rx.recv_async()));
        let mut sending = [2, 3, 4].map(|n| Polled::new(there.send_async(n)));
        assert!(receiving.iter_mut().all(|future| future.poll().is_pending()));
        assert!(sending.iter_mut().all(|future| future.poll().is_pending()));
        process.kill().unwrap();
        for future in &mut receiving {
            assert!(future.until_ready().unwrap_err().is_disconnected());
        }
        for (future, n) in sending.iter_mut().zip(2..) {
            assert_eq!(future.until_ready().unwrap_err().into_inner(), n);
        }
        let _ = process.join();
    });
}

#[test]
fn a_dropped_receiving_future_leaves_its_message_to_the_next() {
    alone(|| {
        let (tx, rx) = channel(4).unwrap();
        let (mut first, mut second) = (Polled::new(rx.recv_async()), Polled::new(rx.recv_async()));
        assert!(first.poll().is_pending() && second.poll().is_pending());
        tx.send(1).unwrap();
        until("a future is woken", || first.is_woken());
        drop(first);
        assert_eq!(second.until_ready().unwrap(), 1);
        // Also if it is dropped before it is woken.
        let (mut first, mut second) = (Polled::new(rx.recv_async()), Polled::new(rx.recv_async()));
        assert!(first.poll().is_pending() && second.poll().is_pending());
        drop(first);
        tx.send(2).unwrap();
        assert_eq!(second.until_ready().unwrap(), 2);
    });
}

#[test]
fn a_dropped_receiving_future_leaves_its_message_to_a_thread_that_waits() {
    alone(|| {
        let (tx, rx) = channel(4).unwrap();
        let mut future = Polled::new(rx.recv_async());
        assert!(future.poll().is_pending());
        let mut process = Process::spawn(delayed!(collect(rx.clone()))).unwrap();
        for n in 0..50 {
            tx.send(n).unwrap();
        }
        drop(future);
        drop(tx);
        assert!(process.join().unwrap().into_iter().eq(0..50));
    });
}

#[test]
fn a_dropped_sending_future_has_sent_nothing_and_takes_no_room() {
    alone(|| {
        for len in [1, 5000] {
            let (tx, rx) = channel(2).unwrap();
            tx.send(vec![1; len]).unwrap();
            tx.send(vec![2; len]).unwrap();
            let (mut first, mut second) =
                (Polled::new(tx.send_async(vec![3; len])), Polled::new(tx.send_async(vec![4; len])));
            assert!(first.poll().is_pending() && second.poll().is_pending());
            assert_eq!(rx.recv().unwrap(), vec![1; len]);
            until("a future is woken", || first.is_woken());
            drop(first);
            second.until_ready().unwrap();
            drop(second);
            drop(tx);
            assert!(rx.iter().eq([vec![2; len], vec![4; len]]));
        }
    });
}

#[test]
fn each_message_is_received_once_by_tasks_threads_and_processes() {
    alone(|| {
        const MESSAGES: u64 = 3000;
        let (tx, rx) = channel(4).unwrap();
        let pool = Pool::new(3).unwrap();
        let producers =
            [0, 1].map(|n| pool.submit(delayed!(produce(n * MESSAGES..(n + 1) * MESSAGES, tx.clone()))));
        let collector = pool.submit(delayed!(collect(rx.clone())));
        let thread = {
            let rx = rx.clone();
            std::thread::spawn(move || rx.iter().collect::<Vec<_>>())
        };
        drop(tx);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let tasks = [0, 1, 2].map(|_| {
            let mut messages = rx.stream();
            runtime.spawn(async move {
                let mut all = Vec::new();
                while let Some(n) = next(&mut messages).await {
                    all.push(n);
                }
                all
            })
        });
        let mut all: Vec<u64> = tasks.into_iter().flat_map(|task| block_on(task).unwrap()).collect();
        all.append(&mut thread.join().unwrap());
        all.append(&mut collector.join().unwrap());
        all.sort_unstable();
        assert!(all.into_iter().eq(0..2 * MESSAGES));
        producers.into_iter().for_each(|producer| producer.join().unwrap().unwrap());
    });
}

#[test]
fn more_channels_are_awaited_than_the_kernel_waits_for_at_a_time() {
    alone(|| {
        let channels: Vec<_> = (0..140).map(|_| channel::<usize>(1).unwrap()).collect();
        let mut futures: Vec<_> = channels.iter().map(|(_, rx)| Polled::new(rx.recv_async())).collect();
        assert!(futures.iter_mut().all(|future| future.poll().is_pending()));
        for (n, (tx, _)) in channels.iter().enumerate() {
            tx.send(n).unwrap();
        }
        for (n, future) in futures.iter_mut().enumerate() {
            assert_eq!(future.until_ready().unwrap(), n);
        }
    });
}

#[test]
fn long_messages_are_awaited() {
    alone(|| {
        let ((tx, inputs), (outputs, rx)) = (channel(3).unwrap(), channel(3).unwrap());
        let mut process = Process::spawn(delayed!(echo_all(inputs, outputs))).unwrap();
        let lens = [1, 300, 5_000, 20_000, 3, 300_000, 4 << 20, 0, 17];
        block_on(async {
            let sending = pin!(async {
                for (n, len) in lens.into_iter().enumerate() {
                    tx.send_async(vec![n as u8; len]).await.unwrap();
                }
            });
            let receiving = pin!(async {
                for (n, len) in lens.into_iter().enumerate() {
                    assert!(rx.recv_async().await.unwrap() == vec![n as u8; len], "message {n}");
                }
            });
            crate::awaiting::both(sending, receiving).await;
        });
        drop(tx);
        assert!(block_on(rx.recv_async()).unwrap_err().is_disconnected());
        process.join().unwrap().unwrap();
    });
}

#[test]
fn a_process_that_awaits_makes_other_processes() {
    alone(|| {
        let (tx, rx) = channel(1).unwrap();
        let mut future = Polled::new(rx.recv_async());
        assert!(future.poll().is_pending());
        // Under the start method fork, the thread that sleeps for the future rests meanwhile.
        let pool = Pool::new(1).unwrap();
        pool.submit(delayed!(nothing())).join().unwrap();
        pool.submit(delayed!(produce(7..8, tx))).join().unwrap().unwrap();
        assert_eq!(future.until_ready().unwrap(), 7);
        drop(future);
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Disconnected)));
    });
}
