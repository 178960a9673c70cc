//! Which workers of a pool run tasks if there are more of them than cores.

use std::collections::BTreeSet;

use crate::scheduler::{
    config::{CallOptions, Config},
    sim::{MICRO, MILLI, SECOND, Sim, Submitted, config},
};

#[test]
fn with_many_more_workers_than_cores_few_run_short_tasks_and_all_run_long_ones() {
    let settings = || Config { jobs: 64, ..config() };
    let mut sim = Sim::on(2, settings());
    let mut call = sim.call((0..10).map(|_| 5 * MICRO));
    sim.run();
    let started = sim.workers().len();
    for _ in 0..20 {
        sim.add(&mut call, (0..200).map(|_| 5 * MICRO));
        sim.run();
    }
    assert_eq!(call.done(), 4_010);
    let more = sim.workers().len() - started;
    assert!(more <= 4, "{more} more workers were started for short tasks");
    let mut long = sim.call((0..128).map(|_| 20 * MILLI));
    sim.close_call(&long);
    sim.run();
    assert_eq!(long.done(), 128);
    assert_eq!(sim.workers().len(), 64);
    sim.end();
}

/// A pool of 64 workers on 2 cores. All have started, and are idle.
fn crowd(computes: bool) -> Sim {
    let mut sim = Sim::on(2, Config { jobs: 64, ..config() });
    sim.launcher.lock().computes = computes;
    let all: Vec<_> = (0..64).map(|worker| sim.pin(worker, MICRO)).collect();
    sim.run();
    assert!(all.iter().all(Submitted::is_done));
    sim.ran.clear();
    sim
}

/// The number of workers that have run something.
fn busy(sim: &Sim) -> usize {
    sim.ran.iter().map(|ran| ran.worker).collect::<BTreeSet<_>>().len()
}

#[test]
fn few_workers_of_a_crowd_are_woken_until_a_result_shows_how_long_tasks_take() {
    let mut sim = crowd(false);
    let mut call = sim.call((0..60).map(|_| 5 * MICRO));
    sim.close_call(&call);
    sim.run();
    assert_eq!(call.done(), 60);
    assert!(busy(&sim) <= 4, "{} workers were woken for short tasks", busy(&sim));

    let begun = sim.now;
    let mut long = sim.call((0..64).map(|_| SECOND));
    sim.close_call(&long);
    sim.run();
    assert_eq!((long.done(), busy(&sim)), (64, 64));
    let late = sim.now - begun - SECOND;
    assert!(late <= 2 * MILLI, "{late:?} later than if all had begun at once");

    // A thread does not wait for the tasks of another.
    let mut call = sim.call((0..2).map(|_| 20 * MILLI));
    let other = sim.submit_from(1, MILLI);
    sim.run_for(MILLI);
    assert!(other.is_done());
    sim.close_call(&call);
    sim.run();
    assert_eq!(call.done(), 2);
    sim.end();
}

#[test]
fn a_patient_call_leaves_workers_without_a_core_idle_if_its_tasks_compute() {
    for (computes, each, all) in
        [(true, 100 * MICRO, false), (false, 100 * MICRO, true), (true, 5 * MILLI, true)]
    {
        let mut sim = crowd(computes);
        let options = CallOptions { is_patient: true, ..CallOptions::default() };
        let mut call = sim.call_with((0..4_000).map(|_| each), options);
        sim.close_call(&call);
        sim.run();
        assert_eq!(call.done(), 4_000);
        assert_eq!(busy(&sim) > 4, all, "{} workers, {each:?}, {computes}", busy(&sim));
        sim.end();
    }
}
