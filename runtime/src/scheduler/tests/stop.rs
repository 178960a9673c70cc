//! Cancelled tasks and time limits.

use super::limited;
use crate::{
    launch::fake::Told,
    scheduler::{
        config::Config,
        sim::{MILLI, SECOND, Sim, config},
    },
};

#[test]
fn a_cancelled_task_that_has_not_begun_never_begins() {
    let mut sim = Sim::new(Config { jobs: 1, ..config() });
    let tasks: Vec<_> = (0..5).map(|_| sim.submit(MILLI)).collect();
    sim.cancel(&tasks[4]);
    sim.start_all();
    sim.worker(0).begin().unwrap();
    sim.cancel(&tasks[2]);
    for cancelled in [2, 4] {
        let error = tasks[cancelled].error();
        assert!(error.is_cancelled());
        assert_eq!(error.attempts(), 0);
    }
    sim.run();
    let numbers: Vec<u64> = sim.ran.iter().map(|ran| ran.task.number).collect();
    assert_eq!(numbers, [0, 1, 3]);
    assert!(tasks[0].is_done() && tasks[1].is_done() && tasks[3].is_done());
    assert!(sim.worker(0).told().is_empty());
    sim.end();
}

#[test]
fn a_cancelled_task_that_runs_is_asked_to_end_then_terminated_then_killed() {
    let mut sim = Sim::new(config());
    let task = sim.submit(SECOND);
    sim.start_all();
    let worker = sim.worker(0);
    worker.begin().unwrap();
    assert!(!worker.is_told_to_end());
    sim.cancel(&task);
    assert!(worker.is_told_to_end() && worker.told().is_empty());
    sim.pass(99 * MILLI);
    assert!(worker.told().is_empty());
    sim.pass(2 * MILLI);
    assert_eq!(worker.told(), [Told::Terminate]);
    sim.pass(248 * MILLI);
    assert_eq!(worker.told(), [Told::Terminate]);
    sim.pass(2 * MILLI);
    assert_eq!(worker.told(), [Told::Terminate, Told::Kill]);
    assert!(worker.is_reaped());
    assert!(task.error().is_cancelled());
    sim.end();
}

#[test]
fn a_worker_whose_task_returns_when_asked_to_end_continues() {
    let mut sim = Sim::new(config());
    let task = sim.submit(SECOND);
    sim.start_all();
    sim.worker(0).begin().unwrap();
    sim.cancel(&task);
    sim.worker(0).finish(MILLI);
    sim.turn();
    assert!(task.error().is_cancelled(), "though it returned");
    let next = sim.submit(MILLI);
    sim.run();
    assert!(next.is_done());
    assert_eq!(sim.workers().len(), 1);
    sim.end();
}

#[test]
fn a_task_is_stopped_at_its_time_limit_and_those_behind_it_run() {
    let mut sim = Sim::new(Config { jobs: 1, ..limited() });
    let tasks: Vec<_> = (0..3).map(|_| sim.submit(MILLI)).collect();
    sim.start_all();
    sim.worker(0).begin().unwrap();
    sim.pass(999 * MILLI);
    assert!(!sim.worker(0).is_told_to_end());
    // A sixteenth longer.
    sim.pass(64 * MILLI);
    assert!(sim.worker(0).is_told_to_end());
    sim.run();
    assert!(tasks[0].error().is_timeout());
    assert!(tasks[1].is_done() && tasks[2].is_done());
    sim.end();
}

#[test]
fn a_task_that_begins_late_has_its_whole_time() {
    for late in [1, 50, 62, 63, 100] {
        let mut sim = Sim::new(limited());
        let task = sim.submit(MILLI);
        sim.start_all();
        sim.pass(late * MILLI);
        sim.worker(0).begin().unwrap();
        sim.pass(999 * MILLI);
        assert!(!sim.worker(0).is_told_to_end(), "it began after {late} ms");
        sim.pass(128 * MILLI);
        assert!(sim.worker(0).is_told_to_end(), "it began after {late} ms");
        sim.run();
        assert!(task.error().is_timeout());
        sim.end();
    }
}

#[test]
fn the_time_for_which_the_program_was_stopped_does_not_count() {
    let mut sim = Sim::new(limited());
    let task = sim.submit(MILLI);
    sim.start_all();
    sim.worker(0).begin().unwrap();
    sim.turn();
    // All clocks but this one stood still.
    sim.now += 3600 * SECOND;
    sim.turn();
    assert!(!sim.worker(0).is_told_to_end());
    sim.pass(500 * MILLI);
    assert!(!sim.worker(0).is_told_to_end());
    sim.pass(SECOND);
    assert!(sim.worker(0).is_told_to_end());
    sim.run();
    assert!(task.error().is_timeout());
    sim.end();
}

#[test]
fn a_task_that_has_not_begun_is_not_timed() {
    let mut sim = Sim::new(limited());
    let task = sim.submit(MILLI);
    sim.start_all();
    sim.pass(60 * SECOND);
    assert!(!sim.worker(0).is_told_to_end() && sim.worker(0).told().is_empty());
    sim.run();
    assert!(task.is_done());
    sim.end();
}

#[test]
fn a_result_that_arrived_before_the_limit_counts_although_it_is_read_late() {
    let mut sim = Sim::new(limited());
    let task = sim.submit(MILLI);
    sim.start_all();
    sim.worker(0).begin().unwrap();
    sim.pass(990 * MILLI);
    sim.worker(0).finish(MILLI);
    sim.now += SECOND;
    sim.scheduler.run_due(sim.now);
    assert!(task.is_done());
    sim.end();
}
