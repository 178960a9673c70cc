//! Decides whether this process is a worker: in the hook before `main`, or at the top of a `main` under `#[procession::main]`.
//!
//! In a process without the marker, both check the environment, return, and use nothing else of std. A process with the marker
//! becomes a worker or a template, or it ends with `START_FAILED`. It never reaches the caller's `main`. `docs/before-main.md`
//! describes what is different before `main`.
//!
//! Also defines [`become_template`], which a copy of the host calls.
#![expect(unsafe_code, reason = "a function pointer in .init_array; a copy of the host")]

use std::{
    ffi::OsStr,
    os::fd::{AsFd, OwnedFd},
};

use super::{
    connect::{connect, open_standard_streams, or_fail},
    copy, host_link,
    lifeline::serve_and_watch,
    template,
};
use crate::{
    marker::{DEPTH, MARKER_CSTR, Role},
    sys::{
        buffer_cache,
        env::{has_env, is_privileged, set_env},
        fd::{close_all_but, close_inherited, out_of_the_way},
        signal::{ignore_pipe_and_terminal, reset_signals},
    },
};

/// The modules in which a `main` has `#[procession::main]`. (The linker gathers nothing that has no size.)
#[procession_macros::gathered]
pub static AT_MAIN: [&'static str];

/// Returns whether the workers of this executable are dispatched at the top of its `main`.
///
/// A `main` that is not at the root of its crate does not count. Merged doc tests have such functions, each in a module of its own.
fn waits_for_main() -> bool {
    AT_MAIN.static_slice().iter().any(|module| !module.contains("::"))
}

#[used]
// The section holds pointers to functions that the loader calls once before `main`. It passes arguments, which a function without
// parameters ignores in the C calling convention.
#[unsafe(link_section = ".init_array")]
static HOOK: extern "C" fn() = hook;

extern "C" fn hook() {
    if !is_marked() || waits_for_main() {
        return;
    }
    become_worker();
}

#[used]
// The C library calls these functions at the end of a process, after those of `atexit`.
#[unsafe(link_section = ".fini_array")]
static AT_END: extern "C" fn() = host_link::end_what_is_left;

/// Runs at the top of a `main` under `#[procession::main]`. Does not return in a worker.
pub fn dispatch_main() {
    if is_marked() {
        become_worker();
    }
}

/// Returns whether this process was started as a worker. A process with more rights than its user does not trust its environment.
fn is_marked() -> bool {
    has_env(MARKER_CSTR) && !is_privileged()
}

fn become_worker() -> ! {
    or_fail(|| {
        let (marker, socket) = connect()?;
        match marker.role {
            Role::Worker => serve_and_watch(socket, marker.token),
            Role::Template => {
                close_inherited();
                template::serve(socket, Some(marker.token))
            }
        }
    })
}

/// Turns this process, which is a copy of the host, into a template. Never returns to the code in which the host was copied.
///
/// `env` is the environment that the template gets, and `depth` is its own nesting depth.
///
/// # Safety
///
/// This process must be such a copy: no other thread exists, and no object that owns a descriptor is used again, except `socket`.
pub(crate) unsafe fn become_template(
    socket: OwnedFd,
    depth: u32,
    env: &[(std::ffi::OsString, Option<std::ffi::OsString>)],
) -> ! {
    or_fail(|| {
        copy::begin();
        buffer_cache::forget_keepers();
        let socket = out_of_the_way(socket);
        // SAFETY: no object that owns another is used again (the caller's promise).
        unsafe { close_all_but(&[socket.as_fd()]) };
        let is_gone = |name: &OsStr| !env.iter().any(|(other, _)| other == name);
        let gone: Vec<_> = std::env::vars_os().map(|(name, _)| name).filter(|name| is_gone(name)).collect();
        let env = env.iter().map(|(name, value)| (name, value.as_deref()));
        for (name, value) in gone.iter().map(|name| (name, None)).chain(env) {
            // SAFETY: no other thread exists (the caller's promise).
            unsafe { set_env(name, value) };
        }
        // SAFETY: as above.
        unsafe { set_env(DEPTH.as_ref(), Some(depth.to_string().as_ref())) };
        reset_signals();
        // Descriptor 0 is the first to be reused.
        let _ = nix::unistd::close(0);
        open_standard_streams();
        ignore_pipe_and_terminal();
        template::serve(socket, None)
    })
}
