//! Runs the preload of a template and checks what it leaves behind.
//!
//! `template` calls it once. A preload that leaves a second thread has failed, because the template could not be copied safely.

use std::{
    ffi::OsStr,
    fs::File,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

use super::copy;
use crate::{
    codec::{Encoded, Input},
    dispatch,
    error::FaultKind,
    id::FunctionId,
    marker::{DESCRIPTORS_CLOSED, HOST_GONE},
    panic::RemotePanic,
    protocol::{Folder, Preload, Prepared, Setup, VERSION},
    registry::{self, Entry},
    segment::To,
    sync::ignore_poison,
    sys::{
        exit::{end_now, flush_streams},
        fault::forget_failed_allocations,
        fd::{out_of_the_way, write_whole},
        identified::Identified,
        process::enter,
        procfs::thread_count,
        signal::{end_on_hangup, forget_hangup},
    },
    transport::Cause,
};

/// A thread stays in the list of threads for a moment after it was joined.
const THREAD_EXIT_TIME: Duration = Duration::from_secs(1);

/// Set while the preload runs: its name, and the connection to the host, for reporting what ends the process.
static PRELOADING: Mutex<Option<Preloading>> = Mutex::new(None);

/// The preload that is running.
struct Preloading {
    name: &'static str,
    control: Identified,
    /// The messages for a stack overflow and for a failed allocation. They are encoded in advance because memory may not be
    /// available then.
    overflowed: Vec<u8>,
    was_refused_memory: Vec<u8>,
}

/// Runs the preload, if there is one. `control` and `host` are what the template needs afterwards.
pub(super) fn prepare(
    setup: Result<Setup, String>,
    control: &Identified,
    host: Option<&Identified>,
) -> Result<(), String> {
    let Setup { version, build_id, preload } = setup?;
    let own = registry::build_id();
    if (version, build_id) != (VERSION, own) {
        return Err(format!(
            "the host is build {build_id:016x}, the template of its workers {own:016x}: was the executable replaced?"
        ));
    }
    let Some(preload) = preload else { return expect_one_thread("its start") };
    let entry = registry::find(FunctionId(preload.function)).ok_or("the preload is not in the table")?;
    let outcome = run(entry, &preload, control, host);
    // Output that is still in a buffer would be written by each worker.
    flush_streams();
    outcome?;
    expect_one_thread(&format!("the preload `{}`", entry.name))
}

/// Runs the preload in the folder of the workers.
fn run(
    entry: &'static Entry,
    preload: &Preload,
    control: &Identified,
    host: Option<&Identified>,
) -> Result<(), String> {
    let set_preloading = |now| *ignore_poison(PRELOADING.lock()) = now;
    let words = |what: &str| Prepared::Failed(format!("the preload `{}` {what}", entry.name)).to_bytes();
    set_preloading(control.try_clone().ok().map(|control| Preloading {
        name: entry.name,
        control: Identified::new(out_of_the_way(control)),
        overflowed: words("overflowed its stack"),
        was_refused_memory: words("ran out of memory"),
    }));
    forget_failed_allocations();
    dispatch::set_witness(report_panic);
    let back = preload.folder.as_ref().map(visit).transpose()?;
    let (mut result, mut large) = (Vec::new(), Vec::new());
    end_on_hangup(control.as_fd(), HOST_GONE)
        .map_err(|error| format!("its connection cannot be watched: {error}"))?;
    let outcome = dispatch::run(entry, || Input::new(&preload.args), To::Caller, &mut result, &mut large);
    // The preload may have forked. A copy of the template prepares nothing and forks no workers.
    copy::leave_if_copy();
    let is_whole = [Some(control), host, back.as_ref()].into_iter().flatten().all(Identified::is_whole);
    if !is_whole || !is_connection_whole() {
        // Nothing may be used or closed, because it may be another file. The host knows the exit code.
        flush_streams();
        end_now(DESCRIPTORS_CLOSED);
    }
    forget_hangup(control.as_fd());
    drop(large);
    // A worker must not inherit it.
    set_preloading(None);
    if let Some(back) = back {
        // A worker enters the folder by itself, from the folder in which it would have started.
        nix::unistd::fchdir(&back)
            .map_err(|error| format!("it cannot return to its working directory: {error}"))?;
    }
    match outcome {
        Ok(_) => preload.returns.check("preload", entry.name, &Encoded::Short(&result)),
        Err(fault) => Err(match fault.into_kind() {
            FaultKind::Panic(panic) => panicked(entry.name, &panic),
            FaultKind::Codec(words) => {
                format!("the preload `{}` could not be transferred: {words}", entry.name)
            }
        }),
    }
}

/// Enters a folder and returns the previous one.
fn visit(folder: &Folder) -> Result<Identified, String> {
    let path = Path::new(OsStr::from_bytes(&folder.path));
    let cannot = |error| format!("it cannot change to the directory {}: {error}", path.display());
    let back = File::open(".").map_err(cannot)?;
    enter(path, folder.id).map_err(cannot)?;
    Ok(Identified::new(out_of_the_way(back.into())))
}

/// Returns whether the preload has not closed the connection of [`PRELOADING`].
fn is_connection_whole() -> bool {
    let preloading = ignore_poison(PRELOADING.lock());
    preloading.as_ref().is_none_or(|preloading| preloading.control.is_whole())
}

fn panicked(name: &str, panic: &RemotePanic) -> String {
    format!("the preload `{name}` panicked: {panic}")
}

/// Tells the host about a panic that ends the process before its outcome could be sent.
fn report_panic(panic: &RemotePanic) {
    if let Some(Preloading { name, control, .. }) = &*ignore_poison(PRELOADING.lock()) {
        let words = Prepared::Failed(panicked(name, panic)).to_bytes();
        let _ = control.check().and_then(|control| write_whole(control, &words));
    }
}

/// Tells the host why the preload ends the process. Async-signal-safe: it does not wait or allocate.
pub(super) fn report_cause(cause: Cause) {
    if let Ok(preloading) = PRELOADING.try_lock()
        && let Some(preloading) = &*preloading
    {
        let words = match cause {
            Cause::StackOverflow => &preloading.overflowed,
            Cause::OutOfMemory => &preloading.was_refused_memory,
            Cause::ConnectionEnded | Cause::DescriptorsClosed => return,
        };
        if preloading.control.is_whole() {
            let _ = nix::unistd::write(&preloading.control, words);
        }
    }
}

fn expect_one_thread(after: &str) -> Result<(), String> {
    let deadline = Instant::now() + THREAD_EXIT_TIME;
    loop {
        match thread_count() {
            Ok(1) => return Ok(()),
            Ok(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            Ok(n) => {
                return Err(format!(
                    "after {after}, {} more thread(s) run in the process that workers are forked from and would be \
                     missing in every worker: join them, and start threads in an initializer instead",
                    n - 1
                ));
            }
            Err(error) => return Err(format!("its threads cannot be counted: {error}")),
        }
    }
}
