//! The feed of a call: tasks that its caller has pushed and that are not queued yet.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::{
    batch::{LaneId, Parcel, Recipient},
    inbox::Inbox,
};
use crate::{
    codec::HERE_BYTES,
    id::FunctionId,
    protocol::{RECORD_HEAD_BYTES, Records},
    ring::{self, Consumer, Heap, Producer},
};

/// The room for tasks of a call that the caller has not queued yet.
const FEED_BYTES: usize = 32 << 10;

/// The caller's end of the tasks of a call that it has not queued yet, to queue many at a time. The scheduler takes them when the
/// call's queue has run dry and a worker is idle, so that a producer that blocks holds nothing back.
#[derive(Debug)]
pub(crate) struct Feeder {
    records: Producer<Heap>,
    added: u64,
    shared: Arc<FeedState>,
}

/// What the two ends tell each other besides the tasks.
#[derive(Debug)]
pub(super) struct FeedState {
    /// A worker is idle and found nothing: what is pushed is to be queued at once.
    pub(super) wanted: AtomicBool,
    /// The index of the next task that the scheduler will take.
    next: AtomicU64,
}

/// The scheduler's end.
pub(crate) struct Feed {
    records: Consumer<Heap>,
    /// How many tasks were taken from it.
    taken: u64,
    pub(super) shared: Arc<FeedState>,
    to: Arc<Inbox>,
    retries: u32,
}

/// Tasks with larger arguments are queued one by one.
pub(crate) const MOST_FED_BYTES: usize = 2 << 10;

impl Feeder {
    /// The two ends for a call.
    pub(crate) fn new(to: Arc<Inbox>, retries: u32) -> (Self, Feed) {
        let (producer, consumer) = ring::pair(FEED_BYTES);
        // The first task goes at once.
        let shared = Arc::new(FeedState { wanted: AtomicBool::new(true), next: AtomicU64::new(0) });
        let feed = Feed { records: consumer, taken: 0, shared: shared.clone(), to, retries };
        (Self { records: producer, added: 0, shared }, feed)
    }

    /// Adds a task; `false`: there is no room.
    #[inline]
    pub(crate) fn push(&mut self, function: FunctionId, args: &[u8]) -> bool {
        let head = crate::protocol::record_head(function, args.len());
        let fits = self.records.fits(head.len() + args.len()) == Ok(true);
        let added = fits && self.records.write(&[&head, args]).is_ok();
        self.added += u64::from(added);
        added
    }

    /// As [`push`](Self::push), for arguments that are the first `len` of these bytes; `false`: there is no room that can be seen, or
    /// not in one piece, or they are more than eight.
    #[inline(always)]
    pub(crate) fn push_few(&mut self, function: FunctionId, bytes: &[u8; HERE_BYTES], len: usize) -> bool {
        let [a, b, c, d, e, f, g, h, ..] = *bytes;
        let head = u64::from_le_bytes(crate::protocol::record_head(function, len));
        let padded = u128::from(head) | u128::from(u64::from_le_bytes([a, b, c, d, e, f, g, h])) << 64;
        let added = len <= 8 && self.records.write_padded(&padded.to_le_bytes(), RECORD_HEAD_BYTES + len);
        self.added += u64::from(added);
        added
    }

    /// How many tasks were added.
    pub(crate) fn added(&self) -> u64 {
        self.added
    }

    /// A worker is idle and found nothing here: what is pushed is to be queued at once.
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.shared.wanted.load(Ordering::Relaxed)
    }

    /// The index of the next task that the scheduler will take.
    pub(crate) fn next(&self) -> u64 {
        // SYNC(feed-next): pairs with the Release in `Feed::take` and `Feed::skip`.
        self.shared.next.load(Ordering::Acquire)
    }
}

impl Feed {
    /// Takes what is there. `added`: how many tasks were added in all, if that is known and more are not being added.
    pub(super) fn take(&mut self, lane: LaneId, added: Option<u64>) -> Option<Parcel> {
        let mut bytes = Vec::new();
        let n = self.records.read(&mut bytes, FEED_BYTES).unwrap_or(0);
        if n == 0 {
            return None;
        }
        let records = match added {
            Some(added) => Records::from_counted(bytes, (added - self.taken) as u32),
            None => Records::from_bytes(bytes),
        };
        self.taken += u64::from(records.len());
        // SYNC(feed-next): pairs with the Acquire load in `Feeder::next`.
        let first = self.shared.next.fetch_add(u64::from(records.len()), Ordering::AcqRel);
        let to = Recipient::Call(self.to.clone());
        Some(Parcel { lane, first, records, to, attempts: 0, retries: self.retries })
    }

    /// The caller has queued a task apart: its number.
    pub(crate) fn skip(&mut self) -> u64 {
        self.shared.next.fetch_add(1, Ordering::AcqRel)
    }
}
