//! Workers that leave in good order, and pools that end.

use super::batches_of;
use crate::{
    launch::fake::Told,
    scheduler::{
        config::{CallOptions, Config, Lives},
        sim::{MICRO, MILLI, SECOND, Sim, config},
    },
};

fn lives(lives: Lives) -> Config {
    Config { lives, ..config() }
}

#[test]
fn closing_fails_waiting_tasks_kills_busy_workers_and_drains_idle_ones() {
    let mut sim = Sim::new(config());
    let mut call = sim.call_with((0..2).map(|_| MILLI), CallOptions { retries: Some(7), ..batches_of(1) });
    sim.start_all();
    let (first, second) = (sim.worker(0), sim.worker(1));
    first.begin().unwrap();
    second.run_all(MILLI);
    sim.turn();
    let tasks: Vec<_> = (0..10).map(|_| sim.submit(MILLI)).collect();
    sim.scheduler.close(sim.now);
    for task in tasks {
        assert!(task.error().is_cancelled());
    }
    assert_eq!(first.told(), [Told::Kill]);
    assert!(second.is_left() && second.told().is_empty());
    sim.turn();
    let outcomes = call.outcomes();
    assert!(outcomes[&0].as_ref().unwrap_err().is_cancelled(), "it is not retried: {:?}", outcomes[&0]);
    assert!(outcomes[&1].is_ok());
    sim.check_over();
    let late = sim.submit(MILLI);
    assert!(late.error().is_cancelled());
}

#[test]
fn a_drained_worker_that_does_not_leave_is_killed() {
    let mut sim = Sim::new(config());
    sim.submit(MILLI);
    sim.run();
    let worker = sim.worker(0);
    worker.refuse_signals();
    sim.submit(MILLI);
    sim.turn();
    worker.begin().unwrap();
    sim.scheduler.close(sim.now);
    assert_eq!(worker.told(), [Told::Kill]);
    // It neither ends nor closes its connection.
    sim.pass(60 * SECOND);
    assert!(worker.is_given_up(), "the system refuses to signal it, so it is left to itself");
    sim.check_over();
}

#[test]
fn a_joined_pool_lets_every_worker_leave_by_itself() {
    let mut sim = Sim::new(config());
    let mut call = sim.call((0..100).map(|_| MILLI));
    sim.close_call(&call);
    sim.run();
    sim.scheduler.retire_all();
    sim.pass(MILLI);
    assert_eq!(call.done(), 100);
    assert!(sim.workers().iter().all(|worker| worker.is_left() && worker.told().is_empty()));
    sim.check_over();
}

#[test]
fn a_worker_that_has_grown_is_replaced_after_its_task_and_the_tasks_behind_it_run() {
    let mut sim = Sim::new(lives(Lives { max_rss: Some(100 << 20), ..Lives::default() }));
    let mut call = sim.call_with((0..100).map(|_| MILLI), CallOptions { workers: Some(1), ..batches_of(10) });
    sim.close_call(&call);
    sim.start_all();
    sim.worker(0).begin().unwrap();
    sim.worker(0).grow_to(101 << 20);
    sim.worker(0).finish(MILLI);
    sim.run();
    assert_eq!(call.done(), 100);
    assert_eq!(sim.workers().len(), 2);
    assert!(sim.ran.iter().all(|ran| ran.worker == 1), "the first worker ran one task");
    assert!(sim.worker(0).is_reaped() && sim.worker(0).told().is_empty());
    assert_eq!(sim.notes.len(), 1);
    assert!(sim.notes[0].contains("has grown to 101 MiB"), "{}", sim.notes[0]);
    sim.end();
}

#[test]
fn a_worker_runs_no_more_tasks_than_it_may() {
    let mut sim = Sim::new(lives(Lives { max_tasks: Some(7), ..Lives::default() }));
    let mut call = sim.call((0..100).map(|_| 10 * MICRO));
    sim.close_call(&call);
    sim.run();
    assert_eq!(call.done(), 100);
    for worker in 0..sim.workers().len() {
        let ran = sim.ran.iter().filter(|ran| ran.worker == worker).count();
        assert!(ran <= 7, "worker {worker} ran {ran}");
    }
    sim.end();
}

#[test]
fn a_worker_leaves_when_it_was_idle_for_the_timeout() {
    let mut sim = Sim::new(lives(Lives { idle_timeout: Some(SECOND), ..Lives::default() }));
    sim.submit(MILLI);
    sim.run();
    sim.pass(990 * MILLI);
    assert_eq!(sim.alive(), 1);
    sim.pass(20 * MILLI);
    assert_eq!(sim.alive(), 0);
    let again = sim.submit(MILLI);
    sim.run();
    assert!(again.is_done());
    sim.end();
}

#[test]
fn a_smaller_pool_takes_back_what_its_leaving_workers_have_not_begun() {
    let mut sim = Sim::new(Config { jobs: 4, ..config() });
    let mut call = sim.call_with((0..40).map(|_| MILLI), batches_of(10));
    sim.close_call(&call);
    sim.start_all();
    let workers = sim.workers();
    assert_eq!(workers.len(), 4);
    workers.iter().for_each(|worker| drop(worker.begin().unwrap()));
    sim.scheduler.resize(1, sim.now);
    workers.iter().for_each(|worker| worker.finish(MILLI));
    sim.turn();
    assert_eq!(sim.alive(), 1);
    sim.run();
    assert_eq!(call.done(), 40);
    sim.scheduler.resize(4, sim.now);
    let mut call = sim.call((0..400).map(|_| MILLI));
    sim.run();
    assert_eq!((call.done(), sim.alive()), (400, 4));
    sim.end();
}
