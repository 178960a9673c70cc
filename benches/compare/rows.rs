//! The rows of the table, and the measurements that their figures come from.

use crate::{
    channels, machine, ours, process_pool, threads,
    timing::{Outcome, Size},
};

/// A measurement's name, and how it is done.
type Measurement = (&'static str, fn(&Size) -> Outcome);

/// The measurements of Rust. Those of Python are in `peers.py`, and are called `python.NAME` here.
pub(crate) const MEASUREMENTS: &[Measurement] = &[
    ("ours.map", ours::map),
    ("ours.imap", ours::imap),
    ("ours.parallel", ours::parallel),
    ("ours.imap_single", ours::imap_single),
    ("ours.submit", ours::submit),
    ("ours.latency", ours::latency),
    ("ours.rested", ours::rested),
    ("ours.start_small", ours::start_small),
    ("ours.start_large", ours::start_large),
    ("ours.further_spawn", ours::further_spawn),
    ("ours.further_fork_server", ours::further_fork_server),
    ("ours.large", ours::large),
    ("ours.two", ours::two),
    ("ours.flat", ours::flat),
    ("ours.rest", ours::rest),
    ("ours.crowd_no_op", ours::crowd_no_op),
    ("ours.crowd_short", ours::crowd_short),
    ("rayon.par_iter", threads::par_iter),
    ("rayon.spawn", threads::spawn),
    ("rayon.install", threads::install),
    ("rayon.start", threads::start),
    ("rayon.two", threads::two),
    ("std.channels", threads::channels),
    ("procspawn.calls", process_pool::calls),
    ("procspawn.latency", process_pool::latency),
    ("procspawn.start", process_pool::start),
    ("procspawn.large", process_pool::large),
    ("procspawn.two", process_pool::two),
    ("procspawn.rest", process_pool::rest),
    ("ipc_channel.numbers", channels::numbers),
    ("ipc_channel.large", channels::large),
    ("machine.ping", machine::ping),
    ("machine.spinning", machine::spinning),
    ("machine.copy", machine::copy),
    ("machine.encoding", machine::encoding),
    ("machine.two", machine::two),
];

/// Measurements that are too long for more than one round; they compare their own end with their own start.
pub(crate) const ONCE: &[&str] = &["ours.flat"];

/// The unit of a row's figures.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    TasksPerSecond,
    BytesPerSecond,
    Seconds,
    Bytes,
    /// A ratio: how many times as fast.
    Times,
}

/// A requirement for procession's own figure, or for its ratio to another.
#[derive(Clone, Copy)]
pub(crate) enum Asked {
    Nothing,
    AtLeast(f64),
    AtMost(f64),
    /// A ratio would say nothing.
    NoRatio,
}
use Asked::{AtLeast, AtMost, NoRatio, Nothing};

/// One figure in a row.
pub(crate) struct Line {
    pub(crate) who: &'static str,
    /// `measurement/figure`.
    pub(crate) figure: &'static str,
    pub(crate) asked: Asked,
}

/// One thing that is measured: procession's figure, then those it is compared with.
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) unit: Unit,
    pub(crate) ours: Line,
    pub(crate) others: Vec<Line>,
}

impl Row {
    fn lines(&self) -> impl Iterator<Item = &Line> {
        std::iter::once(&self.ours).chain(&self.others)
    }

    /// The measurements that it needs.
    pub(crate) fn measurements(&self) -> impl Iterator<Item = &'static str> {
        self.lines().filter_map(|line| line.figure.split('/').next())
    }

    /// A word of the row's own, or of its measurements' names.
    pub(crate) fn mentions(&self, word: &str) -> bool {
        self.what.contains(word) || self.measurements().any(|name| name.contains(word))
    }
}

/// A row, from procession's figure and the others'.
fn row<const N: usize>(
    what: &'static str,
    unit: Unit,
    (who, figure, asked): (&'static str, &'static str, Asked),
    others: [(&'static str, &'static str, Asked); N],
) -> Row {
    let others = others.map(|(who, figure, asked)| Line { who, figure, asked });
    Row { what, unit, ours: Line { who, figure, asked }, others: Vec::from(others) }
}

/// The figures that many rows are compared with.
const POOL_MAP: (&str, &str) = ("Python `Pool.map`, a range", "python.pool_map/rate");
const JOBLIB: (&str, &str) = ("Python joblib, loky", "python.joblib/rate");
const PROCSPAWN: (&str, &str) = ("procspawn, 1,000 outstanding at a time", "procspawn.calls/rate");
const PAR_ITER: (&str, &str) = ("rayon `par_iter` (threads)", "rayon.par_iter/rate");
const CHANNELS: (&str, &str) = ("`std::thread` with channels (threads)", "std.channels/rate");
const IPC: (&str, &str) = ("ipc-channel, a message each way", "ipc_channel.numbers/rate");

fn ask((who, figure): (&'static str, &'static str), asked: Asked) -> (&'static str, &'static str, Asked) {
    (who, figure, asked)
}

/// The table.
pub(crate) fn all() -> Vec<Row> {
    let mut rows = throughput();
    rows.extend(calls());
    rows.extend(starts());
    rows.extend(large());
    rows.extend(long_run());
    rows.extend(crowds());
    rows
}

fn throughput() -> Vec<Row> {
    let rate = Unit::TasksPerSecond;
    vec![
        row(
            "`map` of a no-op `u64 -> u64`, automatic batches, 2 workers",
            rate,
            ("procession `Pool::map`", "ours.map/rate", AtLeast(25e6)),
            [
                ask(POOL_MAP, AtLeast(3.0)),
                ask(JOBLIB, AtLeast(40.0)),
                ask(PROCSPAWN, AtLeast(1000.0)),
                ("Python `ProcessPoolExecutor.map`, chunksize 10,000", "python.futures_map/rate", Nothing),
                ("Python mpire `WorkerPool.map`", "python.mpire_map/rate", Nothing),
                ask(PAR_ITER, Nothing),
                (
                    "machine: argument and result through postcard, one thread",
                    "machine.encoding/rate",
                    Nothing,
                ),
            ],
        ),
        row(
            "`imap` of the same",
            rate,
            ("procession `Pool::imap`", "ours.imap/rate", AtLeast(25e6)),
            [
                ask(POOL_MAP, AtLeast(3.0)),
                ask(JOBLIB, AtLeast(40.0)),
                ask(PROCSPAWN, AtLeast(1000.0)),
                ("Python `Pool.imap`, chunksize 10,000", "python.pool_imap/rate", Nothing),
                ("Python mpire `WorkerPool.imap`", "python.mpire_imap/rate", Nothing),
            ],
        ),
        row(
            "`parallel!` of the same",
            rate,
            ("procession `parallel!`", "ours.parallel/rate", AtLeast(25e6)),
            [
                ask(POOL_MAP, AtLeast(3.0)),
                ask(JOBLIB, AtLeast(40.0)),
                ask(PROCSPAWN, AtLeast(1000.0)),
                ask(PAR_ITER, Nothing),
            ],
        ),
        row(
            "`imap` of the same, each task by itself",
            rate,
            ("procession `imap`, `chunk_size(1)`", "ours.imap_single/rate", Nothing),
            [
                ("Python `Pool.imap`, chunksize 1", "python.pool_imap_single/rate", Nothing),
                ("Python `ProcessPoolExecutor.map`, chunksize 1", "python.futures_map_single/rate", Nothing),
                ask(IPC, Nothing),
                ask(CHANNELS, Nothing),
            ],
        ),
        row(
            "500,000 `submit`s, then their `join`s, 2 workers",
            rate,
            ("procession `submit`, `join`", "ours.submit/rate", Nothing),
            [
                ("rayon `spawn` with a channel (threads)", "rayon.spawn/rate", AtLeast(0.5)),
                ask(CHANNELS, Nothing),
                ask(IPC, Nothing),
                ("Python `Pool.apply_async`, `get`", "python.pool_calls/rate", Nothing),
                ("Python `ProcessPoolExecutor.submit`, `result`", "python.futures_calls/rate", Nothing),
                ask(PROCSPAWN, Nothing),
            ],
        ),
    ]
}

fn calls() -> Vec<Row> {
    vec![
        row(
            "`submit().join()`, hot, 1 worker",
            Unit::Seconds,
            ("procession", "ours.latency/one", AtMost(2e-6)),
            [
                ("procspawn", "procspawn.latency/hot", AtMost(1.0 / 30.0)),
                ("procession, 2 workers", "ours.latency/two", Nothing),
                ("Python `Pool.apply`", "python.pool_latency/hot", Nothing),
                ("Python `ProcessPoolExecutor.submit`, `result`", "python.futures_latency/hot", Nothing),
                ("Python mpire `apply`", "python.mpire_latency/hot", Nothing),
                ("ipc-channel", "ipc_channel.numbers/hot", Nothing),
                ("rayon `install` (threads)", "rayon.install/hot", Nothing),
                ("`std::thread` with channels (threads)", "std.channels/hot", Nothing),
                ("machine: two processes that spin", "machine.spinning/futex", Nothing),
                ("machine: futex, both sleep", "machine.ping/futex", Nothing),
                ("machine: socket", "machine.ping/socket", Nothing),
                ("machine: pipe (`cat`)", "machine.ping/pipe", Nothing),
            ],
        ),
        row(
            "The same after 10 ms of rest",
            Unit::Seconds,
            ("procession", "ours.rested/call", Nothing),
            [
                ("machine: futex, both sleep, in turn with ours", "ours.rested/futex", AtMost(1.2)),
                ("machine: futex, both sleep, alone", "machine.ping/futex_rested", Nothing),
                ("machine: socket", "machine.ping/socket_rested", Nothing),
                ("procspawn", "procspawn.latency/rested", Nothing),
                ("Python `Pool.apply`", "python.pool_latency/rested", Nothing),
                ("Python `ProcessPoolExecutor.submit`, `result`", "python.futures_latency/rested", Nothing),
                ("Python mpire `apply`", "python.mpire_latency/rested", Nothing),
                ("ipc-channel", "ipc_channel.numbers/rested", Nothing),
                ("rayon `install` (threads)", "rayon.install/rested", Nothing),
                ("`std::thread` with channels (threads)", "std.channels/rested", Nothing),
            ],
        ),
    ]
}

fn starts() -> Vec<Row> {
    vec![
        row(
            "From no pool to its first result, `Spawn`",
            Unit::Seconds,
            ("procession", "ours.start_small/first", Nothing),
            [
                ("machine: posix_spawn of the same, to its first byte", "ours.start_small/bare", AtMost(1.4)),
                ("procspawn", "procspawn.start/small", Nothing),
                ("Python `Pool`, forked", "python.pool_start/fork", Nothing),
                ("Python `Pool`, spawned", "python.pool_start/spawn", Nothing),
                ("Python `ProcessPoolExecutor`, forked", "python.futures_start/fork", Nothing),
                ("rayon (threads)", "rayon.start/small", Nothing),
            ],
        ),
        row(
            "The same, with 4 GiB in the parent",
            Unit::Seconds,
            ("procession", "ours.start_large/first", Nothing),
            [
                ("machine: posix_spawn of the same, to its first byte", "ours.start_large/bare", AtMost(1.4)),
                ("procspawn", "procspawn.start/large", Nothing),
                ("Python `Pool`, forked", "python.pool_start_large/fork", Nothing),
            ],
        ),
        row(
            "A further worker of a running pool, `Spawn`, to its first result",
            Unit::Seconds,
            ("procession", "ours.further_spawn/first", Nothing),
            [("machine: posix_spawn of the same, to its first byte", "ours.start_small/bare", Nothing)],
        ),
        row(
            "A further worker of a running pool, `ForkServer`, to its first result",
            Unit::Seconds,
            ("procession", "ours.further_fork_server/first", AtMost(0.25e-3)),
            [
                ("procession, `Spawn`", "ours.further_spawn/first", Nothing),
                ("machine: posix_spawn of the same, to its first byte", "ours.start_small/bare", Nothing),
            ],
        ),
    ]
}

fn large() -> Vec<Row> {
    vec![
        row(
            "64 MiB lent as `&[u8]`",
            Unit::BytesPerSecond,
            ("procession", "ours.large/lent", AtLeast(4e9)),
            [
                ("Python `Pool.apply`, bytes", "python.pool_large/there", Nothing),
                ("Python `ProcessPoolExecutor.submit`, bytes", "python.futures_large/there", Nothing),
                ("procspawn, `Vec<u8>`", "procspawn.large/there", Nothing),
                ("ipc-channel, `IpcSharedMemory`", "ipc_channel.large/there", Nothing),
                ("machine: memcpy to memory that was touched", "machine.copy/warm", Nothing),
                ("machine: memcpy to fresh memory", "machine.copy/fresh", Nothing),
            ],
        ),
        row(
            "64 MiB echoed as `Vec<u8>` (counted once)",
            Unit::BytesPerSecond,
            ("procession", "ours.large/echoed", AtLeast(2e9)),
            [
                ("Python `Pool.apply`, bytes", "python.pool_large/echoed", Nothing),
                ("Python `ProcessPoolExecutor.submit`, bytes", "python.futures_large/echoed", Nothing),
                ("procspawn, `Vec<u8>`", "procspawn.large/echoed", Nothing),
                ("ipc-channel, bytes", "ipc_channel.large/echoed", Nothing),
            ],
        ),
    ]
}

fn long_run() -> Vec<Row> {
    vec![
        row(
            "Two workers against one, CPU-bound",
            Unit::Times,
            ("procession", "ours.two/gain", AtLeast(1.95)),
            [
                ("machine: two threads that share nothing", "machine.two/gain", Nothing),
                ("procspawn", "procspawn.two/gain", Nothing),
                ("Python `Pool.map`", "python.pool_two/gain", Nothing),
                ("Python joblib, loky", "python.joblib_two/gain", Nothing),
                ("rayon `par_iter` (threads)", "rayon.two/gain", Nothing),
            ],
        ),
        row(
            "10^8 tasks through `imap`: throughput of the last tenth",
            Unit::TasksPerSecond,
            ("procession", "ours.flat/last_rate", Nothing),
            [("procession, the first tenth", "ours.flat/first_rate", AtLeast(0.95))],
        ),
        row(
            "10^8 tasks through `imap`: growth of resident memory, host and workers, after the first tenth",
            Unit::Bytes,
            ("procession", "ours.flat/growth", AtMost(1_048_576.0)),
            [("all of it, at the end", "ours.flat/last_size", NoRatio)],
        ),
        row(
            "A worker at rest, resident, with the memory shared with its host",
            Unit::Bytes,
            ("procession", "ours.rest/resident", AtMost(3.0 * 1_048_576.0)),
            [
                ("of which anonymous", "ours.rest/anonymous", NoRatio),
                ("procspawn", "procspawn.rest/resident", Nothing),
                ("Python `Pool`, forked", "python.pool_rest/resident", Nothing),
                ("Python joblib, loky", "python.joblib_rest/resident", Nothing),
            ],
        ),
    ]
}

/// A pool of many workers is not to collapse: at least half of what it does with as many workers as cores.
fn crowds() -> Vec<Row> {
    let no_op = |what, figure| {
        let on_two = ("procession, 2 workers", "ours.crowd_no_op/2", AtLeast(0.5));
        row(what, Unit::TasksPerSecond, ("procession", figure, Nothing), [on_two])
    };
    let short = |what, figure| {
        let on_two = ("procession, 2 workers", "ours.crowd_short/2", AtLeast(0.5));
        row(what, Unit::TasksPerSecond, ("procession", figure, Nothing), [on_two])
    };
    vec![
        no_op("`map` of a no-op, 4 workers", "ours.crowd_no_op/4"),
        no_op("`map` of a no-op, 8 workers", "ours.crowd_no_op/8"),
        no_op("`map` of a no-op, 32 workers", "ours.crowd_no_op/32"),
        no_op("`map` of a no-op, 200 workers", "ours.crowd_no_op/200"),
        short("`map` of tasks of 10 µs, 4 workers", "ours.crowd_short/4"),
        short("`map` of tasks of 10 µs, 8 workers", "ours.crowd_short/8"),
        short("`map` of tasks of 10 µs, 32 workers", "ours.crowd_short/32"),
        short("`map` of tasks of 10 µs, 200 workers", "ours.crowd_short/200"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_its_measurement() {
        for name in all().iter().flat_map(Row::measurements).filter(|name| !name.starts_with("python.")) {
            assert!(MEASUREMENTS.iter().any(|(known, _)| *known == name), "{name}");
        }
    }

    #[test]
    fn every_measurement_is_shown() {
        let rows = all();
        for (name, _) in MEASUREMENTS {
            assert!(rows.iter().flat_map(Row::measurements).any(|used| used == *name), "{name}");
        }
    }
}
