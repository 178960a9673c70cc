//! Makes the replies of the serving thread, sends them, times the tasks, and decides when the host is woken.
//!
//! Only `serve` uses it. No task may begin before the reply of the previous one has been published.

use std::time::{Duration, Instant};

use super::{
    host_link::{break_off, expect_whole, leave_if_cut, send},
    output,
};
use crate::{
    id::FunctionId,
    protocol::{Note, Notice, ReplyFrame, ReplyWire, RunTasks},
    sample,
    sys::{process::monotonic_nanos, procfs::peak_rss_bytes},
    transport::{Body, FrameSender},
};

/// The replies of the serving thread.
///
/// Each reply is published before the next task begins. The clock is read after several short tasks. The host is woken at
/// intervals, before a pause, and after a long task. A long task does not need to wake the host for the replies before it, because
/// a host that expects more looks by itself.
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
    /// There is a reply for which the host has not been woken.
    due: bool,
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

/// The longest time for which results of short tasks are kept back, so that the host is woken once for several.
const HOLD: Duration = Duration::from_micros(50);

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
            due: false,
            is_timed: false,
            is_initializer: false,
            sampled: None,
            sample: None,
            found: None,
        }
    }

    /// Begins a request. The time until now was spent waiting.
    pub(super) fn begin(&mut self, is_timed: bool, is_initializer: bool) {
        self.timed = Instant::now();
        self.rung = self.timed;
        self.is_timed = is_timed;
        self.is_initializer = is_initializer;
        if is_timed {
            self.stride = 1;
            send(&Notice::Note(Note::Begun { nanos: monotonic_nanos() }));
        }
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
            sender.ring();
            leave_if_cut();
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
            rings = now.saturating_duration_since(self.rung) >= HOLD;
            if rings {
                self.rung = now;
            }
        }
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
