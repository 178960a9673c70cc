//! The bare round trip between two processes: a word there, a word back, each waited for in a futex or by spinning.
#![expect(unsafe_code, reason = "memory that two processes share is mapped by hand")]

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::{Child, Command, ExitCode, Stdio},
    sync::atomic::{
        AtomicU32,
        Ordering::{Acquire, Release},
    },
};

use rustix::{
    fs::{MemfdFlags, ftruncate, memfd_create},
    mm::{MapFlags, ProtFlags, mmap},
    process::{Signal, set_parent_process_death_signal},
    thread::futex,
};

/// The request that ends the answering process.
const END: u32 = u32::MAX;

/// A word on cache lines of its own.
#[repr(C, align(128))]
struct Word(AtomicU32);

/// The memory that the two processes share.
#[repr(C)]
struct Words {
    request: Word,
    reply: Word,
}

/// The manner of waiting for a word.
#[derive(Clone, Copy)]
pub(crate) enum Manner {
    Sleep,
    Spin,
}

impl Word {
    /// Waits until the word is no longer `old`.
    fn wait(&self, old: u32, manner: Manner) -> u32 {
        loop {
            let now = self.0.load(Acquire);
            if now != old {
                return now;
            }
            match manner {
                // An early return is seen to by the loop.
                Manner::Sleep => drop(futex::wait(&self.0, futex::Flags::empty(), old, None)),
                Manner::Spin => std::hint::spin_loop(),
            }
        }
    }

    fn publish(&self, value: u32, manner: Manner) {
        self.0.store(value, Release);
        if let Manner::Sleep = manner {
            futex::wake(&self.0, futex::Flags::empty(), 1).expect("a word of ours can be woken");
        }
    }
}

/// Maps the words for as long as this process lives.
fn map(memory: BorrowedFd<'_>) -> &'static Words {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping where the kernel likes: it takes the place of nothing.
    let words =
        unsafe { mmap(std::ptr::null_mut(), size_of::<Words>(), access, MapFlags::SHARED, memory, 0) };
    let words = words.expect("a page can be mapped").cast::<Words>();
    // SAFETY: the mapping is page-aligned, as large as `Words`, and never unmapped; the file behind it was given that size and is
    // never shrunk. Zeroes are a value of it, and what the other process changes is atomic.
    unsafe { &*words }
}

/// A process that answers, and the words shared with it.
pub(crate) struct Peer {
    child: Child,
    words: &'static Words,
    turn: u32,
    manner: Manner,
}

impl Peer {
    pub(crate) fn start(manner: Manner) -> Self {
        let memory: OwnedFd = memfd_create("ping-pong", MemfdFlags::CLOEXEC).expect("a memfd");
        ftruncate(&memory, size_of::<Words>() as u64).expect("it takes the size");
        let words = map(memory.as_fd());
        let name = match manner {
            Manner::Sleep => "sleep",
            Manner::Spin => "spin",
        };
        let child = Command::new("/proc/self/exe").args(["futex", name]).stdin(Stdio::from(memory)).spawn();
        Self { child: child.expect("this executable starts again"), words, turn: 0, manner }
    }

    /// There and back once.
    pub(crate) fn ping(&mut self) {
        let last = self.turn;
        self.turn += 1;
        self.words.request.publish(self.turn, self.manner);
        assert_eq!(self.words.reply.wait(last, self.manner), self.turn, "the reply is to this request");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.words.request.publish(END, self.manner);
        let _ = self.child.wait();
    }
}

/// The answering process: each request comes back until the last.
pub(crate) fn answer(manner: &str) -> ExitCode {
    set_parent_process_death_signal(Some(Signal::KILL)).expect("Linux has it");
    let manner = if manner == "spin" { Manner::Spin } else { Manner::Sleep };
    let words = map(std::io::stdin().as_fd());
    let mut turn = 0;
    loop {
        turn = words.request.wait(turn, manner);
        if turn == END {
            return ExitCode::SUCCESS;
        }
        words.reply.publish(turn, manner);
    }
}
