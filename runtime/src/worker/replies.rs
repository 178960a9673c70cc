//! Replies that are ready and not sent yet.

use std::time::{Duration, Instant};

use super::{host_link::send, output, serve::break_off};
use crate::{
    id::FunctionId,
    protocol::{Note, ReplyFrame, ReplyWire, RunTasks, encode_reply},
    sample,
    sys::{process::monotonic_nanos, procfs::peak_rss_bytes},
    transport::{Body, FrameSender},
};

/// Replies on their way to the host.
///
/// Each is out before the next task begins. The clock is looked at after several short tasks, and the host is woken after a while,
/// before a pause, and after a long task: a long task itself keeps nothing back, for the host, which knows that more is to come,
/// looks by itself.
pub(super) struct Replies {
    /// The reply that is being made.
    pub(super) reply: ReplyFrame,
    /// When the clock was looked at last, and how many tasks ago.
    timed: Instant,
    untimed: u32,
    /// So many tasks are timed together.
    stride: u32,
    /// When the host was last woken.
    rung: Instant,
    /// There is a reply that it has not been woken for.
    due: bool,
    /// Every task is timed by itself.
    is_timed: bool,
    /// When some tasks were last looked at more closely.
    sampled: Option<Instant>,
    /// How many more tasks are looked at now.
    sample: Option<u32>,
    /// What was found: tasks, and nanoseconds for decoding and encoding.
    found: Option<(u64, u64)>,
    /// The host reads what tasks write, and each is to end in a mark.
    pub(super) marks: bool,
}

/// The host hears of replies no later than this while short tasks follow each other.
const HOLD: Duration = Duration::from_micros(50);

/// Tasks that are timed together take about so long.
const STRIDE: Duration = Duration::from_micros(5);

/// No more tasks are timed together.
const MOST_STRIDE: u32 = 64;

/// How often some tasks are looked at more closely, and how many.
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
            sampled: None,
            sample: None,
            found: None,
        }
    }

    /// Begins a request: the time until now was spent waiting.
    pub(super) fn begin(&mut self, is_timed: bool) {
        self.timed = Instant::now();
        self.rung = self.timed;
        self.is_timed = is_timed;
        if is_timed {
            self.stride = 1;
            send(&encode_reply(&Note::Begun { nanos: monotonic_nanos() }));
        }
        if self.sampled.is_none_or(|at| self.timed - at >= SAMPLE_EVERY) {
            self.sampled = Some(self.timed);
            self.sample = Some(SAMPLE_TASKS);
            self.stride = 1;
            sample::start();
        }
    }

    /// What was to follow was taken back: tells the time of those that were to be timed with it.
    pub(super) fn tell_of_rest(&mut self, task: u64, function: FunctionId) {
        let tasks = std::mem::take(&mut self.untimed);
        if tasks > 0 {
            let took = self.timed.elapsed();
            let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            self.stride = 1;
            send(&encode_reply(&Note::Late { nanos, tasks, task, function: function.0 }));
        }
    }

    /// Tells what the closer look has found, if there was one.
    pub(super) fn tell_of_sample(&mut self) {
        self.sample = None;
        if let Some((tasks, encoding)) = self.found.take() {
            let peak_rss_bytes = peak_rss_bytes(std::process::id()).unwrap_or(0);
            send(&encode_reply(&Note::Sample { tasks, encoding, peak_rss_bytes }));
        }
    }

    /// One of the tasks that are looked at has ended.
    #[cold]
    fn look_on(&mut self, left: u32, is_last: bool) {
        self.sample = Some(left - 1).filter(|_| left > 1 && !is_last);
        if self.sample.is_none() {
            let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            self.found = Some((u64::from(SAMPLE_TASKS - left + 1), nanos(sample::stop())));
        }
    }

    /// Wakes the host if there is something for it.
    pub(super) fn ring(&mut self, sender: &mut dyn FrameSender) {
        if std::mem::take(&mut self.due) {
            sender.ring();
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
                self.look_on(sample, !tasks.has_more());
            }
            self.timed = now;
            self.untimed = 0;
            rings = now.saturating_duration_since(self.rung) >= HOLD;
            if rings {
                self.rung = now;
            }
        }
        // An error means that the host has gone; the watching thread sees that, too, and ends the process. Or that the way to it is
        // broken: without this reply it would wait for ever.
        let sent = match self.reply.wire() {
            ReplyWire::Brief(head, body) => sender.send_brief(head, body),
            ReplyWire::Parts(head, [], body) => sender.send(&head, Body::Borrowed(body)),
            ReplyWire::Parts(head, more, body) => sender.send(&[&head, more].concat(), Body::Borrowed(body)),
        };
        if let Err(error) = sent
            && error.kind() == std::io::ErrorKind::InvalidData
        {
            break_off(&format!("it could not answer: {error}"));
        }
        self.due = true;
        if rings {
            self.ring(sender);
        }
        self.reply.shrink();
    }
}
