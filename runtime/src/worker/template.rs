//! A template: a process with one thread that loads what workers are to share, and then forks one whenever the host asks.
//!
//! It never has a second thread, for a copy of a process has only the thread that made it, and whatever another had locked stays
//! locked for ever. A worker is its copy, and goes on as any other worker does.
#![expect(unsafe_code, reason = "fork")]

use std::{
    convert::Infallible,
    ffi::OsStr,
    fs::File,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    sync::{Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    copy,
    entry::{become_forked_worker, recv_preamble},
    output,
    serve::{watch_memory, watch_overflow},
};
use crate::{
    codec::{Encoded, Input},
    context::IS_TEMPLATE,
    dispatch,
    error::FaultKind,
    id::FunctionId,
    marker::HOST_GONE,
    panic::RemotePanic,
    protocol::{FORK_REQUEST, Folder, Preload, Prepared, Refused, Report, Setup, VERSION},
    registry::{self, Entry},
    sys::{
        fd::{errno_of, read_file, write_whole},
        pass::{recv_with_fds, send_with_fd},
        poll::wait_any,
        process::{Child, Ended, Fork, end_group, enter, flush_streams, fork, hold_parent},
        procfs::thread_count,
        signal::{end_on_hangup, forget_failed_allocations, forget_hangup},
    },
    transport::Cause,
};

/// A thread that was joined is gone from the list of threads a moment later.
const THREADS_LINGER: Duration = Duration::from_secs(1);

/// While the preload runs: who it is, and the way to the host, for what ends the process.
static PRELOADING: Mutex<Option<Preloading>> = Mutex::new(None);

/// The preload that runs.
struct Preloading {
    name: &'static str,
    control: OwnedFd,
    /// What is said if it overflows the stack, and if it is refused memory: made ahead, for no memory may be had then.
    overflowed: Vec<u8>,
    was_refused_memory: Vec<u8>,
}

/// A worker, and where its life is told of.
struct Forked {
    child: Child,
    status: OwnedFd,
}

/// Prepares what workers share, says so, and forks them until the host closes the connection.
pub(super) fn serve(control: OwnedFd, token: Option<u64>) -> Result<Infallible, Refused> {
    let (preamble, fds) = recv_preamble(control.as_fd(), token)?;
    let host = hold_parent();
    IS_TEMPLATE.store(true, Ordering::Relaxed);
    let _ = nix::sys::prctl::set_name(c"fork-template");
    // The preload's overflows are seen, and the workers' without the cost of finding out where the stack ends.
    watch_overflow();
    watch_memory();
    let prepared = output::redirect(preamble.sinks, preamble.token, Vec::new())
        .map_err(|error| format!("the template's output cannot be redirected: {error}"))
        .and_then(|()| {
            let mut fds = fds.map_err(|refused| format!("the template: {}", refused.reason))?;
            fds.pop().ok_or_else(|| "no setup came with the preamble".to_owned())
        })
        .and_then(|setup| {
            read_file(setup).map_err(|error| format!("the template's setup cannot be read: {error}"))
        })
        .and_then(|setup| prepare(Setup::from_bytes(&setup), &control));
    let prepared = match prepared {
        Ok(()) => Prepared::Ready,
        Err(words) => Prepared::Failed(words),
    };
    // A host that has gone is noticed by the end of the connection.
    let _ = write_whole(control.as_fd(), &prepared.to_bytes());
    let mut workers: Vec<Forked> = Vec::new();
    loop {
        let fds: Vec<BorrowedFd<'_>> = std::iter::once(control.as_fd())
            .chain(workers.iter().map(|worker| worker.child.as_fd()))
            .chain(host.as_ref().map(AsFd::as_fd))
            .collect();
        let ready = wait_any(&fds).map_err(|error| format!("it cannot wait: {error}"))?;
        // A copy of the host may hold the other end of the connection.
        if ready.get(1 + workers.len()) == Some(&true) {
            end_group(HOST_GONE);
        }
        let mut at = 0;
        workers.retain_mut(|worker| {
            at += 1;
            !ready[at] || !tell_of_end(worker)
        });
        if !ready[0] {
            continue;
        }
        match recv_request(control.as_fd()) {
            Some([socket, status]) => {
                if let Some(socket) = fork_worker(socket, status, &mut workers) {
                    drop(control);
                    become_forked_worker(socket, host);
                }
            }
            None => end_group(HOST_GONE),
        }
    }
}

/// The connection and the status socket of the next worker; `None` if the host has gone, or talks nonsense.
fn recv_request(control: BorrowedFd<'_>) -> Option<[OwnedFd; 2]> {
    let mut byte = [0];
    let fds = recv_with_fds::<2>(control, &mut byte).ok()?;
    if byte == [FORK_REQUEST] { fds.try_into().ok() } else { None }
}

/// Forks a worker and tells of it. In the worker it returns its connection, and nothing else of the template's is open.
fn fork_worker(socket: OwnedFd, status: OwnedFd, workers: &mut Vec<Forked>) -> Option<OwnedFd> {
    // SAFETY: a template has one thread: it starts none, and `prepare` has seen to it that the preload has left none.
    match unsafe { fork() } {
        Ok(Fork::Child) => {
            // They are the template's children: not ours to kill, and not ours to hold open.
            workers.drain(..).for_each(|worker| worker.child.disown());
            return Some(socket);
        }
        Ok(Fork::Parent(child)) => {
            let report = Report::Forked(child.pid());
            // If the host does not listen it has no use for the worker, whose connection ends with it.
            let _ = send_with_fd(status.as_fd(), &report.to_bytes(), Some(child.as_fd()));
            workers.push(Forked { child, status });
        }
        Err(error) => {
            let report = Report::NotForked(errno_of(&error).unwrap_or_default());
            let _ = write_whole(status.as_fd(), &report.to_bytes());
        }
    }
    None
}

/// Collects a worker that has ended, with what it had started in its group, and tells of it. Returns whether it had ended.
fn tell_of_end(worker: &mut Forked) -> bool {
    let report = match worker.child.try_reap() {
        None => return false,
        Some(Ended::Code(code)) => Report::Exited(code),
        Some(Ended::Signal(signal)) => Report::Signaled(signal),
        Some(Ended::Unknown) => Report::Vanished,
        Some(Ended::Untold) => Report::Untold,
    };
    let _ = write_whole(worker.status.as_fd(), &report.to_bytes());
    true
}

fn prepare(setup: Result<Setup, String>, control: &OwnedFd) -> Result<(), String> {
    let Setup { version, build_id, preload } = setup?;
    let own = registry::build_id();
    if (version, build_id) != (VERSION, own) {
        return Err(format!(
            "the host is build {build_id:016x}, the template of its workers {own:016x}: was the executable replaced?"
        ));
    }
    let Some(preload) = preload else { return expect_one_thread("its start") };
    let entry = registry::find(FunctionId(preload.function)).ok_or("the preload is not in the table")?;
    let outcome = run(entry, &preload, control);
    // What is still in a buffer would be written by each worker.
    flush_streams();
    outcome?;
    expect_one_thread(&format!("the preload `{}`", entry.name))
}

/// Runs the preload in the folder that workers will work in.
fn run(entry: &'static Entry, preload: &Preload, control: &OwnedFd) -> Result<(), String> {
    let set_preloading = |now| *PRELOADING.lock().unwrap_or_else(PoisonError::into_inner) = now;
    let words = |what: &str| Prepared::Failed(format!("the preload `{}` {what}", entry.name)).to_bytes();
    set_preloading(control.try_clone().ok().map(|control| Preloading {
        name: entry.name,
        control,
        overflowed: words("overflowed its stack"),
        was_refused_memory: words("ran out of memory"),
    }));
    forget_failed_allocations();
    dispatch::set_witness(tell_of_panic);
    let back = match &preload.folder {
        Some(folder) => Some(visit(folder)?),
        None => None,
    };
    let (mut result, mut large) = (Vec::new(), Vec::new());
    end_on_hangup(control.as_fd(), HOST_GONE)
        .map_err(|error| format!("its connection cannot be watched: {error}"))?;
    let outcome = dispatch::run(entry, || Input::new(&preload.args), &mut result, &mut large);
    // The preload may have forked: a copy of the template prepares nothing and forks no workers.
    copy::leave_if_copy();
    forget_hangup(control.as_fd());
    drop(large);
    // A worker must not inherit it.
    set_preloading(None);
    if let Some(back) = back {
        // A worker enters the folder by itself, from where it would have started.
        nix::unistd::fchdir(back).map_err(|error| format!("it cannot go back to its folder: {error}"))?;
    }
    match outcome {
        Ok(()) => preload.outcome.check("preload", entry.name, &Encoded::Short(&result)),
        Err(fault) => Err(match fault.into_kind() {
            FaultKind::Panic(panic) => panicked(entry.name, &panic),
            FaultKind::Codec(words) => format!("the preload `{}` failed to cross: {words}", entry.name),
        }),
    }
}

/// Enters a folder, and returns the one that this was.
fn visit(folder: &Folder) -> Result<File, String> {
    let path = Path::new(OsStr::from_bytes(&folder.path));
    let cannot = |error| format!("it cannot work in {}: {error}", path.display());
    let back = File::open(".").map_err(cannot)?;
    enter(path, folder.id).map_err(cannot)?;
    Ok(back)
}

fn panicked(name: &str, panic: &RemotePanic) -> String {
    format!("the preload `{name}` panicked: {panic}")
}

/// Tells the host of a panic that ends the process, before it could tell of it as an outcome.
fn tell_of_panic(panic: &RemotePanic) {
    if let Some(Preloading { name, control, .. }) =
        &*PRELOADING.lock().unwrap_or_else(PoisonError::into_inner)
    {
        let _ = write_whole(control.as_fd(), &Prepared::Failed(panicked(name, panic)).to_bytes());
    }
}

/// Tells the host why the preload ends the process. Async-signal-safe: it waits for nothing and allocates nothing.
pub(super) fn say_cause(cause: Cause) {
    if let Ok(preloading) = PRELOADING.try_lock()
        && let Some(preloading) = &*preloading
    {
        let words = match cause {
            Cause::StackOverflow => &preloading.overflowed,
            Cause::OutOfMemory => &preloading.was_refused_memory,
            Cause::ConnectionEnded => return,
        };
        let _ = nix::unistd::write(&preloading.control, words);
    }
}

fn expect_one_thread(after: &str) -> Result<(), String> {
    let deadline = Instant::now() + THREADS_LINGER;
    loop {
        match thread_count() {
            Ok(1) => return Ok(()),
            Ok(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            Ok(n) => {
                return Err(format!(
                    "after {after}, {} more thread(s) run in the process that workers are forked from, and would be missing in each: \
                     join them, and start what needs threads in an initializer",
                    n - 1
                ));
            }
            Err(error) => return Err(format!("its threads cannot be counted: {error}")),
        }
    }
}
