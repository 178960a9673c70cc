//! The feed of a call: a ring of tasks that its caller has pushed and that are not queued yet.
//!
//! It has two ends. The call writes to its [`Feeder`] without a lock, and the scheduler, under the driver's lock, takes many
//! tasks from its [`Feed`] at once. No task may stay in a feed while a worker is idle.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::policy::FEED_BYTES;
use crate::{
    batch::{Batch, QueueId, Recipient, inbox::Inbox},
    codec::HERE_BYTES,
    id::FunctionId,
    protocol::{EncodedTasks, RECORD_HEAD_BYTES},
    ring::{self, Consumer, Heap, Producer},
    segment::Attachments,
};

/// The caller's end of a feed. The scheduler takes its tasks when the call's queue has run dry and a worker is idle, so that a
/// producer that blocks holds nothing back.
#[derive(Debug)]
pub(crate) struct Feeder {
    records: Producer<Heap>,
    shared: Arc<FeedState>,
}

/// The state that the two ends share besides the tasks.
#[derive(Debug)]
pub(super) struct FeedState {
    /// A worker is idle and the feed was empty, so the caller must queue the next task immediately.
    pub(super) wanted: AtomicBool,
    /// The index of the next task that the scheduler will take.
    next: AtomicU64,
}

/// The scheduler's end of a feed.
pub(crate) struct Feed {
    records: Consumer<Heap>,
    pub(super) shared: Arc<FeedState>,
    to: Arc<Inbox>,
    /// The segments that the arguments of any task may name.
    pub(super) attachments: Attachments,
}

impl Feeder {
    /// Creates the two ends of the feed of a call.
    pub(crate) fn new(to: Arc<Inbox>) -> (Self, Feed) {
        let (producer, consumer) = ring::pair(FEED_BYTES);
        // The first task must be queued immediately.
        let shared = Arc::new(FeedState { wanted: AtomicBool::new(true), next: AtomicU64::new(0) });
        let feed =
            Feed { records: consumer, shared: shared.clone(), to, attachments: Attachments::default() };
        (Self { records: producer, shared }, feed)
    }

    /// Adds a task, whose arguments come after a prefix. Returns `false` if there is no room.
    #[inline]
    pub(crate) fn push(&mut self, function: FunctionId, prefix: &[u8], args: &[u8]) -> bool {
        let head = crate::protocol::record_head(function, prefix.len() + args.len());
        let fits = self.records.fits(head.len() + prefix.len() + args.len()) == Ok(true);
        fits && self.records.write(&[&head, prefix, args]).is_ok()
    }

    /// Like [`push`](Self::push), for arguments that are the first `len` of these bytes. Returns `false` if there are more than
    /// eight, or if the producer does not know of enough contiguous room.
    #[inline(always)]
    pub(crate) fn push_few(&mut self, function: FunctionId, bytes: &[u8; HERE_BYTES], len: usize) -> bool {
        let [a, b, c, d, e, f, g, h, ..] = *bytes;
        let head = u64::from_le_bytes(crate::protocol::record_head(function, len));
        let padded = u128::from(head) | u128::from(u64::from_le_bytes([a, b, c, d, e, f, g, h])) << 64;
        len <= 8 && self.records.write_padded(&padded.to_le_bytes(), RECORD_HEAD_BYTES + len)
    }

    /// Returns whether a worker is idle and the feed was empty, so that the next task must be queued immediately.
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.shared.wanted.load(Ordering::Relaxed)
    }

    /// Returns the index of the next task that the scheduler will take.
    pub(crate) fn next(&self) -> u64 {
        // SYNC(feed-next): pairs with the Release in `Feed::take` and `Feed::skip`.
        self.shared.next.load(Ordering::Acquire)
    }
}

impl Feed {
    /// Takes what is there.
    pub(super) fn take(&mut self, queue: QueueId) -> Option<Batch> {
        let mut bytes = Vec::new();
        let n = self.records.read(&mut bytes, FEED_BYTES).unwrap_or(0);
        if n == 0 {
            return None;
        }
        let records = EncodedTasks::from_bytes(bytes).with_attachments(&self.attachments);
        // SYNC(feed-next): pairs with the Acquire load in `Feeder::next`.
        let first = self.shared.next.fetch_add(u64::from(records.len()), Ordering::AcqRel);
        let to = Recipient::Call(self.to.clone());
        Some(Batch { queue, first, records, to, attempts: 0 })
    }

    /// Reserves and returns the number of a task that the caller queues without the feed.
    pub(crate) fn skip(&mut self) -> u64 {
        self.shared.next.fetch_add(1, Ordering::AcqRel)
    }
}
