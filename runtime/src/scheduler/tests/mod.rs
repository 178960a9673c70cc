//! The promises of the scheduler, checked on virtual time.

mod crowd;
mod death;
mod initialize;
mod recall;
mod retire;
mod start;
mod stop;
mod turns;

use super::{
    config::{CallOptions, Config},
    sim::{MILLI, SECOND, Sim, config},
};
use crate::launch::{LaunchError, fake::StartOutcome};

const KILLED: i32 = 9;

/// Returns the settings of a pool with this number of retries.
fn retried(retries: u32) -> Config {
    Config { call: CallOptions { retries: Some(retries), ..CallOptions::default() }, ..config() }
}

/// Returns the settings of a pool whose tasks have a time limit.
fn limited() -> Config {
    Config { call: CallOptions { timeout: Some(SECOND), ..CallOptions::default() }, ..config() }
}

/// Returns the options of a call with batches of this size.
fn batches_of(tasks: usize) -> CallOptions {
    CallOptions { batch: Some(tasks), ..CallOptions::default() }
}

#[test]
fn a_launcher_learns_how_many_workers_are_wanted_before_the_first_request() {
    let mut sim = Sim::new(Config { jobs: 4, ..config() });
    sim.launcher.lock().outcomes.push_back(StartOutcome::NotYet);
    let tasks: Vec<_> = (0..3).map(|_| sim.submit(MILLI)).collect();
    sim.turn();
    assert_eq!(sim.launcher.lock().asked, 1);
    assert_eq!(sim.launcher.lock().wanted, 3);
    sim.run();
    assert!(tasks.iter().all(|task| task.is_done()));
    sim.end();
}

fn shortage() -> LaunchError {
    LaunchError::new("a worker cannot be made", &std::io::Error::from_raw_os_error(nix::libc::EAGAIN))
}
