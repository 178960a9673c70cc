//! State: memory that several processes change at the same time, and the processes that take part.
//!
//! `locks` and `channel` keep their words in it. Whoever waits here finds out within 50 ms that a participant has died, and repairs
//! what it has left, if the process that reaped it has not done so already.
#![expect(unsafe_code, reason = "views of memory that other processes write")]

use std::{
    io,
    ops::{Deref, Range},
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::{Arc, OnceLock, atomic},
    time::{Duration, Instant},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use super::{
    DATA_AT, Mode, Segment, SegmentId, attach,
    header::HEADER_BYTES,
    look_up, mode, set_why,
    table::{ENTRIES, Entry, Table, Who},
};
use crate::{
    sync::{AtomicU32, AtomicU64, step},
    sys::{futex, generation::generation, memory::Mapping},
};

/// Where the participant table begins: in the header page, after the header.
const TABLE_AT: usize = 64;
const _: () = assert!(HEADER_BYTES <= TABLE_AT && TABLE_AT + 8 * ENTRIES <= DATA_AT);

/// How long a waiter may be unaware that a participant has died.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long a waiter sleeps if futexes are refused.
const NAP: Duration = Duration::from_millis(1);

/// Repairs what the process with this entry has left. No other thread repairs the same meanwhile, but participants go on. If the repairing process
/// dies, the repair is done again from the start.
///
/// It may run on any thread and under any lock.
pub(crate) type Repair = fn(&State, Entry);

/// Memory that several processes change, as this process sees it.
#[derive(Debug)]
pub(crate) struct State {
    mapping: Mapping,
    /// The generation of the process that has taken an entry, and the number of the entry. A copy of that process takes one of its own.
    mine: atomic::AtomicU64,
    repair: OnceLock<Repair>,
}

impl State {
    /// Maps state with this many bytes of data.
    ///
    /// # Errors
    ///
    /// It has another size, its size can be changed, or it cannot be mapped.
    pub(super) fn map(fd: BorrowedFd<'_>, len_bytes: usize) -> io::Result<Self> {
        let total = len_bytes.checked_add(DATA_AT).ok_or(io::ErrorKind::InvalidInput)?;
        let mapping = Mapping::new(fd, total)?;
        Ok(Self { mapping, mine: atomic::AtomicU64::new(0), repair: OnceLock::new() })
    }

    /// Returns the start of the data, aligned to a page. Others may write it at any time.
    #[inline]
    pub(crate) fn data(&self) -> NonNull<u8> {
        // SAFETY: `map` made the mapping at least this long.
        unsafe { self.mapping.base().add(DATA_AT) }
    }

    /// Returns the length of the data.
    #[inline]
    pub(crate) fn len_bytes(&self) -> usize {
        self.mapping.len_bytes() - DATA_AT
    }

    /// Returns the data as words.
    #[inline]
    pub(crate) fn words(&self) -> &[AtomicU32] {
        // SAFETY: the data has this length, is aligned to a page, and lives as long as `self`. Any bytes are valid atomics. What is not accessed
        // atomically lies where no code uses these words.
        unsafe { std::slice::from_raw_parts(self.data().cast().as_ptr(), self.len_bytes() / 4) }
    }

    /// Returns one of the words.
    ///
    /// # Panics
    ///
    /// There are not as many.
    #[inline]
    pub(crate) fn word(&self, index: usize) -> &AtomicU32 {
        &self.words_in(index..index + 1)[0]
    }

    /// Returns some of the words.
    ///
    /// # Panics
    ///
    /// There are not as many.
    #[inline]
    pub(crate) fn words_in(&self, range: Range<usize>) -> &[AtomicU32] {
        assert!(
            range.start <= range.end && range.end <= self.len_bytes() / 4,
            "the words lie within the data"
        );
        // SAFETY: the range begins within the data, as was just checked.
        let start = unsafe { self.data().cast::<AtomicU32>().add(range.start) };
        // SAFETY: as for `words`.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), range.len()) }
    }

    /// Returns the data as long words.
    #[inline]
    pub(crate) fn long_words(&self) -> &[AtomicU64] {
        // SAFETY: as for `words`.
        unsafe { std::slice::from_raw_parts(self.data().cast().as_ptr(), self.len_bytes() / 8) }
    }

    fn table(&self) -> Table<'_> {
        // SAFETY: the table lies in the mapping, which begins at a page and lives as long as `self`. Any bytes are valid atomics, and nothing
        // else accesses them.
        let start = unsafe { self.mapping.base().add(TABLE_AT) };
        // SAFETY: as above.
        Table(unsafe { std::slice::from_raw_parts(start.cast().as_ptr(), ENTRIES) })
    }

    /// Returns this process's entry, which was taken when the state was made or a handle of it was decoded. It is given back when the state is
    /// dropped.
    ///
    /// # Panics
    ///
    /// This process is a copy of the one that has taken it, and there is no free one.
    #[inline]
    pub(crate) fn my_entry(&self) -> Entry {
        let mine = self.mine.load(atomic::Ordering::Relaxed);
        match Entry::from_number(mine as u32) {
            Some(entry) if mine >> 32 == u64::from(generation()) => entry,
            _ => self.join(mine).unwrap_or_else(|why| panic!("{why}")),
        }
    }

    /// Takes an entry for this process if it has none and there may be something to repair. That is done by `repair`.
    fn attach(&self, repair: Option<Repair>) -> Result<(), String> {
        let Some(repair) = repair else { return Ok(()) };
        self.repair.get_or_init(|| repair);
        let mine = self.mine.load(atomic::Ordering::Relaxed);
        if mine >> 32 == u64::from(generation()) { Ok(()) } else { self.join(mine).map(|_| ()) }
    }

    #[cold]
    fn join(&self, before: u64) -> Result<Entry, String> {
        let full = || format!("at most {ENTRIES} processes can use the same lock or channel");
        let (table, me) = (self.table(), Who::me());
        let joined = table.join(me).or_else(|| {
            self.recover_those(|_| true);
            table.join(me)
        });
        let entry = joined.ok_or_else(full)?;
        step("attach: entered");
        let mine = u64::from(generation()) << 32 | u64::from(entry.number());
        let set =
            self.mine.compare_exchange(before, mine, atomic::Ordering::Relaxed, atomic::Ordering::Relaxed);
        if let Err(other) = set {
            // Another thread of this process was first. No word names this entry.
            table.free(entry);
            return Entry::from_number(other as u32).ok_or_else(full);
        }
        Ok(entry)
    }

    /// Returns whether an entry is that of this process.
    #[inline]
    pub(crate) fn is_mine(&self, entry: Entry) -> bool {
        let mine = u64::from(generation()) << 32 | u64::from(entry.number());
        self.mine.load(atomic::Ordering::Relaxed) == mine
    }

    /// Returns whether the process of an entry lives, or what it has left is being repaired by one that lives.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn is_live(&self, entry: Entry) -> bool {
        self.table().who(entry).is_some_and(|who| who == Who::me() || who.is_alive())
    }

    /// Repairs what the processes of these entries have left, those that have died.
    pub(crate) fn recover_those(&self, concerned: impl Fn(Entry) -> bool) {
        // A process that has not looked into the state cannot repair it. Others do, as soon as they wait.
        let Some(repair) = self.repair.get() else { return };
        let (table, me) = (self.table(), Who::me());
        for entry in Entry::all() {
            if table.who(entry).is_some() && concerned(entry) && table.take_over(entry, me, Who::is_alive) {
                self.repair(*repair, entry);
            }
        }
    }

    /// Repairs what a process has left that was reaped.
    pub(crate) fn recover(&self, pid: u32) {
        // Another process may have the number by now.
        self.recover_those(|entry| self.table().who(entry).is_some_and(|who| who.pid() == pid));
    }

    fn repair(&self, repair: Repair, entry: Entry) {
        step("recovery: begun");
        repair(self, entry);
        step("recovery: repaired");
        self.table().free(entry);
    }

    /// Waits until a word that had this value is woken, or until the deadline. Returns whether there is time left. Returns early sometimes.
    ///
    /// Every 50 ms, repairs what those of the `concerned` participants have left that have died.
    pub(crate) fn wait(
        &self,
        word: &AtomicU32,
        expected: u32,
        deadline: Option<Instant>,
        concerned: impl Fn(Entry) -> bool,
    ) -> bool {
        let left = deadline.map_or(LOOK_EVERY, |deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return false;
        }
        match futex::wait(word, expected, Some(left.min(LOOK_EVERY))) {
            Ok(true) => {}
            Ok(false) => self.recover_those(concerned),
            Err(_) => {
                std::thread::sleep(NAP);
                self.recover_those(concerned);
            }
        }
        true
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let mine = *self.mine.get_mut();
        // A copy of the process that has taken it leaves it alone.
        if let Some(entry) = Entry::from_number(mine as u32)
            && mine >> 32 == u64::from(generation())
            && let Some(&repair) = self.repair.get()
            && self.table().leave(entry, Who::me())
        {
            self.repair(repair, entry);
        }
    }
}

/// A handle of state, which can be encoded.
#[derive(Clone, Debug)]
pub(crate) struct StateHandle(Arc<Segment>);

impl StateHandle {
    /// Makes state of this many bytes, all zero. The digest stands for what is in it. Without a `repair`, its words never name an entry, and
    /// processes take none.
    ///
    /// # Errors
    ///
    /// Memory cannot be shared here, or there is not enough.
    pub(crate) fn new(digest: u64, len_bytes: usize, repair: Option<Repair>) -> io::Result<Self> {
        let this = Self(Segment::new_state(digest, len_bytes)?);
        this.attach(repair).map_err(io::Error::other)?;
        Ok(this)
    }

    /// Returns the descriptor by which other processes get the state, unless other code has closed it.
    pub(crate) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.0.file()
    }

    /// Encodes the identity of the state, which travels beside the bytes.
    pub(crate) fn encode<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let why = match mode() {
            Mode::Attach { .. } if self.0.file().is_some() => {
                attach(&self.0);
                return self.0.id().serialize(serializer);
            }
            Mode::Attach { .. } => {
                "shared state cannot be sent: its descriptor was closed by other code in this process"
            }
            Mode::Closed => "shared state can only be sent by the calls of procession",
            Mode::Inline => "shared state cannot be a part of a result",
        };
        Err(ser::Error::custom(set_why(why.to_owned())))
    }

    /// Decodes a handle of state with this digest, whose length must be `is_long_enough`, too. `repair` is as in [`new`](Self::new).
    pub(crate) fn decode<'de, D: Deserializer<'de>>(
        deserializer: D,
        digest: u64,
        is_long_enough: impl FnOnce(usize) -> bool,
        repair: Option<Repair>,
    ) -> Result<Self, D::Error> {
        let failed = |why: String| de::Error::custom(set_why(why));
        let segment = look_up(SegmentId::deserialize(deserializer)?).map_err(failed)?;
        let state =
            segment.state().filter(|state| segment.digest() == digest && is_long_enough(state.len_bytes()));
        let state = state.ok_or_else(|| failed("the shared state is of another type".to_owned()))?;
        state.attach(repair).map_err(failed)?;
        Ok(Self(segment))
    }
}

impl Deref for StateHandle {
    type Target = State;

    #[inline]
    fn deref(&self) -> &State {
        self.0.state().expect("it was made from a segment with state")
    }
}

#[cfg(all(test, not(loom)))]
impl StateHandle {
    /// Maps the state again, as another process does.
    pub(crate) fn again(&self) -> Self {
        let fd = self.0.file().expect("it is open").try_clone_to_owned().expect("a descriptor");
        let (_, segment) = Segment::adopt(fd, &mut [].into_iter(), true, |_| None).expect("a segment");
        let other = Self(segment.expect("it is state"));
        other.attach(self.repair.get().copied()).expect("there is a free entry");
        other
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::Ordering;

    /// Word 0 names the entry that owns it. Word 1 counts repairs.
    fn disown(state: &State, entry: Entry) {
        let _ = state.words()[0].compare_exchange(entry.number(), 0, Ordering::AcqRel, Ordering::Relaxed);
        state.words()[1].fetch_add(1, Ordering::Relaxed);
    }

    #[test]
    fn each_mapping_sees_what_others_write_and_has_an_entry_of_its_own() {
        let state = StateHandle::new(7, 16, Some(disown)).unwrap();
        let other = state.again();
        other.words()[3].store(5, Ordering::Relaxed);
        assert_eq!((state.words().len(), state.words()[3].load(Ordering::Relaxed)), (4, 5));
        assert_eq!(state.long_words()[1].load(Ordering::Relaxed), 5 << 32);
        let (mine, theirs) = (state.my_entry(), other.my_entry());
        assert_ne!(mine, theirs);
        assert_eq!(state.my_entry(), mine);
        assert!(state.is_mine(mine) && !state.is_mine(theirs) && state.is_live(theirs));
    }

    #[test]
    fn what_a_mapping_owned_is_repaired_when_it_is_dropped() {
        let state = StateHandle::new(7, 8, Some(disown)).unwrap();
        let other = state.again();
        let theirs = other.my_entry();
        state.words()[0].store(theirs.number(), Ordering::Relaxed);
        state.recover(std::process::id());
        assert_eq!(state.words()[1].load(Ordering::Relaxed), 0, "this process lives");
        drop(other);
        assert_eq!(state.words()[0].load(Ordering::Relaxed), 0);
        assert!(!state.is_live(theirs));
        assert_eq!(state.again().my_entry(), theirs, "its entry is free");
    }

    #[test]
    fn threads_that_come_at_once_take_one_entry() {
        let state = StateHandle::new(7, 8, Some(disown)).unwrap();
        let barrier = std::sync::Barrier::new(4);
        let entries = std::thread::scope(|scope| {
            let take = || {
                barrier.wait();
                state.my_entry()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(entries.iter().all(|entry| *entry == entries[0]));
        let is_taken = |entry: &Entry| state.table().who(*entry).is_some();
        assert_eq!(Entry::all().filter(is_taken).count(), 1);
    }

    #[test]
    fn a_full_table_turns_processes_away() {
        let state = StateHandle::new(7, 8, Some(disown)).unwrap();
        while state.table().join(Who::me()).is_some() {}
        let fd = state.0.file().unwrap().try_clone_to_owned().unwrap();
        let (_, segment) = Segment::adopt(fd, &mut std::iter::empty(), true, |_| None).unwrap();
        let why = segment.unwrap().state().unwrap().attach(Some(disown)).unwrap_err();
        assert_eq!(why, "at most 500 processes can use the same lock or channel");
    }

    #[test]
    fn a_wait_ends_with_the_deadline() {
        let state = StateHandle::new(7, 8, Some(disown)).unwrap();
        let deadline = Instant::now() + Duration::from_millis(5);
        while state.wait(&state.words()[0], 0, Some(deadline), |_| true) {}
        assert!(Instant::now() >= deadline);
        assert!(state.wait(&state.words()[0], 1, None, |_| true), "it has another value");
    }
}
