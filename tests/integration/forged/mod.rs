//! Workers that send well-formed frames which lie, or which never end. Other workers and the host are not affected.

mod wire;

use std::{
    os::fd::AsRawFd as _,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use log::{LevelFilter, Log, Metadata, Record};
use procession::{Pool, TaskError, delayed, worker};
use serde::{Deserialize, Serialize};

use self::wire::{Wire, frame, prefix, varint, words};
use crate::{
    alone::alone,
    event::{take_time, until},
};

/// The tags of messages.
const DONE: u8 = 129;

const NOTICE: u8 = 131;

/// Kinds of notices.
const LOG: [u8; 2] = [2, 0];

const TRACE: [u8; 2] = [2, 1];

const PANIC: u8 = 3;

const PROGRESS: u8 = 4;

const NOTE: u8 = 5;

const SEGMENTS: u8 = 7;

/// A note of this kind, with these numbers.
fn note(kind: u8, numbers: &[u64]) -> Vec<u8> {
    let numbers = numbers.iter().flat_map(|n| varint(*n)).collect::<Vec<_>>();
    frame(&[&[NOTICE, NOTE, kind], &numbers])
}

fn progress(seq: u32, fraction: f64) -> Vec<u8> {
    frame(&[&[NOTICE, PROGRESS], &varint(seq.into()), &fraction.to_le_bytes()])
}

fn record(message: &str) -> Vec<u8> {
    // level, target, message; no module, file, line or task; no fields
    frame(&[&[NOTICE], &LOG, &[3], &words("flood"), &words(message), &[0, 0, 0, 0, 0]])
}

/// A span within the previous one.
fn span(number: u64) -> Vec<u8> {
    // no task; a new span, its number, its parent; name, target, level; no module, file, line or fields; no values
    let parent = if number == 0 { vec![1] } else { [vec![2], varint(number - 1)].concat() };
    frame(&[
        &[NOTICE],
        &TRACE,
        &[0, 0],
        &varint(number),
        &parent,
        &words("deep"),
        &words("deep"),
        &[3, 0, 0, 0, 0, 0],
    ])
}

fn close(number: u64) -> Vec<u8> {
    frame(&[&[NOTICE], &TRACE, &[0, 3], &varint(number)])
}

/// Names descriptors that come for the result of a task.
fn segments(seq: u32, count: u64) -> Vec<u8> {
    frame(&[&[NOTICE, SEGMENTS], &varint(seq.into()), &varint(count)])
}

/// A message that a worker forges.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Lie {
    /// The beginning of a frame that claims this length.
    Length { head_len: u64, len: u64 },
    /// A brief or a message in which a sequence claims this many elements.
    Elements(u64),
    /// A result that took this long, and notes of such times.
    Time(u64),
    /// The progress of this task, and of others.
    Progress(f64),
    /// Marks of records that were never sent.
    Mark(u64),
    /// This many spans, each within the previous one.
    Spans { many: u64, are_closed: bool },
    /// Descriptors that are no segments: this many messages with this many, which claim to have `claim`.
    Descriptors { messages: u32, each: usize, claim: u64 },
}

/// Sends a lie, and then nothing more.
#[worker]
fn tell(lie: Lie) -> u64 {
    let wire = Wire::open();
    let seq = wire.seq();
    match lie {
        Lie::Length { head_len, len } => {
            wire.send(&prefix(head_len, len));
            wire.send(&vec![DONE; 300 << 10]);
        }
        Lie::Elements(many) => {
            wire.send(&frame(&[&[DONE], &seq.to_le_bytes(), &[0; 8], &varint(many), &[1; 20]]));
            wire.send(&frame(&[&[NOTICE], &LOG, &[3], &varint(many), b"words"]));
        }
        Lie::Time(nanos) => {
            wire.send(&note(0, &[nanos; 3]));
            wire.send(&note(1, &[nanos]));
            for tasks in [0, 1, u64::from(u32::MAX)] {
                wire.send(&note(2, &[nanos, tasks, nanos, 7]));
            }
            wire.send(&frame(&[&[DONE], &seq.to_le_bytes(), &nanos.to_le_bytes(), &[9]]));
        }
        Lie::Progress(fraction) => {
            for seq in [seq, seq.wrapping_add(1), seq.wrapping_sub(1), 0, u32::MAX] {
                wire.send(&progress(seq, fraction));
            }
        }
        Lie::Descriptors { messages, each, claim } => {
            let null = std::fs::File::open("/dev/null").expect("it is there");
            for _ in 0..messages {
                wire.send_with(&segments(seq, claim), &vec![null.as_raw_fd(); each]);
            }
            wire.send(&frame(&[&[DONE], &seq.to_le_bytes(), &[0; 8], &[9]]));
        }
        Lie::Mark(count) => wire.send(&(1 << 63 | count).to_le_bytes()),
        Lie::Spans { many, are_closed } => {
            for number in 0..many {
                wire.send(&span(number));
                if are_closed && number > 0 {
                    wire.send(&close(number - 1));
                }
            }
            wire.send(&close(many - 1));
            wire.send(&frame(&[&[DONE], &seq.to_le_bytes(), &[0; 8], &[9]]));
        }
    }
    // Its sender knows nothing of what has gone: this process is of no more use.
    take_time(Duration::from_millis(300));
    std::process::abort()
}

/// A message that a worker sends without end.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Flood {
    /// Records of the `log` facade, by its macros.
    Log,
    /// The same, past the macros.
    Records,
    /// Records, large ones.
    LargeLog,
    Notes,
    Progress,
    Panics,
    Spans,
    /// Frames without anything in them.
    Empty,
    /// By the ring: that nothing was sent aside. By the socket they are nonsense.
    Marks,
    /// One frame.
    Frame,
}

#[worker]
fn flood(with: Flood) -> u64 {
    let wire = Wire::open();
    let seq = wire.seq();
    let piece = match with {
        Flood::Log => loop {
            log::info!("and another");
        },
        Flood::LargeLog => {
            let words = "w".repeat(1 << 20);
            loop {
                log::info!("{words}");
            }
        }
        Flood::Records => record("and another").repeat(1000),
        Flood::Notes => note(0, &[1, 1, 1]).repeat(1000),
        Flood::Progress => progress(seq, 0.5).repeat(1000),
        // No file, line, column or backtrace.
        Flood::Panics => {
            frame(&[&[NOTICE, PANIC], &varint(seq.into()), &words("again"), &[0; 4]]).repeat(1000)
        }
        Flood::Spans => {
            for number in 0.. {
                wire.send(&span(number));
            }
            return 0;
        }
        Flood::Empty => loop {
            wire.send_aside(&[0; 8 << 10]);
        },
        Flood::Marks => (1u64 << 63).to_le_bytes().repeat(1000),
        Flood::Frame => {
            wire.send(&prefix(13, 1 << 44));
            // Each byte that is sent takes one of the host's.
            for _ in 0..64 {
                wire.send(&[DONE; 1 << 20]);
            }
            take_time(Duration::from_secs(60));
            return 0;
        }
    };
    loop {
        wire.send(&piece);
    }
}

#[worker]
fn echo(n: u64) -> u64 {
    n
}

/// An outcome of any kind arrives in time.
#[track_caller]
fn settle<T: serde::de::DeserializeOwned + 'static>(
    what: &dyn std::fmt::Debug,
    mut handle: procession::Handle<T>,
) -> Result<T, TaskError> {
    match handle.join_timeout(Duration::from_secs(20)) {
        Some(outcome) => outcome,
        None => panic!("{what:?}: a task has no outcome"),
    }
}

/// A number of this process's status, in KiB.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is there");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of that name");
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Others have their results, right and in time.
#[track_caller]
fn others_are_served(what: &dyn std::fmt::Debug, pool: &Pool) {
    for n in 0..20 {
        assert_eq!(settle(what, pool.submit(delayed!(echo(n)))).ok(), Some(n), "{what:?}");
    }
    let echoes = pool.map((0..500).map(|n| delayed!(echo(n))));
    assert_eq!(echoes.unwrap_or_else(|error| panic!("{what:?}: {error}")), (0..500).collect::<Vec<_>>());
}

fn check_lie(lie: Lie) {
    let pool = Pool::builder().jobs(2).task_timeout(Duration::from_secs(2)).build().unwrap();
    others_are_served(&lie, &pool);
    let before = (status("VmSize"), status("VmRSS"));
    let liar = pool.submit(delayed!(tell(lie)));
    others_are_served(&lie, &pool);
    let outcome = settle(&lie, liar);
    if let Ok(value) = outcome {
        assert_eq!(value, 9, "{lie:?}");
    }
    others_are_served(&lie, &pool);
    let grown = status("VmSize").saturating_sub(before.0) >> 10;
    assert!(grown < 200, "{lie:?}: {grown} MiB of addresses");
    let grown = status("VmRSS").saturating_sub(before.1) >> 10;
    assert!(grown < 100, "{lie:?}: {grown} MiB of memory");
    let stats = pool.stats();
    assert!(stats.total().tasks() > 1000 && !stats.to_string().is_empty(), "{lie:?}");
}

#[test]
fn a_forged_length_reserves_no_more_than_has_arrived() {
    alone(|| {
        // A thread that notes the largest size of the address space, because reserved memory is released with the worker.
        let before = status("VmPeak");
        for (head_len, len) in [(13, 1 << 30), (13, 1 << 40), (0, 1 << 47), (255, (1 << 48) - 1)] {
            check_lie(Lie::Length { head_len, len });
        }
        let grown = (status("VmPeak") - before) >> 10;
        assert!(grown < 300, "{grown} MiB of addresses at the worst");
    });
}

#[test]
fn a_forged_count_of_elements_reserves_no_more_than_has_arrived() {
    alone(|| {
        let before = status("VmPeak");
        for many in [1 << 20, u64::from(u32::MAX), 1 << 40, u64::MAX] {
            check_lie(Lie::Elements(many));
        }
        let grown = (status("VmPeak") - before) >> 10;
        assert!(grown < 300, "{grown} MiB of addresses at the worst");
    });
}

/// Claims that its result has this many elements.
#[worker]
fn miscount(many: u64) -> Vec<()> {
    let wire = Wire::open();
    wire.send(&frame(&[&[DONE], &wire.seq().to_le_bytes(), &[0; 8], &varint(many)]));
    take_time(Duration::from_millis(300));
    std::process::abort()
}

#[worker]
fn units(many: usize) -> Vec<()> {
    vec![(); many]
}

#[worker]
fn pairs(many: usize) -> Vec<(Vec<()>, ())> {
    vec![(vec![(); 10], ()); many]
}

#[test]
fn a_forged_count_of_elements_that_take_no_bytes_is_an_error_at_once() {
    alone(|| {
        let pool = Pool::builder().jobs(2).task_timeout(Duration::from_secs(20)).build().unwrap();
        for many in [1 << 21, 1 << 40, 1 << 60, u64::MAX] {
            let error = settle(&many, pool.submit(delayed!(miscount(many)))).unwrap_err();
            let words = error.to_string();
            assert!(error.is_codec() && words.contains("more than it has bytes"), "{many}: {words}");
            others_are_served(&many, &pool);
        }
        // A truthful result is accepted.
        for many in [0, 1, 1000, 1 << 20] {
            let outcome = settle(&many, pool.submit(delayed!(units(many))));
            assert_eq!(outcome.map(|units| units.len()).ok(), Some(many));
        }
        let outcome = settle(&"pairs", pool.submit(delayed!(pairs(50_000))));
        assert_eq!(outcome.map(|pairs| pairs.len()).ok(), Some(50_000));
        // One that is too large is an error of its own task.
        let error = settle(&"too many", pool.submit(delayed!(units((1 << 20) + 1)))).unwrap_err();
        assert!(error.is_codec() && error.to_string().contains("send their number instead"), "{error}");
        others_are_served(&"too many", &pool);
    });
}

#[test]
fn forged_times_spoil_no_statistics_and_no_schedule() {
    alone(|| [1 << 40, u64::MAX - 1, u64::MAX].into_iter().for_each(|nanos| check_lie(Lie::Time(nanos))));
}

#[test]
fn forged_progress_does_not_affect_other_workers() {
    alone(|| {
        for fraction in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 1e300] {
            check_lie(Lie::Progress(fraction));
        }
    });
}

#[test]
fn forged_marks_do_not_affect_other_workers() {
    alone(|| [1, u64::MAX >> 1].into_iter().for_each(|count| check_lie(Lie::Mark(count))));
}

#[test]
fn forged_segments_do_not_affect_other_workers() {
    alone(|| {
        for (messages, each, claim) in
            [(1, 1, 1), (1, 0, 1), (1, 2, 1), (1, 253, 253), (300, 253, 0), (1, 0, u64::from(u32::MAX))]
        {
            check_lie(Lie::Descriptors { messages, each, claim });
        }
    });
}

#[test]
fn spans_without_end_in_each_other_do_not_affect_other_workers() {
    alone(|| {
        tracing::subscriber::set_global_default(tracing_subscriber::registry()).unwrap();
        check_lie(Lie::Spans { many: 50_000, are_closed: true });
        check_lie(Lie::Spans { many: 70_000, are_closed: false });
    });
}

/// Counts records.
struct Counter(AtomicU64);

static COUNTER: Counter = Counter(AtomicU64::new(0));

impl Log for Counter {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if record.level() <= log::Level::Info {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

fn check_flood(with: Flood) {
    let pool = Pool::builder().jobs(2).build().unwrap();
    others_are_served(&with, &pool);
    let before = status("VmRSS");
    let endless = pool.submit(delayed!(flood(with)));
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        others_are_served(&with, &pool);
    }
    let grown = status("VmRSS").saturating_sub(before) >> 10;
    assert!(grown < 300, "{with:?}: {grown} MiB of memory");
    endless.cancel();
    assert!(settle(&with, endless).is_err(), "{with:?}");
    others_are_served(&with, &pool);
    drop(pool);
    // A limit holds, too, and so does the end of a pool.
    let pool = Pool::builder().jobs(2).task_timeout(Duration::from_millis(300)).build().unwrap();
    let limited = pool.submit(delayed!(flood(with)));
    let error = settle(&with, limited).unwrap_err();
    let is_nonsense = matches!(with, Flood::Marks | Flood::Empty) && error.is_lost();
    assert!(error.is_timeout() || is_nonsense, "{with:?}: {error}");
    let left = pool.submit(delayed!(flood(with)));
    until("the last flood is under way", || !left.is_finished());
    drop(pool);
    assert!(settle(&with, left).is_err(), "{with:?}");
}

#[test]
fn a_flood_of_records_does_not_starve_other_workers() {
    alone(|| {
        log::set_logger(&COUNTER).unwrap();
        log::set_max_level(LevelFilter::Info);
        check_flood(Flood::Log);
        assert!(COUNTER.0.load(Ordering::Relaxed) > 100, "they arrive");
        check_flood(Flood::Records);
        check_flood(Flood::LargeLog);
    });
}

#[test]
fn a_flood_of_notes_does_not_starve_other_workers() {
    alone(|| [Flood::Notes, Flood::Progress, Flood::Panics].into_iter().for_each(check_flood));
}

#[test]
fn a_flood_of_spans_does_not_starve_other_workers() {
    alone(|| {
        tracing::subscriber::set_global_default(tracing_subscriber::registry()).unwrap();
        check_flood(Flood::Spans);
    });
}

#[test]
fn a_flood_of_empty_and_invalid_frames_does_not_starve_other_workers() {
    alone(|| [Flood::Empty, Flood::Marks, Flood::Frame].into_iter().for_each(check_flood));
}
