//! Channels between processes.

use std::path::{Path, PathBuf};

use procession::{
    Pipe, Pool, Process, Receiver, RemoteError, Sender, Shared, TryRecvError, channel, delayed, is_worker,
    pipe, worker,
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    alone::alone,
    end::End,
    event::{until, until_exists},
    scratch::Folder,
};

#[worker]
pub(super) fn produce(numbers: std::ops::Range<u64>, to: Sender<u64>) -> Result<(), RemoteError> {
    for n in numbers {
        to.send(n)?;
    }
    Ok(())
}

#[worker]
pub(super) fn collect(from: Receiver<u64>) -> Vec<u64> {
    from.iter().collect()
}

/// Receives as many from the one and sends them to the other, then ends as asked.
#[worker]
fn relay(from: Receiver<u64>, to: Sender<u64>, count: u64, end: Option<End>) -> Result<(), RemoteError> {
    for _ in 0..count {
        to.send(from.recv()?)?;
    }
    if let Some(end) = end {
        end.strike();
    }
    Ok(())
}

/// Keeps both ends until a file exists.
#[worker]
pub(super) fn keep(to: Sender<u64>, from: Receiver<u64>, begun: &Path, go: &Path) {
    std::fs::write(begun, "").expect("a file of the test's");
    until_exists(go);
    drop((to, from));
}

/// Has both ends, drops the one and uses the other to the end.
#[worker]
fn drop_and_drain(to: Sender<u64>, from: Receiver<u64>) -> u64 {
    drop(to);
    from.into_iter().sum()
}

/// Sends the sums of orders to where each of them says.
#[worker]
fn serve(orders: Receiver<Order>) -> Result<(), RemoteError> {
    for order in orders {
        order.reply.send(order.numbers.iter().sum())?;
    }
    Ok(())
}

/// Makes a channel, sends something, hands out the receiver through another channel, and ends as asked.
#[worker]
fn hand_out(to: Sender<Receiver<u64>>, end: Option<End>) -> Result<(), RemoteError> {
    let (tx, rx) = channel(4)?;
    (1..4).try_for_each(|n| tx.send(n))?;
    to.send(rx)?;
    if let Some(end) = end {
        end.strike();
    }
    Ok(())
}

#[worker]
pub(super) fn echo_all(from: Receiver<Vec<u8>>, to: Sender<Vec<u8>>) -> Result<(), RemoteError> {
    from.into_iter().try_for_each(|bytes| to.send(bytes))?;
    Ok(())
}

#[worker]
fn double(pipe: Pipe<u64, u64>) {
    while let Ok(n) = pipe.recv() {
        pipe.send(2 * n).expect("the caller receives");
    }
}

#[worker]
fn announce(order: &Order) {
    order.reply.send(order.numbers[0]).expect("the caller receives");
}

#[worker]
pub(super) fn nothing() {}

/// Makes a channel and returns both ends, with messages in it.
#[worker]
fn make(count: u64) -> Result<(Sender<u64>, Receiver<u64>), RemoteError> {
    let (tx, rx) = channel(16)?;
    (0..count).try_for_each(|n| tx.send(n))?;
    Ok((tx, rx))
}

/// Returns one side of a pipe, and sends the other one.
#[worker]
fn make_pipe(there: Sender<Pipe<u64, u64>>) -> Result<Pipe<u64, u64>, RemoteError> {
    let (here, other) = pipe()?;
    there.send(other)?;
    Ok(here)
}

#[worker]
fn give_back(from: Receiver<u64>) -> Option<Receiver<u64>> {
    Some(from)
}

/// A message that ends its receiver while it is decoded, once, if that is a worker.
#[derive(Debug, Serialize)]
struct Deadly {
    number: u64,
    mark: PathBuf,
}

impl<'de> Deserialize<'de> for Deadly {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (number, mark): (u64, PathBuf) = Deserialize::deserialize(deserializer)?;
        if is_worker() && !mark.exists() {
            std::fs::write(&mark, "").expect("a file of the test's");
            End::Kill.strike();
        }
        Ok(Self { number, mark })
    }
}

#[worker]
fn receive_deadly(from: Receiver<Deadly>) -> Vec<u64> {
    from.iter().map(|message| message.number).collect()
}

/// A structure with an end within.
#[derive(Serialize, Deserialize)]
struct Order {
    numbers: Vec<u64>,
    reply: Sender<u64>,
}

#[worker]
fn fill(orders: Vec<Order>) -> Result<(), RemoteError> {
    for order in orders {
        order.reply.send(order.numbers.iter().sum())?;
    }
    Ok(())
}

#[test]
fn workers_send_to_the_caller_until_the_last_has_dropped_its_end() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let (tx, rx) = channel(400).unwrap();
        let tasks = [0, 1, 2, 3].map(|n| pool.submit(delayed!(produce(100 * n..100 * (n + 1), tx.clone()))));
        drop(tx);
        let mut all: Vec<u64> = rx.iter().collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..400));
        tasks.into_iter().for_each(|task| task.join().unwrap().unwrap());
    });
}

#[test]
fn messages_of_one_sender_arrive_in_order_through_a_channel_with_little_room() {
    alone(|| {
        let (tx, rx) = channel(3).unwrap();
        let mut process = Process::spawn(delayed!(produce(0..50_000, tx))).unwrap();
        assert!(rx.iter().eq(0..50_000));
        process.join().unwrap().unwrap();
    });
}

#[test]
fn workers_share_what_the_caller_sends() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let (tx, rx) = channel(4).unwrap();
        let tasks = [0, 1].map(|_| pool.submit(delayed!(collect(rx.clone()))));
        drop(rx);
        produce(0..2000, tx).unwrap();
        let mut all: Vec<u64> = tasks.into_iter().flat_map(|task| task.join().unwrap()).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..2000));
    });
}

#[test]
fn an_end_that_waits_in_the_queue_of_a_pool_counts() {
    alone(|| {
        let folder = Folder::new();
        let (begun, go) = (folder.path("begun"), folder.path("go"));
        let pool = Pool::new(1).unwrap();
        let (tx, rx) = channel(8).unwrap();
        let (other, others) = channel(8).unwrap();
        let busy = pool.submit(delayed!(keep(other, others, &begun, &go)));
        until_exists(&begun);
        let first = pool.submit(delayed!(produce(0..3, tx.clone())));
        let second = pool.submit(delayed!(produce(3..5, tx)));
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
        // A task that never runs has no end any more.
        second.cancel();
        assert!(second.join().unwrap_err().is_cancelled());
        std::fs::write(&go, "").unwrap();
        assert!(rx.iter().eq(0..3));
        first.join().unwrap().unwrap();
        busy.join().unwrap();
    });
}

#[test]
fn a_task_that_drops_its_sender_receives_to_the_end() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let (tx, rx) = channel(4).unwrap();
        tx.send(3).unwrap();
        let task = delayed!(drop_and_drain(tx, rx));
        // Neither the task nor what the pool keeps of it is a sender once the task has begun.
        assert_eq!(pool.submit(task).join().unwrap(), 3);
    });
}

#[test]
fn the_end_of_a_process_that_was_killed_is_gone_at_once() {
    alone(|| {
        let folder = Folder::new();
        let (begun, go) = (folder.path("begun"), folder.path("go"));
        let (tx, rx) = channel(1).unwrap();
        let (there, here) = channel(1).unwrap();
        let mut process = Process::spawn(delayed!(keep(tx, here, &begun, &go))).unwrap();
        until_exists(&begun);
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
        there.send(1).unwrap();
        let waiting = {
            let rx = rx.clone();
            std::thread::spawn(move || rx.recv().unwrap_err())
        };
        process.kill().unwrap();
        let _ = process.join();
        // Whoever reaps a process drops its ends. Nobody has to find out.
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Disconnected)));
        assert!(waiting.join().unwrap().is_disconnected());
        assert!(there.send(2).unwrap_err().is_disconnected());
    });
}

#[test]
fn a_message_is_received_by_another_process_if_its_receiver_dies_over_it() {
    alone(|| {
        let folder = Folder::new();
        let pool = Pool::builder().jobs(2).build().unwrap();
        let (tx, rx) = channel(8).unwrap();
        let tasks = [0, 1].map(|_| pool.submit(delayed!(receive_deadly(rx.clone()))));
        for number in 0..5 {
            let mark = folder.path(if number == 2 { "died" } else { "." });
            tx.send(Deadly { number, mark }).unwrap();
        }
        drop((tx, rx));
        let [first, second] = tasks.map(|task| task.join());
        let (survivor, dead) = if first.is_ok() { (first, second) } else { (second, first) };
        assert!(dead.unwrap_err().is_crash());
        let survivor = survivor.unwrap();
        assert!(survivor.contains(&2), "{survivor:?}");
    });
}

#[test]
fn a_receiver_that_dies_between_messages_has_received_them_for_good() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let ((tx, inputs), (outputs, rx)) = (channel(16).unwrap(), channel(16).unwrap());
        (0..10).for_each(|n| tx.send(n).unwrap());
        let dying = delayed!(relay(inputs.clone(), outputs.clone(), 4, Some(End::Kill)));
        assert!(pool.submit(dying).join().unwrap_err().is_crash());
        pool.submit(delayed!(relay(inputs.clone(), outputs, 6, None))).join().unwrap().unwrap();
        assert!(rx.iter().eq(0..10));
        drop((tx, inputs));
    });
}

#[test]
fn ends_within_other_values_are_handed_over() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let (reply, rx) = channel(8).unwrap();
        let orders = (1..4).map(|n| Order { numbers: vec![n; 3], reply: reply.clone() }).collect();
        drop(reply);
        pool.submit(delayed!(fill(orders))).join().unwrap().unwrap();
        assert!(rx.iter().eq([3, 6, 9]));
    });
}

#[test]
fn thousands_of_tasks_may_have_an_end_each() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let (tx, rx) = channel(5000).unwrap();
        let tasks: Vec<_> = (0..5000).map(|n| pool.submit(delayed!(produce(n..n + 1, tx.clone())))).collect();
        drop(tx);
        let mut all: Vec<u64> = rx.iter().collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..5000));
        tasks.into_iter().for_each(|task| task.join().unwrap().unwrap());
    });
}

#[test]
fn ends_go_through_channels() {
    alone(|| {
        let (orders, to_serve) = channel(4).unwrap();
        let mut process = Process::spawn(delayed!(serve(to_serve))).unwrap();
        for n in 1..20 {
            let (reply, rx) = channel(1).unwrap();
            orders.send(Order { numbers: vec![n; 100], reply }).unwrap();
            assert_eq!(rx.recv().unwrap(), 100 * n);
            assert!(rx.recv().unwrap_err().is_disconnected());
        }
        drop(orders);
        process.join().unwrap().unwrap();
    });
}

#[test]
fn what_was_sent_outlives_its_sender_with_the_ends_in_it() {
    alone(|| {
        let (to, outlets) = channel(4).unwrap();
        let mut killed = Process::spawn(delayed!(hand_out(to.clone(), Some(End::Kill)))).unwrap();
        assert!(killed.join().is_err());
        let mut done = Process::spawn(delayed!(hand_out(to, None))).unwrap();
        done.join().unwrap().unwrap();
        let received: Vec<Vec<u64>> = outlets.into_iter().map(|rx| rx.into_iter().collect()).collect();
        assert_eq!(received, [[1, 2, 3], [1, 2, 3]]);
    });
}

#[test]
fn an_end_in_a_shared_value_counts_as_long_as_the_value_is_shared() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let (reply, rx) = channel(8).unwrap();
        let order = Shared::new(&Order { numbers: vec![5], reply }).unwrap();
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
        for _ in 0..2 {
            pool.broadcast(delayed!(announce(&order))).unwrap();
        }
        assert!(rx.try_iter().all(|n| n == 5));
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
        drop(order);
        assert!(rx.recv().unwrap_err().is_disconnected());
    });
}

#[test]
fn messages_of_any_length_keep_their_order() {
    alone(|| {
        let ((tx, inputs), (outputs, rx)) = (channel(3).unwrap(), channel(3).unwrap());
        let mut process = Process::spawn(delayed!(echo_all(inputs, outputs))).unwrap();
        let lens = [1, 300, 5_000, 20_000, 3, 300_000, 4 << 20, 0, 17];
        let sender = std::thread::spawn(move || {
            lens.into_iter().enumerate().for_each(|(n, len)| tx.send(vec![n as u8; len]).unwrap());
        });
        for (n, len) in lens.into_iter().enumerate() {
            assert!(rx.recv().unwrap() == vec![n as u8; len], "message {n}");
        }
        assert!(rx.recv().unwrap_err().is_disconnected());
        sender.join().unwrap();
        process.join().unwrap().unwrap();
    });
}

#[worker]
fn produce_long(numbers: std::ops::Range<u64>, to: Sender<(u64, Vec<u8>)>) -> Result<(), RemoteError> {
    for n in numbers {
        to.send((n, vec![n as u8; if n % 20 == 0 { 5000 } else { 0 }]))?;
    }
    Ok(())
}

#[worker]
fn collect_long(from: Receiver<(u64, Vec<u8>)>) -> Vec<u64> {
    from.iter().map(|(n, _)| n).collect()
}

#[test]
fn several_processes_send_and_receive_long_messages_each_once() {
    alone(|| {
        let (tx, rx) = channel(4).unwrap();
        let start =
            |n: u64| Process::spawn(delayed!(produce_long(2000 * n..2000 * (n + 1), tx.clone()))).unwrap();
        let senders = [0, 1, 2].map(start);
        let receivers = [0, 1, 2].map(|_| Process::spawn(delayed!(collect_long(rx.clone()))).unwrap());
        drop((tx, rx));
        let mut all: Vec<u64> =
            receivers.into_iter().flat_map(|mut receiver| receiver.join().unwrap()).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..6000));
        senders.into_iter().for_each(|mut sender| sender.join().unwrap().unwrap());
    });
}

#[test]
fn a_pipe_goes_both_ways() {
    alone(|| {
        let (here, there) = pipe::<u64, u64>().unwrap();
        let mut process = Process::spawn(delayed!(double(there))).unwrap();
        for n in 0..100 {
            here.send(n).unwrap();
            assert_eq!(here.recv().unwrap(), 2 * n);
        }
        drop(here);
        process.join().unwrap();
    });
}

#[test]
fn workers_forget_a_channel_that_the_caller_has_dropped() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        for _ in 0..20 {
            let (tx, rx) = channel(8).unwrap();
            pool.submit(delayed!(produce(0..3, tx))).join().unwrap().unwrap();
            assert!(rx.iter().eq(0..3));
        }
        until("the memory is gone", || {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            !maps.contains("procession-shared")
        });
        pool.submit(delayed!(nothing())).join().unwrap();
    });
}

#[test]
fn ends_are_results_and_outlive_the_process_that_made_them() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        for made in [
            pool.submit(delayed!(make(3))).join().unwrap(),
            Process::spawn(delayed!(make(3))).unwrap().join().unwrap(),
            Pool::in_process().submit(delayed!(make(3))).join().unwrap(),
            delayed!(make(3)).call().unwrap(),
        ] {
            let (tx, rx) = made.unwrap();
            tx.send(3).unwrap();
            drop(tx);
            assert!(rx.into_iter().eq(0..4), "the sender that was returned was the last one");
        }
        let (tx, rx) = pool.submit(delayed!(make(0))).join().unwrap().unwrap();
        let producing = pool.submit(delayed!(produce(0..10, tx)));
        assert!(rx.into_iter().eq(0..10), "a worker uses again what it has made");
        producing.join().unwrap().unwrap();
    });
}

#[test]
fn an_end_that_comes_back_belongs_to_the_same_channel() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let (tx, rx) = channel(4).unwrap();
        let rx = pool.submit(delayed!(give_back(rx))).join().unwrap().unwrap();
        tx.send(1).unwrap();
        assert_eq!(rx.recv().unwrap(), 1);
        drop(rx);
        until("no receiver is left", || tx.send(2).is_err());
        // A result that nobody takes has no ends.
        let (tx, rx) = channel(4).unwrap();
        drop(pool.submit(delayed!(give_back(rx))));
        until("the receiver was dropped with the result", || {
            tx.try_send(3).is_err_and(|e| e.is_disconnected())
        });
    });
}

#[test]
fn sides_of_pipes_are_results() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let (tx, others) = channel(1).unwrap();
        let here = pool.submit(delayed!(make_pipe(tx))).join().unwrap().unwrap();
        let other = others.recv().unwrap();
        drop(pool);
        here.send(7).unwrap();
        other.send(other.recv().unwrap() + 1).unwrap();
        assert_eq!(here.recv().unwrap(), 8);
    });
}
