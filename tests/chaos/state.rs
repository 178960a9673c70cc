//! The host of `--work state`: processes that send and receive, lock, wait and read shared memory while they are killed. No message that was
//! sent is lost, none is received twice unless its receiver has died, what a lock protects is whole, nothing hangs, and nothing is left.

use std::{
    fs,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use procession::{
    OwnerDied, Pool, Process, Receiver, Sender, SharedCondvar, SharedEvent, SharedMutex, SharedRwLock,
    SharedSemaphore, SharedSlice, channel, delayed, worker,
};
use serde::{Deserialize, Serialize};

use crate::{
    Options,
    random::Random,
    shared::{LIVES, MESSAGES, shared},
};

/// Processes at a time.
const PROCESSES: usize = 8;
/// Messages that the channel holds.
const CAPACITY: usize = 64;
/// Processes that hold a permit at a time.
const PERMITS: usize = 3;
/// The longest wait of a process for others. Those that hold something may be stopped for a while.
const SOON: Duration = Duration::from_millis(20);
/// What the locks protect, and shared memory contains, that many times.
const COPIES: usize = 16;

/// What a process has in its hands: it is in `recv`, or has this message and has not noted it.
const RECEIVING: u32 = 1;
const TAKEN: u32 = 2;

/// What the processes share.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Things {
    sender: Sender<u64>,
    receiver: Receiver<u64>,
    mutex: SharedMutex<[u64; COPIES]>,
    lock: SharedRwLock<[u64; COPIES]>,
    condvar: SharedCondvar,
    permits: SharedSemaphore,
    event: SharedEvent,
}

impl Things {
    fn new() -> procession::Result<Self> {
        let (sender, receiver) = channel(CAPACITY)?;
        Ok(Self {
            sender,
            receiver,
            mutex: SharedMutex::new([0; COPIES])?,
            lock: SharedRwLock::new([0; COPIES])?,
            condvar: SharedCondvar::new()?,
            permits: SharedSemaphore::new(PERMITS)?,
            event: SharedEvent::new()?,
        })
    }
}

/// The guard, after what the dead holder has left half done was made whole.
fn whole<G: std::ops::DerefMut<Target = [u64; COPIES]>>(locked: Result<G, OwnerDied<G>>) -> G {
    match locked {
        Ok(guard) => {
            assert!(
                guard.iter().all(|copy| *copy == guard[0]),
                "nobody has died, and it is torn: {:?}",
                *guard
            );
            guard
        }
        Err(OwnerDied(mut guard)) => {
            *guard = [guard[0]; COPIES];
            guard
        }
    }
}

/// One process: does what comes to its mind until its time is over.
#[worker]
fn take_part(things: Things, memory: SharedSlice<u64>, life: u64, seed: u64, millis: u64) {
    let shared = shared();
    let mut random = Random::new(seed, life);
    let end = Instant::now() + Duration::from_millis(millis);
    let hand = &shared.hands[life as usize];
    while Instant::now() < end {
        shared.beats.fetch_add(1, Ordering::Relaxed);
        match random.below(7) {
            0 | 1 => {
                for _ in 0..random.below(200) {
                    let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
                    if number >= MESSAGES as u64 || things.sender.send_timeout(number, SOON).is_err() {
                        break;
                    }
                    shared.note_sent(number);
                }
            }
            2 | 3 => {
                for _ in 0..random.below(200) {
                    hand.store(RECEIVING, Ordering::SeqCst);
                    let Ok(number) = things.receiver.recv_timeout(SOON) else { break };
                    hand.store(number as u32 + TAKEN, Ordering::SeqCst);
                    shared.note_received(number, life as usize);
                    hand.store(0, Ordering::SeqCst);
                }
                hand.store(0, Ordering::SeqCst);
            }
            4 => {
                let mut guard = whole(things.mutex.lock());
                guard.iter_mut().for_each(|copy| *copy += 1);
                if random.once_in(4) {
                    things.condvar.notify_all();
                } else if random.once_in(4) {
                    drop(things.condvar.wait_timeout(guard, SOON));
                }
            }
            5 => {
                if random.once_in(3) {
                    whole(things.lock.write()).iter_mut().for_each(|copy| *copy += 1);
                } else if let Ok(guard) = things.lock.read() {
                    assert!(guard.iter().all(|copy| *copy == guard[0]), "torn: {:?}", *guard);
                }
            }
            _ => {
                if let Some(permit) = things.permits.acquire_timeout(SOON) {
                    assert!(memory.iter().all(|word| *word == life), "another's memory");
                    things.event.set();
                    drop(permit);
                } else {
                    things.event.clear();
                    let _ = things.event.wait_timeout(SOON / 4);
                }
            }
        }
    }
}

/// What was counted.
#[derive(Debug, Default)]
struct Counts {
    ended: usize,
    died: Vec<usize>,
}

pub(crate) fn run(options: &Options) {
    let shared = shared();
    let before = descriptors();
    let things = Things::new().unwrap();
    let (lives, counts) = (AtomicUsize::new(0), Mutex::new(Counts::default()));
    // Copies are made of a host with one thread, so the template is made before there are others.
    let pool = (options.method == "fork").then(|| Pool::new(PROCESSES).unwrap());
    let end = Instant::now() + Duration::from_secs(options.seconds);
    shared.is_open.store(1, Ordering::Relaxed);
    std::thread::scope(|scope| {
        for _ in 0..PROCESSES {
            scope.spawn(|| {
                while Instant::now() < end {
                    let life = lives.fetch_add(1, Ordering::Relaxed);
                    assert!(life < LIVES, "too many processes");
                    let millis = Random::new(options.seed, life as u64).below(2000);
                    let memory = SharedSlice::from_slice(&[life as u64; 1000]).unwrap();
                    let task = delayed!(take_part(things.clone(), memory, life as u64, options.seed, millis));
                    let ended = match &pool {
                        Some(pool) => pool.submit(task).join(),
                        // The template may have been killed.
                        None => match Process::spawn(task) {
                            Ok(mut process) => process.join(),
                            Err(_) => continue,
                        },
                    };
                    shared.beats.fetch_add(1, Ordering::Relaxed);
                    let mut counts = counts.lock().unwrap();
                    match ended {
                        Ok(()) => counts.ended += 1,
                        Err(error) if error.is_panic() => {
                            panic!("{error}")
                        }
                        Err(_) => counts.died.push(life),
                    }
                }
            });
        }
    });
    shared.is_open.store(0, Ordering::Relaxed);
    drop(pool);
    let Things { sender, receiver, mutex, lock, condvar, permits, event } = things;
    drop(sender);
    // Everybody else has gone, so it ends.
    receiver.iter().for_each(|number| shared.note_received(number, LIVES));
    drop(receiver);
    assert!(whole(mutex.lock_timeout(SOON).expect("it is free")).iter().all(|copy| *copy > 0));
    drop(whole(lock.write_timeout(SOON).expect("it is free")));
    assert_eq!(permits.available_permits(), PERMITS, "permits");
    drop((mutex, lock, condvar, permits, event));

    let counts = counts.into_inner().unwrap();
    judge(&counts);
    assert_eq!(segments(), 0, "segments are left");
    assert_eq!(descriptors(), before, "descriptors are left");
}

/// Looks at what became of each message.
fn judge(counts: &Counts) {
    let shared = shared();
    let hands: Vec<_> = counts.died.iter().map(|life| shared.hands[*life].load(Ordering::SeqCst)).collect();
    let (mut sent, mut missing, mut twice) = (0, 0, 0);
    let all = shared.numbers.load(Ordering::Relaxed).min(MESSAGES as u64);
    for number in 0..all {
        let fate = shared.fate(number);
        sent += u64::from(fate.is_sent());
        let is_missing = fate.is_sent() && fate.times_received() == 0;
        // The receiver has died when it had it.
        missing += usize::from(is_missing && !hands.contains(&(number as u32 + TAKEN)));
        if fate.times_received() > 1 {
            twice += 1;
            assert!(counts.died.contains(&fate.receiver()), "message {number} came twice: {fate:?}");
        }
    }
    let (ended, died) = (counts.ended, counts.died.len());
    // Between the end of their `recv` and their first word about the message.
    let between = hands.iter().filter(|hand| **hand == RECEIVING).count();
    println!(
        "outcomes: {{ended: {ended}, died: {died}, {between} of them in `recv`, sent: {sent}, missing: {missing}, twice: {twice}}}"
    );
    assert!(missing <= between, "{missing} messages are lost");
}

/// The number of open descriptors of this process.
fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The number of segments that this process has mapped.
fn segments() -> usize {
    fs::read_to_string("/proc/self/maps").unwrap().matches("procession-shared").count()
}
