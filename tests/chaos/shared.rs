//! Memory that the program which sends signals, the host and its workers share: how often each task was run, and what the host is at.
#![expect(unsafe_code, reason = "a mapping that several processes write by atomics")]

use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::PathBuf,
    ptr::NonNull,
    sync::{
        OnceLock,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
};

use nix::{
    libc,
    sys::memfd::{MFdFlags, memfd_create},
};

/// Tasks of one round have numbers below this.
pub(crate) const SLOTS: usize = 1 << 18;
/// The number of threads of the host that note what they are doing.
pub(crate) const CLIENTS: usize = 4;
const WORDS: usize = 240;
/// The variable with the descriptor of the memory.
const VARIABLE: &str = "CHAOS_MEMORY";

#[repr(C)]
pub(crate) struct Shared {
    /// Grows with each call that was completed.
    pub(crate) beats: AtomicU64,
    /// The host has begun and sends signals are welcome.
    pub(crate) is_open: AtomicU32,
    /// The number of times that the functions around tasks have run in this round.
    pub(crate) around: Around,
    at: [[AtomicU8; WORDS]; CLIENTS],
    runs: [AtomicU32; SLOTS],
    /// The number of messages of a run of `--work state` so far.
    pub(crate) numbers: AtomicU64,
    /// For each message, what became of it. The file has holes, so those that were never sent take no memory.
    messages: [AtomicU32; MESSAGES],
    /// For each process of such a run, what it has in its hands.
    pub(crate) hands: [AtomicU32; LIVES],
}

/// The largest number of messages in a run of `--work state`.
pub(crate) const MESSAGES: usize = 1 << 27;
/// The largest number of its processes.
pub(crate) const LIVES: usize = 1 << 16;

/// `send` has returned.
const SENT: u32 = 1;
/// It was received once more.
const RECEIVED: u32 = 2;
/// Where the life begins that received it first, plus one.
const FIRST: u32 = 8;

/// What became of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fate(u32);

impl Fate {
    pub(crate) fn is_sent(self) -> bool {
        self.0 & SENT != 0
    }

    pub(crate) fn times_received(self) -> u32 {
        (self.0 & ((1 << FIRST) - 1)) / RECEIVED
    }

    /// Who received it first.
    pub(crate) fn receiver(self) -> usize {
        (self.0 >> FIRST) as usize - 1
    }
}

/// The counts of the functions that run around tasks, in workers and templates.
#[repr(C)]
pub(crate) struct Around {
    pub(crate) preloads: AtomicU64,
    pub(crate) initializers: AtomicU64,
    pub(crate) finalizers: AtomicU64,
    /// The number of faults that were found in one of them. Its panic is not always reported.
    pub(crate) faults: AtomicU64,
}

impl Shared {
    /// Notes what a client is doing.
    pub(crate) fn say(&self, client: usize, words: &str) {
        let place = &self.at[client];
        let bytes = words.bytes().chain(std::iter::repeat(0));
        place.iter().zip(bytes).for_each(|(at, byte)| at.store(byte, Ordering::Relaxed));
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn said(&self) -> Vec<String> {
        let read =
            |words: &[AtomicU8; WORDS]| words.iter().map(|byte| byte.load(Ordering::Relaxed)).collect();
        let words = self.at.iter().map(|words| -> Vec<u8> { read(words) });
        words.map(|words| String::from_utf8_lossy(&words).trim_end_matches('\0').to_owned()).collect()
    }

    /// Counts one run of the task.
    pub(crate) fn ran(&self, task: u64) {
        self.runs[task as usize].fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn runs(&self, task: u64) -> u32 {
        self.runs[task as usize].load(Ordering::SeqCst)
    }

    pub(crate) fn note_sent(&self, message: u64) {
        self.messages[message as usize].fetch_or(SENT, Ordering::SeqCst);
    }

    pub(crate) fn note_received(&self, message: u64, life: usize) {
        let message = &self.messages[message as usize];
        let first = (life as u32 + 1) << FIRST;
        let add = |fate: u32| if fate >> FIRST == 0 { fate + RECEIVED + first } else { fate + RECEIVED };
        let mut seen = message.load(Ordering::SeqCst);
        while let Err(other) = message.compare_exchange(seen, add(seen), Ordering::SeqCst, Ordering::SeqCst) {
            seen = other;
        }
    }

    pub(crate) fn fate(&self, message: u64) -> Fate {
        Fate(self.messages[message as usize].load(Ordering::SeqCst))
    }

    /// Forgets the runs of the first `tasks`, and asserts that no other has run.
    pub(crate) fn clear(&self, tasks: u64) {
        for (task, runs) in self.runs.iter().enumerate() {
            let runs = runs.swap(0, Ordering::SeqCst);
            assert!(runs == 0 || (task as u64) < tasks, "task {task} has run and was never made");
        }
    }
}

/// Makes the memory, in this process; returns it, and the variable by which others find it.
pub(crate) fn create() -> (&'static Shared, (&'static str, PathBuf)) {
    let fd = memfd_create(c"chaos", MFdFlags::MFD_CLOEXEC).expect("memory that can be shared");
    nix::unistd::ftruncate(&fd, size_of::<Shared>() as i64).expect("memory is to be had");
    let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()));
    let shared = map(fd.as_fd());
    // It is there as long as this process is.
    std::mem::forget(fd);
    (shared, (VARIABLE, path))
}

/// Returns the memory, in a process whose environment names it.
pub(crate) fn shared() -> &'static Shared {
    static SHARED: OnceLock<&'static Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let path =
            std::env::var_os(VARIABLE).expect("this process was started by the one that has the memory");
        let file = File::options().read(true).write(true).open(path).expect("the memory");
        map(file.as_fd())
    })
}

fn map(fd: BorrowedFd<'_>) -> &'static Shared {
    let (len, protection) = (size_of::<Shared>(), libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: a new mapping, at a place of the kernel's choice, disturbs nothing.
    let at =
        unsafe { libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
    assert!(at != libc::MAP_FAILED, "the memory cannot be mapped");
    let at = NonNull::new(at.cast::<Shared>()).expect("the kernel maps nothing at zero");
    // SAFETY: the mapping is as long as a `Shared`, aligned to a page, and never unmapped. Any bytes are a valid `Shared`, for it is
    // made of atomics, and through them alone is it used.
    unsafe { at.as_ref() }
}
