//! Reports of stack overflows and failed allocations, which end a process by a signal.
//!
//! The worker's start uses it. Handlers only load and store atomics and make async-signal-safe calls. A handler that other code has
//! installed for SIGABRT stays.
#![expect(unsafe_code, reason = "signal handlers and their stack")]

use std::{
    cell::Cell,
    io::{self, IoSliceMut},
    ptr::null_mut,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use nix::{
    libc,
    sys::{
        resource::{RLIM_INFINITY, Resource, getrlimit},
        signal::{SaFlags, Signal},
        uio::{RemoteIoVec, process_vm_readv},
    },
};

use super::{
    memory::Mapping,
    signal::{Handler, handle, handler_of},
};

/// The size of the stack for signal handlers: what the kernel needs for the registers of this CPU, and room to work.
const HANDLER_STACK_BYTES: usize = 64 << 10;

/// The function that the handler calls when the watched thread has overflowed its stack. Must be async-signal-safe.
static ON_OVERFLOW: OnceLock<fn()> = OnceLock::new();
/// The guard pages of the watched thread, from the first address to before the second.
static GUARD_START: AtomicUsize = AtomicUsize::new(0);
static GUARD_END: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Whether this thread has a handler stack of ours.
    static HAS_STACK: Cell<bool> = const { Cell::new(false) };
}

/// Reports stack overflows of this thread: calls `on_overflow`, then aborts the process.
///
/// `on_overflow` is called in a signal handler, on a small stack. It may only load and store atomics.
pub(crate) fn watch_stack(on_overflow: fn()) -> io::Result<()> {
    if HAS_STACK.get() {
        // It is already watched, because this process was forked by the thread.
        return Ok(());
    }
    // If the guard is not known, an overflow is reported as SIGSEGV. Other handlers need the stack in any case.
    let (start, end) = guard_of_this_thread().unwrap_or_default();
    GUARD_START.store(start, Ordering::Relaxed);
    GUARD_END.store(end, Ordering::Relaxed);
    let _ = ON_OVERFLOW.set(on_overflow);
    let base = Mapping::private(HANDLER_STACK_BYTES)?.keep();
    let stack = libc::stack_t { ss_sp: base.as_ptr().cast(), ss_flags: 0, ss_size: HANDLER_STACK_BYTES };
    // SAFETY: the stack is mapped, of that size, used by nothing else, and never unmapped: the thread lives as long as the worker.
    if unsafe { libc::sigaltstack(&raw const stack, null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    HAS_STACK.set(true);
    install(Signal::SIGSEGV)?;
    install(Signal::SIGBUS)
}

fn install(signal: Signal) -> io::Result<()> {
    // SAFETY: `on_fault` does only what a handler may.
    unsafe { handle(signal, on_fault, SaFlags::empty()) }
}

/// The function that the handler calls when the process ends because an allocation failed. Must be async-signal-safe.
static ON_OUT_OF_MEMORY: OnceLock<fn()> = OnceLock::new();

/// Reports that this process ends because an allocation failed: `on_out_of_memory` is called in a signal handler, and may only load
/// and store atomics.
///
/// After a failed allocation, Rust and C++ abort on the thread that made it, and C code writes to an address near zero.
pub(crate) fn watch_allocations(on_out_of_memory: fn()) -> io::Result<()> {
    let _ = ON_OUT_OF_MEMORY.set(on_out_of_memory);
    // A handler of other code, which reports crashes, stays.
    if handler_of(libc::SIGABRT) == Some(libc::SIG_DFL) { install(Signal::SIGABRT) } else { Ok(()) }
}

/// The least limit of the address space that leaves room for the arena that glibc maps for each thread, which takes up to 128 MiB.
#[cfg(target_env = "gnu")]
const ROOM_FOR_ARENAS_BYTES: u64 = 512 << 20;

/// Has all threads allocate from one arena if the address space is small. Called before one of ours starts.
///
/// glibc would try to map an arena for a thread with each allocation. The allocation succeeds without one, but leaves `ENOMEM` behind,
/// which would be taken for the reason why a task ends. And an arena that is mapped and does not fit takes up to 64 MiB for a moment,
/// in which allocations of other threads fail.
pub(super) fn share_arena() {
    #[cfg(target_env = "gnu")]
    if getrlimit(Resource::RLIMIT_AS).is_ok_and(|(soft, _)| soft < ROOM_FOR_ARENAS_BYTES) {
        // SAFETY: it changes a setting of the allocator, and may be called at any time.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}

/// Clears `errno`, so that an allocation that failed earlier is not taken for the reason why the next task ends. Called on the
/// watched thread.
#[inline]
pub(crate) fn forget_failed_allocations() {
    nix::errno::Errno::clear();
}

/// Returns whether the `errno` of this thread says that an allocation failed, which is the only trace that C code leaves. It can be
/// trusted only on the thread that runs tasks, where it belongs to the current task, and only if memory is limited, because other
/// calls set it, too.
fn is_refused_memory() -> bool {
    let is_limited = |resource| getrlimit(resource).is_ok_and(|(soft, _)| soft != RLIM_INFINITY);
    nix::errno::Errno::last() == nix::errno::Errno::ENOMEM
        && HAS_STACK.get()
        && (is_limited(Resource::RLIMIT_DATA) || is_limited(Resource::RLIMIT_AS))
}

/// Runs in the handler. Reports a failed allocation if Rust's handling of it, or C code after it, is ending this thread.
fn note_failed_allocation(context: *mut libc::c_void) {
    let has_failed = || is_refused_memory() || stack_pointer(context).is_some_and(is_ended_by_allocation);
    if let Some(on_out_of_memory) = ON_OUT_OF_MEMORY.get().filter(|_| has_failed()) {
        on_out_of_memory();
    }
}

/// The number of words of the stack that are searched. There are fewer between the abort and its cause.
const FRAMES_WORDS: usize = 1024;
/// The number of words that are read at a time. std gives its threads 8 KiB of stack for signals, and the kernel uses part of it.
const PIECE_WORDS: usize = 64;
/// The maximum distance from the start of `handle_alloc_error` to the return address of the call in it.
const CALL_BYTES: usize = 24;

/// Returns whether a call in `handle_alloc_error`, which never returns, is among the frames from this address on.
fn is_ended_by_allocation(stack_pointer: usize) -> bool {
    let start = (std::alloc::handle_alloc_error as fn(std::alloc::Layout) -> ! as *const ()).addr();
    let mut bytes = [0; PIECE_WORDS * size_of::<usize>()];
    for piece in 0..FRAMES_WORDS / PIECE_WORDS {
        // The kernel reads what is mapped and refuses the rest.
        let theirs = RemoteIoVec { base: stack_pointer + piece * bytes.len(), len: bytes.len() };
        let read = process_vm_readv(nix::unistd::getpid(), &mut [IoSliceMut::new(&mut bytes)], &[theirs]);
        let read = read.unwrap_or(0);
        let (words, _) = bytes[..read].as_chunks();
        // A difference, because an end of a range would stay behind on the stack and be found by a later search.
        if words
            .iter()
            .any(|&word| (1..=CALL_BYTES).contains(&usize::from_ne_bytes(word).wrapping_sub(start)))
        {
            return true;
        }
        if read < bytes.len() {
            return false;
        }
    }
    false
}

/// Returns the stack pointer at the time of the signal, on architectures for which it is known.
fn stack_pointer(context: *mut libc::c_void) -> Option<usize> {
    // SAFETY: the kernel passes a valid ucontext to a handler with SA_SIGINFO.
    let context = unsafe { context.cast::<libc::ucontext_t>().as_ref() }?;
    #[cfg(target_arch = "x86_64")]
    return Some(context.uc_mcontext.gregs[libc::REG_RSP as usize] as usize);
    #[cfg(target_arch = "aarch64")]
    return Some(context.uc_mcontext.sp as usize);
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let _ = context;
        None
    }
}

/// The interval at which a thread that may wait for itself is checked.
const LOOK: Duration = Duration::from_millis(100);

/// While it lives, this thread is checked at intervals. If an allocation has failed on it and Rust's handling of that does not
/// return, this is reported as by [`watch_allocations`], and the process aborts.
///
/// std captures and prints backtraces under a lock, and takes the same lock to report a failed allocation. A thread that runs out
/// of memory in between waits for itself forever. Backtraces can take any time, so the stack is checked, and not the time.
#[derive(Debug)]
#[must_use = "nothing is looked at after this is dropped"]
pub(crate) struct AllocationWatch(Option<libc::timer_t>);

impl AllocationWatch {
    pub(crate) fn new() -> Self {
        Self(if ON_OUT_OF_MEMORY.get().is_some() && handles_looks() { start_looks() } else { None })
    }
}

impl Drop for AllocationWatch {
    fn drop(&mut self) {
        if let Some(timer) = self.0 {
            let before = nix::errno::Errno::last();
            // SAFETY: `start_looks` has made the timer, and nothing else deletes it.
            unsafe { libc::timer_delete(timer) };
            before.set();
        }
    }
}

/// Makes SIGURG call [`on_look`]. It is ignored by default, so a late signal does nothing. Returns `false` if other code handles
/// it.
fn handles_looks() -> bool {
    let ours = on_look as Handler as libc::sighandler_t;
    match handler_of(libc::SIGURG) {
        Some(handler) if handler == ours => true,
        Some(libc::SIG_DFL | libc::SIG_IGN) => {
            // SAFETY: `on_look` does only what a handler may.
            unsafe { handle(Signal::SIGURG, on_look, SaFlags::SA_RESTART) }.is_ok()
        }
        _ => false,
    }
}

/// Starts a timer that sends SIGURG to this thread. Returns `None` if the system has no timer left.
fn start_looks() -> Option<libc::timer_t> {
    let before = nix::errno::Errno::last();
    // SAFETY: all zero is a valid sigevent, whose fields are set next.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_THREAD_ID;
    event.sigev_signo = libc::SIGURG;
    event.sigev_notify_thread_id = nix::unistd::gettid().as_raw();
    let mut timer: libc::timer_t = null_mut();
    // SAFETY: `event` is whole and `timer` is writable.
    let made = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) } == 0;
    let look = libc::timespec { tv_sec: 0, tv_nsec: LOOK.subsec_nanos() as _ };
    let times = libc::itimerspec { it_interval: look, it_value: look };
    if made {
        // SAFETY: the timer was made just now, and `times` is whole.
        unsafe { libc::timer_settime(timer, 0, &raw const times, null_mut()) };
    }
    before.set();
    made.then_some(timer)
}

extern "C" fn on_look(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let before = nix::errno::Errno::last();
    if stack_pointer(context).is_some_and(is_ended_by_allocation) {
        if let Some(on_out_of_memory) = ON_OUT_OF_MEMORY.get() {
            on_out_of_memory();
        }
        // SAFETY: abort may be called in a signal handler.
        unsafe { libc::abort() };
    }
    before.set();
}

/// Addresses below this are never mapped. A write to one of them was meant for memory that was not allocated.
const NULL_END: usize = 64 << 10;

/// The process's first stack grows up to its limit. This many bytes below that limit are its guard.
const FIRST_STACK_GUARD_BYTES: usize = 64 << 10;

/// Returns the guard of the process's first stack, if this thread runs on it. glibc reports its end without what lies above it.
fn guard_of_first_stack() -> Option<(usize, usize)> {
    // Another thread has a stack of its own. The first thread of a copy may have one, too.
    if nix::unistd::gettid() != nix::unistd::getpid() {
        return None;
    }
    let local = 0u8;
    let here = (&raw const local).addr();
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let range = maps.lines().find(|line| line.ends_with("[stack]"))?.split(' ').next()?;
    let (start, end) = range.split_once('-')?;
    let [start, end] = [start, end].map(|number| usize::from_str_radix(number, 16).unwrap_or_default());
    let (limit, _) = getrlimit(Resource::RLIMIT_STACK).ok()?;
    let last = end.checked_sub(usize::try_from(limit).ok()?)?;
    (start..end).contains(&here).then(|| (last.saturating_sub(FIRST_STACK_GUARD_BYTES), last))
}

/// Returns the addresses just below this thread's stack: the guard, and as much again, because glibc versions differ in where they
/// count it.
fn guard_of_this_thread() -> io::Result<(usize, usize)> {
    if let Some(guard) = guard_of_first_stack() {
        return Ok(guard);
    }
    let mut attr = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: pthread_self takes nothing and cannot fail.
    let me = unsafe { libc::pthread_self() };
    // SAFETY: `me` is a live thread, this one, and `attr` is room for what the call writes.
    let error = unsafe { libc::pthread_getattr_np(me, attr.as_mut_ptr()) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    // SAFETY: the call succeeded, so it initialised `attr`.
    let mut attr = unsafe { attr.assume_init() };
    let (mut base, mut size, mut guard) = (null_mut(), 0, 0);
    // SAFETY: `attr` is initialised and the two places are writable.
    unsafe { libc::pthread_attr_getstack(&raw const attr, &raw mut base, &raw mut size) };
    // SAFETY: `attr` is initialised and the place is writable.
    unsafe { libc::pthread_attr_getguardsize(&raw const attr, &raw mut guard) };
    // SAFETY: `attr` was initialised by pthread_getattr_np and is used no more.
    unsafe { libc::pthread_attr_destroy(&raw mut attr) };
    let base = base.addr();
    Ok((base.saturating_sub(guard), base + guard))
}

extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to a handler with SA_SIGINFO.
    let info = unsafe { &*info };
    // SAFETY: SIGSEGV and SIGBUS fill in the address.
    let address = unsafe { info.si_addr() }.addr();
    if (GUARD_START.load(Ordering::Relaxed)..GUARD_END.load(Ordering::Relaxed)).contains(&address) {
        if let Some(on_overflow) = ON_OVERFLOW.get() {
            on_overflow();
        }
        crate::sys::exit::write_stderr(
            "\nthread 'main' has overflowed its stack\nfatal runtime error: stack overflow, aborting\n",
        );
        // SAFETY: abort may be called in a signal handler.
        unsafe { libc::abort() };
    }
    // An abort is raised by the thread that aborts.
    if signal == libc::SIGABRT && info.si_code == libc::SI_TKILL
        || signal == libc::SIGSEGV && address < NULL_END
    {
        note_failed_allocation(context);
    }
    // Not ours: let it happen again with the default, which ends the process under its own name.
    // SAFETY: SIG_DFL is a disposition; signal() may be called in a handler.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    let was_sent = info.si_code <= 0;
    // A signal that was sent does not occur again when the handler returns.
    if was_sent {
        // SAFETY: raise takes a number and may be called in a handler; it is delivered when the handler returns.
        unsafe { libc::raise(signal) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches, with its variables some way down the stack.
    #[inline(never)]
    fn search_from_below(here: usize) -> bool {
        let room = std::hint::black_box([0u8; 4096]);
        is_ended_by_allocation(here) || room[0] != 0
    }

    #[test]
    fn a_search_of_the_stack_does_not_find_what_an_earlier_one_left_there() {
        let local = 0usize;
        let here = (&raw const local).addr();
        assert!(!search_from_below(here));
        // What was left there may be among the variables that the next function has not initialised when it is interrupted.
        assert!(!is_ended_by_allocation(here - FRAMES_WORDS * size_of::<usize>()));
    }
}
