//! The segments that travel beside the bytes of a task: collected while handles are encoded, searched while they are decoded.

use std::{
    cell::{Cell, RefCell},
    fmt, io,
    os::fd::OwnedFd,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Loans, Segment, SegmentId, bury, given, known, loan::Loan};
use crate::{sync::ignore_poison, sys::per_process::PerProcess};

/// The segments that some bytes name, each once, and what is held while the bytes are on their way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attachments(Option<Arc<Attached>>);

#[derive(Clone, Debug, Default)]
struct Attached {
    segments: Vec<Arc<Segment>>,
    held: Vec<Arc<dyn Hold>>,
}

/// Something that is held in this process while bytes that name it are on their way. It may be dropped on any thread and under any locks.
pub(crate) trait Hold: Send + Sync + UnwindSafe + RefUnwindSafe + fmt::Debug {}

impl Attachments {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.0.iter().flat_map(|attached| attached.segments.iter())
    }

    /// Returns the one with this identity.
    pub(crate) fn get(&self, id: SegmentId) -> Option<&Arc<Segment>> {
        self.iter().find(|segment| segment.id() == id)
    }

    /// Returns how many there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |attached| attached.segments.len())
    }

    /// Returns whether all of `others` are among these. What is held for some bytes is not held for others.
    pub(crate) fn includes(&self, others: &Self) -> bool {
        let holds_nothing = others.0.as_ref().is_none_or(|others| others.held.is_empty());
        holds_nothing && others.iter().all(|segment| self.get(segment.id()).is_some())
    }

    /// Adds a segment, after those that its value contains handles of.
    pub(crate) fn add(&mut self, segment: &Arc<Segment>) {
        if self.get(segment.id()).is_none() {
            self.merge(segment.inner());
            Arc::make_mut(self.0.get_or_insert_default()).segments.push(segment.clone());
        }
    }

    /// Adds the segments of `others`.
    pub(crate) fn merge(&mut self, others: &Self) {
        match (&self.0, &others.0) {
            (_, None) => {}
            (None, Some(_)) => *self = others.clone(),
            (Some(mine), Some(theirs)) if Arc::ptr_eq(mine, theirs) => {}
            (Some(_), Some(theirs)) => {
                theirs.segments.iter().for_each(|segment| self.add(segment));
                if !theirs.held.is_empty() {
                    Arc::make_mut(self.0.get_or_insert_default()).held.extend_from_slice(&theirs.held);
                }
            }
        }
    }
}

/// Maps the segments that another process has sent beside some bytes. This process uses its own if it has them already.
///
/// # Errors
///
/// They are not segments, or cannot be mapped.
pub(crate) fn adopt_all(fds: Vec<OwnedFd>) -> io::Result<Attachments> {
    let mut adopted = Attachments::default();
    let mut fds = fds.into_iter();
    while let Some(fd) = fds.next() {
        // What a value contains handles of comes before it.
        let find = |id| adopted.get(id).cloned().or_else(|| known::get(id));
        let segment = Segment::adopt(fd, &mut fds, false, find);
        let (_, segment) = segment.ok_or(io::ErrorKind::InvalidData)?;
        adopted.add(&segment?);
    }
    Ok(adopted)
}

/// What becomes of handles that are encoded on this thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// This library does not encode.
    Closed,
    /// Their segments travel beside the bytes. `some` have been found.
    Attach { some: bool, to: To },
    /// Their contents are encoded instead.
    Inline,
}

/// The recipient of what is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// A task, to which is moved what one process at a time may have.
    Task,
    /// The caller of a task, to whom the same is moved.
    Caller,
    /// A process that receives a message or reads a managed value. It is given the contents of what a process can change.
    Reader,
    /// Any number of processes.
    Several,
}

/// What handles have named.
#[derive(Default)]
struct Found {
    attachments: Attachments,
    moved: Vec<Loan>,
}

impl Mode {
    #[inline]
    fn has_found(self) -> bool {
        matches!(self, Self::Attach { some: true, .. })
    }
}

thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::Closed) };
    /// What was found since the mode was last set.
    static FOUND: RefCell<Found> = const { RefCell::new(Found { attachments: Attachments(None), moved: Vec::new() }) };
    /// The bytes that are being encoded may outlive this process.
    static OUTLIVES: Cell<bool> = const { Cell::new(false) };
    /// Why a handle could not be encoded or decoded. postcard does not keep the words of its errors.
    static WHY: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Where decoders of this process look, the last one first.
    static AVAILABLE: RefCell<Vec<Attachments>> = const { RefCell::new(Vec::new()) };
}

/// Returns what becomes of a handle that is encoded now.
pub(crate) fn mode() -> Mode {
    MODE.get()
}

/// Encodes bytes that may outlive this process, so that what they name must not be held by it.
#[inline]
pub(crate) fn outliving<R>(encode: impl FnOnce() -> R) -> R {
    struct Back(bool);
    impl Drop for Back {
        #[inline]
        fn drop(&mut self) {
            OUTLIVES.set(self.0);
        }
    }
    let _back = Back(OUTLIVES.replace(true));
    encode()
}

/// Returns whether the bytes that are being encoded may outlive this process.
pub(crate) fn outlives() -> bool {
    OUTLIVES.get() || matches!(mode(), Mode::Attach { to: To::Caller, .. })
}

/// Notes why a handle cannot be encoded or decoded. Returns the words.
pub(crate) fn set_why(words: String) -> String {
    WHY.set(Some(words.clone()));
    words
}

/// Returns why a handle could not be encoded or decoded, once.
pub(crate) fn take_why() -> Option<String> {
    WHY.try_with(RefCell::take).ok().flatten()
}

/// Sets the mode, and sets it back on drop.
struct Within {
    before: Mode,
    /// What was found until now, if a value that is being encoded encodes others. It is rare, and this type is made for each argument and
    /// each result.
    found: Option<Box<Found>>,
}

impl Within {
    #[inline(always)]
    fn new(mode: Mode) -> Self {
        let before = MODE.replace(mode);
        Self { before, found: before.has_found().then(|| Box::new(FOUND.take())) }
    }
}

impl Drop for Within {
    #[inline(always)]
    fn drop(&mut self) {
        let ended = MODE.replace(self.before);
        if ended.has_found() || self.before.has_found() {
            // What a `Serialize` that panicked has left there belongs to nothing.
            drop(FOUND.replace(self.found.take().map_or_else(Found::default, |found| *found)));
        }
    }
}

/// Encodes what may contain handles. Their segments are added to `attachments`.
#[inline(always)]
pub(crate) fn attached_by<R>(attachments: &mut Attachments, encode: impl FnOnce() -> R) -> R {
    moved_by(To::Several, attachments, &mut Loans::default(), encode)
}

/// Encodes a message or a managed value. Its segments are added to `attachments`.
#[inline(always)]
pub(crate) fn read_by<R>(attachments: &mut Attachments, encode: impl FnOnce() -> R) -> R {
    moved_by(To::Reader, attachments, &mut Loans::default(), encode)
}

/// Encodes an argument or a result. Its segments are added to `attachments`, and what is moved with it to `loans`.
#[inline(always)]
pub(crate) fn moved_by<R>(
    to: To,
    attachments: &mut Attachments,
    loans: &mut Loans,
    encode: impl FnOnce() -> R,
) -> R {
    let _within = Within::new(Mode::Attach { some: false, to });
    let result = encode();
    if MODE.get().has_found() {
        take_found(attachments).into_iter().for_each(|loan| loans.add(loan));
    }
    result
}

#[cold]
fn take_found(attachments: &mut Attachments) -> Vec<Loan> {
    let found = FOUND.take();
    attachments.merge(&found.attachments);
    found.moved
}

/// Encodes a result that names too many segments.
#[inline(always)]
pub(crate) fn inlined<R>(encode: impl FnOnce() -> R) -> R {
    let _within = Within::new(Mode::Inline);
    encode()
}

/// Notes that a segment's identity was encoded.
pub(crate) fn attach(segment: &Arc<Segment>) {
    change_found(|found| found.attachments.add(segment));
}

/// Holds something until the bytes that are being encoded have been decoded elsewhere, or are dropped.
pub(crate) fn hold(held: Arc<dyn Hold>) {
    change_found(|found| Arc::make_mut(found.attachments.0.get_or_insert_default()).held.push(held));
}

/// Notes that the identity of a segment was encoded of which something is moved.
///
/// # Errors
///
/// What is being encoded may be decoded several times.
pub(super) fn attach_moved(segment: &Arc<Segment>, moved: Loan) -> Result<(), String> {
    if !matches!(MODE.get(), Mode::Attach { to: To::Task | To::Caller, .. }) {
        return Err(
            "one process at a time may have a `SharedSliceMut`, so it cannot be in what several share"
                .to_owned(),
        );
    }
    attach(segment);
    change_found(|found| found.moved.push(moved));
    Ok(())
}

fn change_found(change: impl FnOnce(&mut Found)) {
    if let Mode::Attach { to, .. } = MODE.get() {
        MODE.set(Mode::Attach { some: true, to });
        FOUND.with_borrow_mut(change);
    }
}

/// Decodes what may contain handles of these segments.
pub(crate) fn with_available<R>(attachments: &Attachments, decode: impl FnOnce() -> R) -> R {
    struct Pop;
    impl Drop for Pop {
        fn drop(&mut self) {
            let last = AVAILABLE.with_borrow_mut(Vec::pop);
            drop(last);
            bury();
        }
    }
    if attachments.is_empty() {
        return decode();
    }
    AVAILABLE.with_borrow_mut(|available| available.push(attachments.clone()));
    let _pop = Pop;
    decode()
}

/// Returns the segment with this identity: one that came with the bytes that are being decoded, or one that the host has given to this
/// process. Waits for one that is on its way.
///
/// # Errors
///
/// There is none.
pub(crate) fn look_up(id: SegmentId) -> Result<Arc<Segment>, String> {
    let here =
        AVAILABLE.with_borrow(|available| available.iter().rev().find_map(|these| these.get(id).cloned()));
    here.map_or_else(|| given::wait_for(id), Ok)
}

/// How many segments that other processes have were dropped in this process.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Those who tell other processes to forget segments.
static LISTENERS: PerProcess<Mutex<Vec<Weak<dyn Listen>>>> = PerProcess::new();

/// Told when a segment that another process has is dropped in this process, on any thread and under any locks.
pub(crate) trait Listen: Send + Sync {
    fn segment_dropped(&self);
}

/// Tells `listener` from now on, for as long as it lives.
pub(crate) fn listen(listener: Weak<dyn Listen>) {
    let mut listeners = ignore_poison(LISTENERS.get_or_init(Mutex::default).lock());
    listeners.retain(|listener| listener.strong_count() > 0);
    listeners.push(listener);
}

/// Returns whether another process may be given segments.
pub(super) fn is_heard() -> bool {
    let is_alive = |listener: &Weak<dyn Listen>| listener.strong_count() > 0;
    LISTENERS.get().is_some_and(|listeners| ignore_poison(listeners.lock()).iter().any(is_alive))
}

pub(super) fn note_dropped() {
    DROPPED.fetch_add(1, Ordering::Relaxed);
    let Some(listeners) = LISTENERS.get() else { return };
    let listeners: Vec<_> = ignore_poison(listeners.lock()).iter().filter_map(Weak::upgrade).collect();
    listeners.iter().for_each(|listener| listener.segment_dropped());
}

/// Returns a number that changes when a segment that another process has is dropped.
#[inline]
pub(crate) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}
