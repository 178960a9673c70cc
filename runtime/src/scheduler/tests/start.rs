//! Starts that fail, are late, or must wait.

use std::time::Duration;

use super::{KILLED, shortage};
use crate::{
    error::Exit,
    launch::{
        LaunchError,
        fake::{StartOutcome, Told},
    },
    scheduler::{
        config::{Config, Lives},
        restarts::Intensity,
        sim::{MILLI, SECOND, Sim, config},
    },
};

#[test]
fn a_pool_whose_starts_only_fail_pauses_longer_each_time_and_gives_up() {
    let mut sim = Sim::new(Config { jobs: 1, ..config() });
    let task = sim.submit(MILLI);
    let mut starts = Vec::new();
    while sim.scheduler.unfinished() > 0 {
        sim.turn();
        if let Some(worker) = sim.workers().get(starts.len()) {
            starts.push(sim.since());
            worker.end(Exit::from_code(1));
            sim.turn();
        }
        if let Some(due) = sim.scheduler.deadline(sim.now) {
            sim.now = due;
        }
    }
    assert_eq!(starts.len(), 11, "10 restarts");
    let pauses: Vec<Duration> = starts.windows(2).map(|two| two[1] - two[0]).collect();
    assert_eq!(pauses[..4], [10 * MILLI, 20 * MILLI, 40 * MILLI, 80 * MILLI]);
    assert_eq!(pauses.last(), Some(&(500 * MILLI)));
    let error = task.error();
    assert!(error.is_lost());
    assert!(error.to_string().contains("gave up after 11 failed starts"), "{error}");
    // What is submitted within the period fails, too, and starts nothing.
    let next = sim.submit(MILLI);
    sim.turn();
    assert!(next.error().is_lost());
    assert_eq!(sim.workers().len(), 11);
    // After the period it is tried again.
    sim.pass(31 * SECOND);
    let last = sim.submit(MILLI);
    sim.run();
    assert!(last.is_done());
    sim.end();
}

#[test]
fn a_worker_that_sends_nonsense_instead_of_its_handshake_is_a_failed_start() {
    let mut sim = Sim::new(Config { jobs: 1, ..config() });
    let task = sim.submit(MILLI);
    let mut starts = 0;
    while sim.scheduler.unfinished() > 0 {
        sim.turn();
        if let Some(worker) = sim.workers().get(starts) {
            worker.send(b"\xffgarbage");
            starts += 1;
            assert!(starts < 100, "it is started without end");
            sim.turn();
        } else if let Some(due) = sim.scheduler.deadline(sim.now) {
            sim.now = due;
        }
    }
    assert_eq!(starts, 11);
    let error = task.error();
    assert!(error.to_string().contains("an invalid message; gave up after 11 failed starts"), "{error}");
    sim.end();
}

#[test]
fn a_late_worker_is_killed_at_the_start_timeout_and_another_is_started() {
    let mut sim = Sim::new(config());
    let task = sim.submit(MILLI);
    sim.turn();
    assert_eq!(sim.scheduler.deadline(sim.now), Some(sim.now + 10 * SECOND));
    sim.pass(11 * SECOND);
    assert_eq!(sim.worker(0).told(), [Told::Kill]);
    assert!(sim.worker(0).is_reaped());
    assert_eq!(sim.workers().len(), 2);
    sim.run();
    assert!(task.is_done());
    sim.end();
}

#[test]
fn a_launcher_that_is_not_ready_is_asked_again_once_it_is() {
    let mut sim = Sim::new(config());
    sim.launcher.lock().outcomes.extend([StartOutcome::NotYet, StartOutcome::NotYet]);
    let task = sim.submit(MILLI);
    sim.turn();
    assert_eq!(sim.launcher.lock().asked, 1);
    assert!(sim.workers().is_empty());
    assert_eq!(sim.scheduler.deadline(sim.now), None, "the launcher reports when it is ready");
    sim.turn();
    sim.run();
    assert!(task.is_done());
    sim.end();
}

#[test]
fn a_shortage_is_waited_out_for_the_start_timeout() {
    let mut sim = Sim::new(config());
    sim.launcher.lock().outcomes.extend(vec![StartOutcome::Fails(shortage()); 5]);
    let task = sim.submit(MILLI);
    sim.run();
    assert!(task.is_done());
    assert_eq!(sim.launcher.lock().asked, 6);

    let mut sim = Sim::new(config());
    sim.launcher.lock().outcomes.extend(vec![StartOutcome::Fails(shortage()); 1000]);
    let task = sim.submit(MILLI);
    sim.run();
    let error = task.error();
    assert!(error.is_lost() && error.to_string().contains("attempts in 10.0s"), "{error}");
    assert_eq!(sim.since(), 10 * SECOND);
    // A later task has its own time.
    sim.launcher.lock().outcomes.clear();
    let next = sim.submit(MILLI);
    sim.run();
    assert!(next.is_done());
    sim.end();
}

#[test]
fn a_permanent_refusal_by_the_system_fails_immediately() {
    let mut sim = Sim::new(config());
    sim.launcher.lock().outcomes.push_back(StartOutcome::Fails(LaunchError::Refused("no".to_owned())));
    let task = sim.submit(MILLI);
    sim.turn();
    assert!(task.error().to_string().contains("no worker could be started: no"));
    sim.end();
}

#[test]
fn a_start_that_fails_while_another_worker_serves_fails_no_task() {
    let mut sim = Sim::new(config());
    let first = sim.submit(SECOND);
    sim.start_all();
    sim.worker(0).begin().unwrap();
    let refused = LaunchError::Refused("no".to_owned());
    sim.launcher.lock().outcomes.extend(vec![StartOutcome::Fails(refused); 20]);
    let second = sim.submit(MILLI);
    sim.pass(SECOND);
    assert!(sim.launcher.lock().asked > 3, "it is tried again");
    sim.worker(0).finish(SECOND);
    sim.run();
    assert!(first.is_done() && second.is_done());
    sim.end();
}

#[test]
fn restarts_have_no_limit_while_workers_serve() {
    let max_restarts = Intensity { most: 0, within: SECOND };
    let lives = Lives { max_restarts, ..Lives::default() };
    let mut sim = Sim::new(Config { jobs: 1, lives, ..config() });
    for _ in 0..20 {
        let task = sim.submit(MILLI);
        sim.start_all();
        sim.workers().pop().unwrap().begin().unwrap();
        sim.workers().pop().unwrap().end(Exit::from_signal(KILLED));
        sim.turn();
        assert!(task.error().is_crash());
    }
    sim.end();
}
