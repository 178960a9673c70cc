//! The engine of single processes: their driver and its background thread, and how they are started.
//!
//! A host has one engine, which exists while there is a [`Process`](super::Process) or a detached process still runs.

use std::{
    io,
    sync::{Arc, Mutex, Weak},
    time::Instant,
};

use super::{set::ProcessSet, slot::ProcessConfig};
use crate::{
    driver::{
        background::Engine,
        state::{Driver, LOOK_EVERY},
    },
    error::{Error, Result},
    handle::Drive,
    id::WorkerId,
    launch::{LaunchError, Launcher, PolledLauncher, StartMethod},
    observe::levels::levels,
    protocol::Hello,
    scheduler::restarts::{Intensity, Others, Restarts, Verdict},
    start,
    supervisor::state::Supervisor,
    sync::ignore_poison,
    sys::{
        identified::CLOSED,
        per_process::PerProcess,
        poll::{Poller, wait_readable},
    },
};

/// The reason why a forked copy starts no process.
pub(super) const FORKED: &str = "this process was forked from the one that was about to start it";

/// The engine of this process, while there is one.
static ENGINE: PerProcess<Mutex<Weak<Engine<ProcessSet>>>> = PerProcess::new();

/// Returns a new launcher for this process. Under Fork it copies this process as it is now.
pub(super) fn launcher_of(config: &ProcessConfig) -> Result<Arc<dyn Launcher>> {
    start::launcher(&config.spawn, None).map_err(Error::config)
}

/// Returns the engine of this process, which is made if there is none.
pub(super) fn current() -> Result<Arc<Engine<ProcessSet>>> {
    let mut current = ignore_poison(ENGINE.get_or_init(Mutex::default).lock());
    match current.upgrade() {
        Some(engine) if engine.driver.is_whole() => return Ok(engine),
        // If its descriptors were closed, it is never dropped.
        engine => std::mem::forget(engine),
    }
    let failed = |error| Error::system("processes cannot be watched", error);
    let workers = Arc::new(Poller::new().map_err(failed)?);
    let driver = Driver::of(ProcessSet::default(), workers, Arc::default(), None).map_err(failed)?;
    let engine = Arc::new(Engine::start(driver, None).map_err(failed)?);
    *current = Arc::downgrade(&engine);
    Ok(engine)
}

/// Starts a process. `copy` is the template that was copied from this process for it. Returns the launcher, which keeps the
/// template alive.
pub(super) fn launch(
    driver: &Driver<ProcessSet>,
    supervisor: &mut Supervisor,
    copy: Option<Arc<dyn Launcher>>,
    config: &ProcessConfig,
) -> Result<Arc<dyn Launcher>> {
    let make = || {
        let launcher = launcher_of(config)?;
        let failed = |error| Error::system("a template cannot be watched", error);
        driver.set_launcher(&launcher).map_err(failed)?;
        Ok(launcher)
    };
    let shared = match config.spawn.start_method {
        StartMethod::ForkServer => {
            driver.inspect(|set| set.template(config, make)).ok_or_else(|| Error::config(FORKED))??
        }
        StartMethod::Spawn | StartMethod::Fork => None,
    };
    let is_shared = shared.is_some();
    let launcher = shared.or(copy).map_or_else(|| launcher_of(config), Ok)?;
    launch_by(&launcher, is_shared, driver, supervisor, config)
        .map_err(|error| config.not_started(io::Error::other(error)))?;
    Ok(launcher)
}

/// Starts a process when its template is ready. Tries again while the system is short of something.
fn launch_by(
    launcher: &Arc<dyn Launcher>,
    is_shared: bool,
    driver: &Driver<ProcessSet>,
    supervisor: &mut Supervisor,
    config: &ProcessConfig,
) -> Result<(), LaunchError> {
    let hello = Hello::new(WorkerId::ALONE, config.spawn.setup_alone(supervisor.id().0), levels().log);
    let start_timeout = config.spawn.start_timeout;
    let polled = PolledLauncher::new(launcher.clone(), driver.workers.clone());
    let mut restarts = Restarts::new(Intensity::default(), start_timeout);
    loop {
        // A logger that this thread calls while it waits may copy this process.
        let template_events = driver.inspect(|set| set.template_events);
        let template_events = template_events.ok_or_else(|| LaunchError::Refused(FORKED.to_owned()))?;
        if !driver.is_whole() {
            return Err(LaunchError::Refused(CLOSED.to_owned()));
        }
        let now = Instant::now();
        match supervisor.launch(&polled, &config.spawn.request(), &hello, now, now + start_timeout) {
            Ok(true) => return Ok(()),
            // The template from which it will be forked is being prepared.
            Ok(false) if is_shared => _ = driver.wait_while(|set| set.template_events == template_events),
            // The driver does not poll this launcher, or its template would fork another process ahead.
            Ok(false) => _ = launcher.poll_fd().map(|fd| wait_readable(fd, LOOK_EVERY)),
            Err(error) if error.is_shortage() => match restarts.short(now, Others::None, Instant::now()) {
                Verdict::Retry => _ = driver.wait(&mut || false, restarts.not_before()),
                Verdict::GiveUp { starts, time } => {
                    return Err(LaunchError::Refused(format!(
                        "{error}; gave up after {starts} attempts in {time:.1?}"
                    )));
                }
            },
            Err(error) => return Err(error),
        }
    }
}
