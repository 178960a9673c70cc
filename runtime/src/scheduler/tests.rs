//! What the scheduler promises, on virtual time.

use std::time::Duration;

use super::{
    config::{CallOptions, Config, Finalizer, Lives},
    policy::SHARE_AFTER,
    restarts::Intensity,
    sim::{MICRO, MILLI, SECOND, START, Sim, config},
};
use crate::{
    codec::ShortBytes,
    error::{Exit, TaskErrorKind},
    launch::{
        LaunchError,
        fake::{FakeTask, FakeWorker, Outcome, Told},
    },
    protocol, registry,
    task::Call,
    transport::Cause,
};

const KILLED: i32 = 9;

/// A pool that retries its tasks so many times.
fn retried(retries: u32) -> Config {
    Config { call: CallOptions { retries: Some(retries), ..CallOptions::default() }, ..config() }
}

/// A pool whose tasks have a time limit.
fn limited() -> Config {
    Config { call: CallOptions { timeout: Some(SECOND), ..CallOptions::default() }, ..config() }
}

/// A call whose tasks are sent so many together.
fn batches_of(tasks: usize) -> CallOptions {
    CallOptions { batch: Some(tasks), ..CallOptions::default() }
}

fn lives(lives: Lives) -> Config {
    Config { lives, ..config() }
}

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
    let mut sim = Sim::new(config());
    let mut call = sim.call((0..2_000).map(|_| 5 * MICRO));
    sim.close_call(&call);
    sim.run();
    assert_eq!(call.done(), 2_000);
    assert_eq!(sim.ran.len(), 2_000);
    let at_first = sim.ran.iter().filter(|ran| ran.worker == 0).count();
    assert!((800..1_200).contains(&at_first), "{at_first}");
    assert!(sim.since() < START + 7 * MILLI, "two workers take 5 ms: {:?}", sim.since());
    sim.end();
}

#[test]
fn no_short_task_waits_behind_a_long_one() {
    let mut sim = Sim::new(config());
    // After the first hundreds, the tasks count as short and are sent many at a time.
    let tasks = (0..5_000).map(|n| if n == 1_000 { SECOND } else { 10 * MICRO });
    let mut call = sim.call(tasks);
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

#[test]
fn a_killed_worker_fails_only_its_own_task() {
    let mut sim = Sim::new(config());
    let mut call = sim.call_with((0..100).map(|_| MILLI), batches_of(10));
    sim.close_call(&call);
    sim.start_all();
    let worker = sim.worker(0);
    let running = worker.begin().unwrap();
    assert!(worker.waiting() >= 9);
    worker.end(Exit::from_signal(KILLED));
    sim.run();
    assert_eq!(call.done(), 99);
    let error = call.outcomes()[&(running.number as usize)].as_ref().unwrap_err();
    assert!(error.is_crash());
    assert_eq!((error.exit().unwrap().signal(), error.attempts()), (Some(KILLED), 1));
    let mut numbers: Vec<u64> = sim.ran.iter().map(|ran| ran.task.number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 99);
    assert_eq!(sim.ran.len(), 99, "none ran twice");
    sim.end();
}

#[test]
fn a_task_is_retried_exactly_as_often_as_asked() {
    for retries in 0..4 {
        let mut sim = Sim::new(retried(retries));
        let task = sim.submit(MILLI);
        for n in 0..=retries {
            sim.start_all();
            let worker = sim.workers().pop().unwrap();
            assert!(worker.begin().is_some(), "attempt {n}");
            worker.end(Exit::from_signal(KILLED));
            sim.turn();
            // The pause before the next start.
            sim.pass(SECOND);
        }
        let error = task.error();
        assert!(error.is_crash());
        assert_eq!(error.attempts(), retries + 1);
        assert_eq!(sim.workers().len() as u32, retries + 1, "no worker is started for nothing");
        sim.end();
    }
}

#[test]
fn a_task_that_fails_by_itself_is_not_retried() {
    let mut sim = Sim::new(retried(5));
    let task = sim.submit(MILLI);
    sim.start_all();
    sim.worker(0).begin().unwrap();
    sim.worker(0).fail();
    sim.run();
    assert!(task.error().is_codec());
    assert!(sim.ran.is_empty());
    sim.end();
}

#[test]
fn tasks_that_a_dead_worker_had_not_begun_do_not_count_as_attempts() {
    let mut sim = Sim::new(config());
    let mut call = sim.call_with((0..3).map(|_| MILLI), CallOptions { workers: Some(1), ..batches_of(3) });
    sim.close_call(&call);
    for _ in 0..3 {
        sim.start_all();
        sim.workers().pop().unwrap().begin().unwrap();
        sim.workers().pop().unwrap().end(Exit::from_code(3));
        sim.turn();
    }
    for index in 0..3 {
        let error = call.outcomes()[&index].as_ref().unwrap_err();
        assert_eq!((error.attempts(), error.exit().unwrap().code()), (1, Some(3)), "task {index}");
    }
    sim.end();
}

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
fn a_launcher_that_is_not_ready_is_asked_again_when_it_is_tended() {
    let mut sim = Sim::new(config());
    sim.launcher.lock().outcomes.extend([Outcome::NotYet, Outcome::NotYet]);
    let task = sim.submit(MILLI);
    sim.turn();
    assert_eq!(sim.launcher.lock().asked, 1);
    assert!(sim.workers().is_empty());
    assert_eq!(sim.scheduler.deadline(sim.now), None, "the launcher tells when it is ready");
    sim.turn();
    sim.run();
    assert!(task.is_done());
    sim.end();
}

#[test]
fn a_launcher_is_told_how_many_workers_the_tasks_want_before_the_first_is_requested() {
    let mut sim = Sim::new(Config { jobs: 4, ..config() });
    sim.launcher.lock().outcomes.push_back(Outcome::NotYet);
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

#[test]
fn a_shortage_is_waited_out_for_the_start_timeout() {
    let mut sim = Sim::new(config());
    sim.launcher.lock().outcomes.extend(vec![Outcome::Fails(shortage()); 5]);
    let task = sim.submit(MILLI);
    sim.run();
    assert!(task.is_done());
    assert_eq!(sim.launcher.lock().asked, 6);

    let mut sim = Sim::new(config());
    sim.launcher.lock().outcomes.extend(vec![Outcome::Fails(shortage()); 1000]);
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
fn what_the_system_refuses_for_good_fails_at_once() {
    let mut sim = Sim::new(config());
    sim.launcher.lock().outcomes.push_back(Outcome::Fails(LaunchError::Refused("no".to_owned())));
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
    sim.launcher.lock().outcomes.extend(vec![Outcome::Fails(refused); 20]);
    let second = sim.submit(MILLI);
    sim.pass(SECOND);
    assert!(sim.launcher.lock().asked > 3, "it is tried again");
    sim.worker(0).finish(SECOND);
    sim.run();
    assert!(first.is_done() && second.is_done());
    sim.end();
}

#[test]
fn a_single_task_does_not_wait_behind_a_call_of_thousands() {
    let mut sim = Sim::new(config());
    let mut call = sim.call((0..1_000).map(|_| 100 * MICRO));
    sim.close_call(&call);
    sim.run_for(20 * MILLI);
    let task = sim.submit_from(7, 100 * MICRO);
    sim.run_for(MILLI);
    assert!(task.is_done(), "its turn comes after one batch");
    assert!(call.done() < 600);
    sim.cancel_call(&call);
    sim.run();
    sim.end();
}

#[test]
fn no_queue_waits_for_another_to_end() {
    let busy = [(10 * MICRO, None), (100 * MICRO, None), (10 * MILLI, None), (100 * MICRO, Some(50))];
    let next = [(MICRO, None), (10 * MILLI, None), (100 * MICRO, Some(1)), (10 * MILLI, Some(20))];
    for (first, first_batch) in busy {
        for (second, second_batch) in next {
            let mut sim = Sim::new(config());
            let time = 4 * first * first_batch.unwrap_or(4) as u32 + 2 * second + 2 * MILLI;
            // As many tasks as keep both workers busy for all of the time.
            let tasks = 2 * time.div_duration_f64(first) as usize + 100;
            let mut busy = sim.call_with(
                (0..tasks).map(|_| first),
                CallOptions { batch: first_batch, ..CallOptions::default() },
            );
            sim.run_for(START + 10 * first);
            let mut call =
                sim.call_with([second; 2], CallOptions { batch: second_batch, ..CallOptions::default() });
            sim.close_call(&call);
            sim.run_for(time);
            let case = (first, first_batch, second, second_batch);
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
    let done: Vec<usize> = calls.iter_mut().map(super::sim::Called::done).collect();
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
fn a_cancelled_task_that_runs_is_told_to_end_then_terminated_then_killed() {
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
fn a_worker_whose_task_returns_when_told_to_end_continues() {
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
    sim.pass(20 * MILLI);
    assert!(sim.worker(0).is_told_to_end());
    sim.run();
    assert!(tasks[0].error().is_timeout());
    assert!(tasks[1].is_done() && tasks[2].is_done());
    sim.end();
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
    sim.scheduler.tend(sim.now);
    assert!(task.is_done());
    sim.end();
}

#[test]
fn closing_fails_what_waits_kills_what_runs_and_drains_what_is_idle() {
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
    sim.scheduler.resize(1);
    workers.iter().for_each(|worker| worker.finish(MILLI));
    sim.turn();
    assert_eq!(sim.alive(), 1);
    sim.run();
    assert_eq!(call.done(), 40);
    sim.scheduler.resize(4);
    let mut call = sim.call((0..400).map(|_| MILLI));
    sim.run();
    assert_eq!((call.done(), sim.alive()), (400, 4));
    sim.end();
}

#[test]
fn of_many_more_workers_than_cores_few_run_short_tasks_and_all_run_long_ones() {
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

#[test]
fn a_worker_without_a_board_is_sent_one_task_at_a_time() {
    let mut sim = Sim::new(Config { jobs: 1, ..config() });
    sim.launcher.lock().without_board = true;
    let mut call = sim.call_with((0..3).map(|_| MILLI), CallOptions { retries: Some(5), ..batches_of(100) });
    sim.close_call(&call);
    sim.start_all();
    let worker = sim.worker(0);
    assert_eq!(worker.waiting(), 1);
    worker.begin().unwrap();
    worker.end(Exit::from_signal(KILLED));
    sim.run();
    let lost = call.outcomes()[&0].as_ref().unwrap_err();
    assert!(lost.is_lost() && lost.to_string().contains("it is unknown whether it ran"), "{lost}");
    assert_eq!(call.done(), 2, "only the task that it had is lost, and is not retried");
    sim.end();
}

#[test]
fn a_stopped_task_of_a_worker_without_a_board_ends_its_worker() {
    let mut sim = Sim::new(Config { jobs: 1, ..config() });
    sim.launcher.lock().without_board = true;
    let task = sim.submit(SECOND);
    sim.start_all();
    sim.worker(0).begin().unwrap();
    sim.cancel(&task);
    assert!(sim.worker(0).is_left());
    sim.worker(0).finish(MILLI);
    sim.turn();
    assert!(task.error().is_cancelled());
    assert!(sim.worker(0).is_reaped());
    let next = sim.submit(MILLI);
    sim.run();
    assert!(next.is_done());
    sim.end();
}

#[test]
fn what_no_worker_of_ours_sends_ends_the_worker_and_not_the_pool() {
    let garbage: [&[u8]; 4] = [b"", b"\xffgarbage", &[5], &[3, 0, 0]];
    for frame in garbage {
        let mut sim = Sim::new(Config { jobs: 1, ..config() });
        let tasks: Vec<_> = (0..3).map(|_| sim.submit(MILLI)).collect();
        sim.start_all();
        sim.worker(0).begin().unwrap();
        sim.worker(0).send(frame);
        sim.run();
        let error = tasks[0].error();
        assert!(error.is_lost() && error.to_string().contains("its worker was killed"), "{error}");
        assert!(tasks[1].is_done() && tasks[2].is_done());
        assert!(sim.worker(0).told().contains(&Told::Kill));
        sim.end();
    }
}

#[test]
fn a_worker_that_leaves_tasks_unanswered_is_killed_and_they_run_elsewhere() {
    let mut sim = Sim::new(Config { jobs: 1, ..config() });
    let task = sim.submit(MILLI);
    sim.start_all();
    // It has overwritten the word, and sleeps.
    assert_eq!(sim.worker(0).board().unwrap().claim().take_back(100), 0);
    assert!(sim.worker(0).begin().is_none());
    sim.pass(2 * SECOND);
    assert!(sim.worker(0).told().contains(&Told::Kill));
    sim.run();
    assert!(task.is_done());
    sim.end();
}

#[test]
fn what_a_task_logs_is_delivered_before_anything_after_it() {
    let mut sim = Sim::new(config());
    let task = sim.submit(MILLI);
    sim.start_all();
    sim.worker(0).begin().unwrap();
    sim.worker(0).log("half");
    sim.worker(0).finish(MILLI);
    sim.scheduler.handle(&[], sim.now);
    assert!(task.outcome().is_none(), "its record comes first");
    assert_eq!(sim.scheduler.deadline(sim.now), Some(sim.now));
    assert_eq!(sim.scheduler.effects().words.len(), 1);
    sim.turn();
    assert!(task.is_done());
    sim.end();
}

#[test]
fn a_task_that_the_kernel_kills_for_memory_says_so() {
    let mut sim = Sim::new(config());
    sim.launcher.lock().oom_kills = Some(3);
    let task = sim.submit(MILLI);
    sim.start_all();
    sim.worker(0).begin().unwrap();
    sim.launcher.lock().oom_kills = Some(4);
    sim.worker(0).end(Exit::from_signal(KILLED));
    sim.turn();
    assert!(task.error().is_out_of_memory());
    // Another death is not blamed on the same event.
    let next = sim.submit(MILLI);
    sim.start_all();
    sim.workers().pop().unwrap().begin().unwrap();
    sim.workers().pop().unwrap().end(Exit::from_signal(KILLED));
    sim.turn();
    assert!(next.error().is_crash());
    sim.end();
}

#[test]
fn a_pool_that_is_broken_down_fails_everything_and_touches_no_worker() {
    let mut sim = Sim::new(config());
    let mut tasks: Vec<_> = (0..10).map(|_| sim.submit(MILLI)).collect();
    sim.start_all();
    sim.worker(0).begin().unwrap();
    sim.scheduler.break_down();
    tasks.push(sim.submit(MILLI));
    for task in &tasks {
        assert!(matches!(task.error().kind(), TaskErrorKind::Lost { .. }));
    }
    assert!(sim.scheduler.is_empty_of_workers());
    assert!(sim.workers().iter().all(|worker| worker.told().is_empty() && !worker.is_left()));
}

#[test]
fn restarts_have_no_limit_while_workers_serve() {
    let limit = Intensity { most: 0, within: SECOND };
    let mut sim = Sim::new(Config { jobs: 1, max_restarts: limit, ..config() });
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

/// A call of the function that initializes and finalizes the workers of these tests.
fn prepare() -> Call {
    Call { entry: &registry::TESTED[1], args: Ok(ShortBytes::new()) }
}

/// A pool of one worker whose workers run `prepare` first and last.
fn prepared() -> Config {
    let lives = Lives { finalizer: Some(Finalizer::new::<()>(prepare())), ..Lives::default() };
    Config { jobs: 1, initializer: Some((prepare(), protocol::Outcome::Value)), lives, ..config() }
}

fn is_prepare(task: &FakeTask) -> bool {
    task.number == u64::MAX && task.function == 1
}

#[test]
fn a_worker_runs_the_initializer_before_its_tasks_and_the_finalizer_after_them() {
    let mut sim = Sim::new(prepared());
    let tasks: Vec<_> = (0..3).map(|_| sim.submit(MILLI)).collect();
    sim.run();
    assert!(tasks.iter().all(super::sim::Submitted::is_done));
    sim.scheduler.retire_all();
    sim.run_for(SECOND);
    let ran: Vec<u64> = sim.ran.iter().map(|ran| ran.task.number).collect();
    assert_eq!(ran, [u64::MAX, 0, 1, 2, u64::MAX]);
    assert!(is_prepare(&sim.ran[0].task));
    assert!(is_prepare(&sim.ran[4].task));
    assert_eq!(sim.scheduler.take_exits().iter().filter(|exit| exit.is_ok()).count(), 1);
    let stats = sim.scheduler.stats(sim.now);
    assert!(stats.to_string().contains('3'), "own functions are no tasks: {stats}");
    sim.check_over();
}

#[test]
fn a_pool_whose_initializer_only_fails_is_given_up_with_its_failure() {
    type Failure = fn(&FakeWorker);
    let failures: [(Failure, &str); 3] = [
        (|worker| worker.fail(), "the initializer `test::prepare` could not be transferred"),
        (|worker| worker.end(Exit::from_signal(KILLED)), "`test::prepare` crashed: killed by SIGKILL"),
        (|worker| worker.end(Exit::from_code(2)), "`test::prepare` crashed: the process exited with"),
    ];
    for (fail, words) in failures {
        let limit = Intensity { most: 2, within: 30 * SECOND };
        let mut sim = Sim::new(Config { max_restarts: limit, ..prepared() });
        let task = sim.submit(MILLI);
        for n in 0..3 {
            sim.pass(SECOND);
            sim.start_all();
            let worker = sim.worker(n);
            assert!(is_prepare(&worker.begin().expect("the initializer")));
            fail(&worker);
            sim.turn();
        }
        let error = task.error();
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.to_string().contains("gave up after 3 failed starts"), "{error}");
        sim.end();
    }
}

#[test]
fn a_worker_that_dies_in_its_finalizer_leaves_the_error() {
    let mut sim = Sim::new(prepared());
    sim.submit(MILLI);
    sim.run();
    sim.scheduler.retire_all();
    sim.turn();
    assert!(is_prepare(&sim.worker(0).begin().expect("the finalizer")));
    sim.worker(0).end(Exit::from_signal(KILLED));
    sim.turn();
    let exits = sim.scheduler.take_exits();
    assert!(exits.len() == 1 && exits[0].as_ref().is_err_and(crate::TaskError::is_crash));
    sim.check_over();

    let mut sim = Sim::new(prepared());
    sim.submit(MILLI);
    sim.run();
    sim.scheduler.retire_all();
    sim.turn();
    sim.worker(0).begin().expect("the finalizer");
    sim.worker(0).fail();
    sim.turn();
    assert!(sim.scheduler.take_exits().pop().is_some_and(|exit| exit.is_err()));
    sim.check_over();
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
    sim.launcher.lock().outcomes.extend(vec![Outcome::Fails(shortage()); 1000]);
    sim.pass(30 * SECOND);
    assert!(member.error().is_lost(), "though another worker serves");
    sim.cancel(&busy);
    sim.run();
    assert!(busy.error().is_cancelled());
    sim.end();
}

#[test]
fn the_memory_limit_is_named_when_a_task_exceeds_it() {
    let mut sim = Sim::new(config());
    let tasks = [sim.submit(MILLI), sim.submit(MILLI)];
    sim.start_all();
    sim.worker(0).board().expect("a board").set_cause(Cause::OutOfMemory);
    // It had not begun: it was reading the next task.
    sim.worker(0).end(Exit::from_signal(6));
    sim.run();
    let failed = tasks.iter().filter(|task| task.outcome().expect("an outcome").is_err()).count();
    assert_eq!(failed, 1, "the task that it was reading");
    sim.end();
}
