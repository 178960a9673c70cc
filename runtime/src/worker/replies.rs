//! Makes the replies of the serving thread, sends them, times the tasks, and decides when the host is woken.
//!
//! Only `serve` uses it. No task may begin before the reply of the previous one has been published.

use std::time::{Duration, Instant};

use super::{
    host_link::{SENDER, WAITING, break_off, expect_whole, leave_if_cut, send},
    output,
};
use crate::{
    id::FunctionId,
    protocol::{Note, Notice, ReplyFrame, ReplyWire, RunFlags, RunTasks},
    sample,
    sys::{cpu::waits, process::monotonic_nanos, procfs::peak_rss_bytes},
    transport::{Body, FrameSender, Waiting},
};

/// The replies of the serving thread.
///
/// Each reply is published before the next task begins. The clock is read after several short tasks. The host is woken at
/// intervals, before a pause, and after a long task. A long task does not need to wake the host for the replies before it, because
/// a host that expects more looks by itself.
///
/// The host of patient tasks is woken for a failure, for much that it has not read, and in time for its next request: when half of the
/// last one is done.
pub(super) struct Replies {
    /// The reply that is being made.
    pub(super) reply: ReplyFrame,
    /// The time at which the clock was last read, and the number of tasks since.
    timed: Instant,
    untimed: u32,
    /// The number of tasks that are timed together.
    stride: u32,
    /// The time at which the host was last woken.
    rung: Instant,
    /// A thread waits for single replies, or there is a failure.
    pub(super) is_urgent: bool,
    /// The number of tasks that follow the one after which the host of patient tasks is woken, unless it has sent another request.
    middle: u32,
    /// No other request was received with this one.
    pub(super) is_last: bool,
    /// There is a reply for which the host has not been woken.
    due: bool,
    /// The size of those replies.
    due_bytes: usize,
    /// The number of tasks of the request, and how often this thread had slept before them, if the host wants to know.
    waits: Option<(u32, i64)>,
    /// Every task is timed individually.
    is_timed: bool,
    /// The task is the initializer.
    pub(super) is_initializer: bool,
    /// The time at which some tasks were last measured.
    sampled: Option<Instant>,
    /// The number of tasks that are still to be measured now.
    sample: Option<u32>,
    /// The result of the measurement: tasks, and nanoseconds for decoding and encoding.
    found: Option<(u64, u64)>,
    /// The host reads the output of tasks, and each task ends with a mark.
    pub(super) marks: bool,
}

/// The longest time for which results of short tasks are kept back if a thread waits for one of them. Waking the host for each takes about
/// 20 us of a core.
const HOLD: Duration = Duration::from_micros(50);

/// The same if no thread does. Requests arrive more often, so it matters only if their tasks take longer than the host expected.
const PATIENT_HOLD: Duration = Duration::from_millis(5);

/// The size of replies for which even a patient host is woken, long before it must be waited for: a part of a ring
/// (256 KiB, `transport/shm`).
const MOST_DUE_BYTES: usize = 64 << 10;

/// No task has as many behind it.
const NO_MIDDLE: u32 = u32::MAX;

/// The approximate duration of tasks that are timed together.
const STRIDE: Duration = Duration::from_micros(5);

/// The maximum number of tasks that are timed together.
const MOST_STRIDE: u32 = 64;

/// The interval at which some tasks are measured, and their number.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);

const SAMPLE_TASKS: u32 = 16;

impl Replies {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            reply: ReplyFrame::new(),
            marks: output::is_marked(),
            timed: now,
            untimed: 0,
            stride: 1,
            rung: now,
            is_urgent: true,
            middle: NO_MIDDLE,
            is_last: true,
            due: false,
            due_bytes: 0,
            waits: None,
            is_timed: false,
            is_initializer: false,
            sampled: None,
            sample: None,
            found: None,
        }
    }

    /// Begins a request of `tasks` tasks. The time until now was spent waiting.
    pub(super) fn begin(&mut self, flags: &RunFlags, tasks: u32) {
        self.is_timed = flags.levels.is_timed;
        if self.is_timed {
            self.stride = 1;
            // Read before the time at which the first task begins, so that the tasks of a timeline never overlap.
            send(&Notice::Note(Note::Begun { nanos: monotonic_nanos() }));
        }
        self.timed = Instant::now();
        if !self.due {
            self.rung = self.timed;
        }
        self.waits = flags.counts_waits.then(|| (tasks, waits()));
        self.is_initializer = flags.is_initializer;
        // A failure may not have been announced.
        self.is_urgent = !flags.is_patient || (self.is_urgent && self.due);
        self.middle = if flags.is_patient { tasks / 2 } else { NO_MIDDLE };
        if self.sampled.is_none_or(|at| self.timed - at >= SAMPLE_EVERY) {
            self.sampled = Some(self.timed);
            self.sample = Some(SAMPLE_TASKS);
            self.stride = 1;
            sample::start();
        }
    }

    /// Reports the time of the last tasks when the tasks that they were to be timed with were taken back.
    pub(super) fn report_rest(&mut self, task: u64, function: FunctionId) {
        let tasks = std::mem::take(&mut self.untimed);
        if tasks > 0 {
            let took = self.timed.elapsed();
            let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            self.stride = 1;
            send(&Notice::Note(Note::Late { nanos, tasks, task, function: function.0 }));
        }
    }

    /// Reports, if the host wants to know, how often the tasks of the request have waited.
    pub(super) fn report_waits(&mut self) {
        if let Some((tasks, before)) = self.waits.take() {
            let times = u32::try_from(waits() - before).unwrap_or(u32::MAX);
            send(&Notice::Note(Note::Waited { tasks, times }));
        }
    }

    /// Reports the measurement, if there was one.
    pub(super) fn report_sample(&mut self) {
        self.sample = None;
        if let Some((tasks, encoding)) = self.found.take() {
            let peak_rss_bytes = peak_rss_bytes(std::process::id()).unwrap_or(0);
            send(&Notice::Note(Note::Sample { tasks, encoding, peak_rss_bytes }));
        }
    }

    /// Adds a measured task that has ended.
    #[cold]
    fn add_measured(&mut self, left: u32, is_last: bool) {
        self.sample = Some(left - 1).filter(|_| left > 1 && !is_last);
        if self.sample.is_none() {
            let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            self.found = Some((u64::from(SAMPLE_TASKS - left + 1), nanos(sample::stop())));
        }
    }

    /// Wakes the host if there is a reply for it.
    pub(super) fn ring(&mut self, sender: &mut dyn FrameSender) {
        if std::mem::take(&mut self.due) {
            self.due_bytes = 0;
            self.rung = self.timed;
            sender.ring();
            leave_if_cut();
        }
    }

    /// Wakes the host if there is a reply for it, and nothing more to do.
    pub(super) fn ring_before_rest(&mut self) {
        if self.due && !has_arrivals() {
            SENDER.with_borrow_mut(|sender| sender.as_mut().map(|sender| self.ring(&mut **sender)));
        }
    }

    /// Sends the reply.
    #[inline]
    pub(super) fn post(&mut self, sender: &mut dyn FrameSender, tasks: &RunTasks<'_>) {
        self.untimed += 1;
        let mut rings = false;
        if self.untimed >= self.stride || !tasks.has_more() {
            let now = Instant::now();
            let took = now.saturating_duration_since(self.timed);
            self.reply.set_nanos(took.as_nanos().try_into().unwrap_or(u64::MAX).max(1));
            self.stride = match took < STRIDE {
                _ if self.is_timed || self.sample.is_some() => 1,
                true => (self.stride * 2).min(MOST_STRIDE),
                false => (self.stride / 4).max(1),
            };
            if let Some(sample) = self.sample {
                self.add_measured(sample, !tasks.has_more());
            }
            self.timed = now;
            self.untimed = 0;
            let hold = if self.is_urgent { HOLD } else { PATIENT_HOLD };
            rings = now.saturating_duration_since(self.rung) >= hold;
        }
        self.is_urgent |= self.reply.has_failed();
        self.due_bytes += self.reply.len_bytes();
        rings |= self.due_bytes >= MOST_DUE_BYTES
            || (tasks.left() == self.middle && self.is_last && !has_arrivals());
        // An error means that the host has gone, which the watching thread sees, too, and ends the process. Or the connection is
        // broken, and the host would wait for this reply forever.
        let sent = match self.reply.wire() {
            ReplyWire::Brief(head, body) => sender.send_brief(head, body),
            ReplyWire::Parts(head, [], body) => sender.send(&head, Body::Borrowed(body)),
            ReplyWire::Parts(head, more, body) => sender.send(&[&head, more].concat(), Body::Borrowed(body)),
        };
        if let Err(error) = sent {
            if error.kind() == std::io::ErrorKind::InvalidData {
                break_off(&format!("it could not reply: {error}"));
            }
            expect_whole();
        }
        self.due = true;
        if rings {
            self.ring(sender);
        }
        self.reply.shrink();
    }
}

/// Returns whether the host has sent more that was not received yet.
fn has_arrivals() -> bool {
    WAITING.get().is_some_and(Waiting::has_arrivals)
}
