//! The actions of a task on its worker, and the functions that run around tasks.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use procession::{Pool, RemoteError, delayed, parallel, worker};

use crate::{random::Random, shared::shared};

/// The target of the records that the lines of tasks become.
pub(super) const MODULE: &str = module_path!();

/// The action of a task, besides counting that it runs. The rest of the word is its amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Nothing,
    Sleep,
    Say,
    Print,
    Panic,
    Abort,
    Exit,
    Signal,
    Nested,
    Pools,
}

const DEEDS: [Deed; 10] = [
    Deed::Nothing,
    Deed::Sleep,
    Deed::Say,
    Deed::Print,
    Deed::Panic,
    Deed::Abort,
    Deed::Exit,
    Deed::Signal,
    Deed::Nested,
    Deed::Pools,
];

impl Deed {
    pub(super) fn draw(random: &mut Random, is_one_of_many: bool) -> u64 {
        let deed = match random.below(if is_one_of_many { 3000 } else { 60 }) {
            0 => Deed::Panic,
            1 => Deed::Abort,
            2 => Deed::Exit,
            3 => Deed::Signal,
            4 => Deed::Pools,
            5..10 => Deed::Nested,
            10..18 => Deed::Say,
            18..24 => Deed::Sleep,
            24..32 => Deed::Print,
            _ => Deed::Nothing,
        };
        deed as u64 | random.below(1 << 20) << 8
    }

    pub(super) fn of(word: u64) -> Self {
        DEEDS[(word & 0xff) as usize]
    }
}

/// Bits of a task's word: what its worker's pool has.
pub(super) const INITIALIZED: u64 = 1 << 40;

pub(super) const PRELOADED: u64 = 1 << 41;

/// The number of times that this process, or the process that it is a copy of, has run its pool's preload and its initializer.
static PRELOADS: AtomicU32 = AtomicU32::new(0);

static INITIALIZERS: AtomicU32 = AtomicU32::new(0);

static FINALIZERS: AtomicU32 = AtomicU32::new(0);

/// Returns the line that a task that prints writes.
pub(super) fn line(task: u64) -> String {
    format!("task {task} prints")
}

/// The task that has printed this line.
pub(super) fn printed_by(line: &str) -> Option<usize> {
    line.strip_prefix("task ")?.strip_suffix(" prints")?.parse().ok()
}

/// Checks a count and remembers a failure, where an error might not be looked at.
fn must(count: u32, wanted: u32, words: &str) {
    if count != wanted {
        shared().around.faults.fetch_add(1, Ordering::SeqCst);
        panic!("{words}: {count}, not {wanted}");
    }
}

/// Runs in a template.
#[worker]
pub(super) fn preload(micros: u64) {
    std::thread::sleep(Duration::from_micros(micros));
    must(PRELOADS.fetch_add(1, Ordering::SeqCst), 0, "preloads of a template before");
    shared().around.preloads.fetch_add(1, Ordering::SeqCst);
}

/// Runs in each worker. One in `fails` of them fails (0: none does), in one of three ways.
#[worker]
pub(super) fn initialize(micros: u64, fails: u64, is_preloaded: bool) -> Result<(), RemoteError> {
    std::thread::sleep(Duration::from_micros(micros));
    must(INITIALIZERS.fetch_add(1, Ordering::SeqCst), 0, "initializers of a worker before");
    must(PRELOADS.load(Ordering::SeqCst), u32::from(is_preloaded), "preloads of a worker's template");
    let nth = shared().around.initializers.fetch_add(1, Ordering::SeqCst);
    if fails > 0 && nth % fails == fails - 1 {
        match nth / fails % 3 {
            0 => panic!("as it was told"),
            1 => std::process::exit(3),
            _ => return Err(RemoteError::msg("as it was told")),
        }
    }
    Ok(())
}

/// Runs in each worker that leaves in good order; returns how many have before.
#[worker]
pub(super) fn finalize(micros: u64, is_initialized: bool) -> u64 {
    std::thread::sleep(Duration::from_micros(micros));
    must(
        INITIALIZERS.load(Ordering::SeqCst),
        u32::from(is_initialized),
        "initializers of a worker that leaves",
    );
    must(FINALIZERS.fetch_add(1, Ordering::SeqCst), 0, "finalizers of a worker before");
    shared().around.finalizers.fetch_add(1, Ordering::SeqCst)
}

/// Returns the outcome of the task with this number.
pub(super) fn answer(task: u64, what: u64) -> u64 {
    task.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ what
}

#[worker]
pub(super) fn square(n: u64) -> u64 {
    n * n
}

#[worker]
pub(super) fn work(task: u64, what: u64) -> u64 {
    shared().ran(task);
    let much = what >> 8 & 0xf_ffff;
    let [is_initialized, is_preloaded] = [INITIALIZED, PRELOADED].map(|bit| u32::from(what & bit != 0));
    assert_eq!(
        INITIALIZERS.load(Ordering::SeqCst),
        is_initialized,
        "a worker is initialized before its first task"
    );
    assert_eq!(PRELOADS.load(Ordering::SeqCst), is_preloaded, "its template was preloaded");
    assert_eq!(FINALIZERS.load(Ordering::SeqCst), 0, "no task runs after the finalizer");
    match Deed::of(what) {
        Deed::Nothing => {}
        Deed::Sleep => std::thread::sleep(Duration::from_micros(much % 30_000)),
        Deed::Say => log::info!(target: "chaos", "{task}"),
        Deed::Print => {
            println!("{}", line(task));
            eprintln!("{}", line(task));
        }
        Deed::Panic => panic!("as it was told"),
        Deed::Abort => std::process::abort(),
        Deed::Exit => std::process::exit((much & 3) as i32),
        Deed::Signal => {
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSEGV);
        }
        Deed::Nested => {
            let many = much % 50;
            let squares = parallel!(square(n) for n in 0..many).expect("they run in this very worker");
            assert!(squares.into_iter().eq((0..many).map(|n| n * n)), "squares are what they are");
        }
        Deed::Pools => {
            let squares = Pool::new(1).and_then(|pool| pool.map((0..20).map(|n| delayed!(square(n)))));
            // Its workers are sent signals, too.
            if let Ok(squares) = squares {
                assert!(squares.into_iter().eq((0..20).map(|n| n * n)), "squares are what they are");
            }
        }
    }
    answer(task, what)
}

#[worker]
pub(super) fn turn_around(task: u64, mut bytes: Vec<u8>) -> Vec<u8> {
    shared().ran(task);
    bytes.reverse();
    bytes
}
