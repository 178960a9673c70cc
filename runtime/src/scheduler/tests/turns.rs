//! The order in which tasks run, and the number of workers that run them.

use std::time::Duration;

use super::{KILLED, shortage};
use crate::{
    error::Exit,
    launch::fake::StartOutcome,
    scheduler::{
        config::{CallOptions, Config},
        machine::StateMachine as _,
        policy::SHARE_AFTER,
        sim::{MICRO, MILLI, SECOND, START, Sim, config},
    },
};

#[test]
fn a_task_runs_once_and_its_result_reaches_its_handle() {
    let mut sim = Sim::new(config());
    let task = sim.submit(MILLI);
    sim.run();
    assert!(task.is_done());
    assert_eq!(sim.ran.len(), 1);
    assert_eq!(sim.since(), START + MILLI);
    assert_eq!(sim.workers().len(), 1, "one worker is enough for one task");
    sim.end();
}

#[test]
fn every_task_of_a_call_runs_once_on_all_workers() {
    for is_patient in [false, true] {
        let mut sim = Sim::new(config());
        let options = CallOptions { is_patient, ..CallOptions::default() };
        let mut call = sim.call_with((0..2_000).map(|_| 5 * MICRO), options);
        sim.close_call(&call);
        sim.run();
        assert_eq!(call.done(), 2_000);
        assert_eq!(sim.ran.len(), 2_000);
        let at_first = sim.ran.iter().filter(|ran| ran.worker == 0).count();
        assert!((800..1_200).contains(&at_first), "{at_first}");
        assert!(sim.since() < START + 7 * MILLI, "two workers take 5 ms: {:?}", sim.since());
        sim.end();
    }
}

#[test]
fn no_short_task_waits_behind_a_long_one() {
    for is_patient in [false, true] {
        let mut sim = Sim::new(config());
        // After the first hundreds, the tasks count as short and are sent many at a time.
        let tasks = (0..5_000).map(|n| if n == 1_000 { SECOND } else { 10 * MICRO });
        let mut call = sim.call_with(tasks, CallOptions { is_patient, ..CallOptions::default() });
        sim.close_call(&call);
        sim.run_for(SECOND / 2);
        assert_eq!(call.done(), 4_999, "all short tasks are done while the long one runs");
        let last = sim.ran.iter().map(|ran| ran.ended).max().unwrap();
        let ideal = START + 5_000 * 10 * MICRO;
        assert!(last - sim.begun < ideal + 5 * SHARE_AFTER, "{:?}", last - sim.begun);
        sim.run();
        assert_eq!(call.done(), 5_000);
        assert_eq!(sim.ran.len(), 5_000, "no task ran twice");
        sim.end();
    }
}

#[test]
fn a_single_task_does_not_wait_behind_a_call_of_thousands() {
    for is_patient in [false, true] {
        for after in 0..20 {
            let mut sim = Sim::new(config());
            let options = CallOptions { is_patient, ..CallOptions::default() };
            let mut call = sim.call_with((0..1_000).map(|_| 100 * MICRO), options);
            sim.close_call(&call);
            sim.run_for(20 * MILLI + after * 230 * MICRO);
            let task = sim.submit_from(7, 100 * MICRO);
            sim.run_for(MILLI);
            assert!(task.is_done(), "its turn comes after one batch");
            assert!(call.done() < 600);
            sim.cancel_call(&call);
            sim.run();
            sim.end();
        }
    }
}

/// Returns how often the host is woken in a millisecond of a call, and how much longer the call takes than the cores need.
fn simulate(cpus: usize, each: Duration, is_patient: bool) -> (f64, f64) {
    let mut sim = Sim::new(Config { jobs: cpus, ..config() });
    sim.wake_cost = 20 * MICRO;
    let mut warm = sim.call((0..cpus).map(|_| MILLI));
    sim.close_call(&warm);
    sim.run();
    assert_eq!(warm.done(), cpus);
    let time = 50 * MILLI;
    let tasks = cpus * time.div_duration_f64(each) as usize;
    let (wakes, begun) = (sim.wakes, sim.now);
    let options = CallOptions { is_patient, ..CallOptions::default() };
    let mut call = sim.call_with((0..tasks).map(|_| each), options);
    sim.close_call(&call);
    sim.run();
    assert_eq!(call.done(), tasks);
    let took = sim.now - begun;
    let wakes = (sim.wakes - wakes) as f64 / (took.as_secs_f64() * 1e3);
    sim.end();
    (wakes, took.div_duration_f64(time) - 1.0)
}

#[test]
fn a_patient_call_wakes_the_host_rarely_on_any_number_of_cores() {
    for cpus in [1, 2, 8, 64] {
        for each in [50 * MICRO, 100 * MICRO, MILLI] {
            let (wakes, late) = simulate(cpus, each, true);
            let (urgent_wakes, urgent_late) = simulate(cpus, each, false);
            println!(
                "{cpus} cores, {each:?}: {wakes:.2} wakes/ms, +{:.1} %; else {urgent_wakes:.2}, +{:.1} %",
                late * 100.0,
                urgent_late * 100.0
            );
            assert!(wakes < 1.5, "{cpus} cores, {each:?}: {wakes} in a millisecond");
            assert!(late < 0.05, "{cpus} cores, {each:?}: {late}");
        }
    }
}

#[test]
fn no_queue_waits_for_another_to_end() {
    let busy = [(10 * MICRO, None), (100 * MICRO, None), (10 * MILLI, None), (100 * MICRO, Some(50))];
    let next = [(MICRO, None), (10 * MILLI, None), (100 * MICRO, Some(1)), (10 * MILLI, Some(20))];
    for ((first, first_batch), is_patient) in busy.into_iter().flat_map(|busy| [(busy, false), (busy, true)])
    {
        for (second, second_batch) in next {
            let mut sim = Sim::new(config());
            let time = 4 * first * first_batch.unwrap_or(4) as u32 + 2 * second + 2 * MILLI;
            // As many tasks as keep both workers busy for all of the time.
            let tasks = 2 * time.div_duration_f64(first) as usize + 100;
            let options = CallOptions { batch: first_batch, is_patient, ..CallOptions::default() };
            let mut busy = sim.call_with((0..tasks).map(|_| first), options);
            sim.run_for(START + 10 * first);
            let mut call =
                sim.call_with([second; 2], CallOptions { batch: second_batch, ..CallOptions::default() });
            sim.close_call(&call);
            sim.run_for(time);
            let case = (first, first_batch, second, second_batch, is_patient);
            assert_eq!(call.done(), 2, "{case:?}");
            assert!(busy.done() < tasks, "{case:?}");
        }
    }
}

#[test]
fn calls_share_the_workers_by_turns() {
    let mut sim = Sim::new(config());
    let mut calls: Vec<_> = (0..4).map(|_| sim.call((0..2_000).map(|_| 50 * MICRO))).collect();
    sim.run_for(20 * MILLI);
    let done: Vec<usize> = calls.iter_mut().map(crate::scheduler::sim::Called::done).collect();
    let (least, most) = (*done.iter().min().unwrap(), *done.iter().max().unwrap());
    assert!(least > 150 && most < least + least / 5, "{done:?}");
    sim.end();
}

#[test]
fn a_call_uses_no_more_workers_than_it_may() {
    let mut sim = Sim::new(Config { jobs: 8, ..config() });
    let mut call =
        sim.call_with((0..1_000).map(|_| MILLI), CallOptions { workers: Some(3), ..CallOptions::default() });
    sim.close_call(&call);
    sim.run();
    assert_eq!(call.done(), 1_000);
    assert_eq!(sim.workers().len(), 3);
    sim.end();
}

#[test]
fn records_of_a_task_are_delivered_before_anything_that_follows() {
    let mut sim = Sim::new(config());
    let task = sim.submit(MILLI);
    sim.start_all();
    sim.worker(0).begin().unwrap();
    sim.worker(0).log("half");
    sim.worker(0).finish(MILLI);
    sim.scheduler.handle(&[], sim.now);
    assert!(task.outcome().is_none(), "its record comes first");
    assert_eq!(sim.scheduler.deadline(sim.now), Some(sim.now));
    assert_eq!(sim.scheduler.effects().unwrap().records.len(), 1);
    sim.turn();
    assert!(task.is_done());
    sim.end();
}

#[test]
fn a_pinned_task_runs_on_its_own_worker_and_waits_for_a_new_process_of_it() {
    let mut sim = Sim::new(Config { jobs: 3, ..config() });
    let members: Vec<_> = (0..3).map(|worker| sim.pin(worker, MILLI)).collect();
    sim.start_all();
    let workers = sim.workers();
    assert_eq!(workers.len(), 3);
    // One dies before it has begun, and one while it runs.
    workers[0].end(Exit::from_signal(KILLED));
    workers[1].begin().expect("its member");
    workers[1].end(Exit::from_signal(KILLED));
    sim.run();
    assert!(members[0].is_done() && members[2].is_done());
    let error = members[1].error();
    assert_eq!((error.is_crash(), error.task_index()), (true, Some(1)));
    assert_eq!(sim.ran.len(), 2);
    sim.end();
}

#[test]
fn a_pinned_task_does_not_wait_without_end_for_a_worker_that_does_not_start() {
    let mut sim = Sim::new(config());
    let busy = sim.submit(3600 * SECOND);
    sim.start_all();
    sim.worker(0).begin().expect("the long task");
    let member = sim.pin(1, MILLI);
    sim.launcher.lock().outcomes.extend(vec![StartOutcome::Fails(shortage()); 1000]);
    sim.pass(30 * SECOND);
    assert!(member.error().is_lost(), "though another worker serves");
    sim.cancel(&busy);
    sim.run();
    assert!(busy.error().is_cancelled());
    sim.end();
}
