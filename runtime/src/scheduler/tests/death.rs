//! The outcome of the tasks of a worker that ends or sends nonsense.

use super::{KILLED, batches_of, retried};
use crate::{
    error::{Exit, TaskErrorKind},
    launch::fake::{Recalls, Told},
    scheduler::{
        config::{CallOptions, Config},
        machine::StateMachine as _,
        sim::{MILLI, SECOND, Sim, config},
    },
    transport::Cause,
};

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
fn a_worker_without_a_board_is_sent_one_task_at_a_time() {
    let mut sim = Sim::new(Config { jobs: 1, ..config() });
    sim.launcher.lock().recalls = Recalls::Never;
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
    sim.launcher.lock().recalls = Recalls::Never;
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
fn an_invalid_message_ends_the_worker_and_not_the_pool() {
    let garbage: [&[u8]; 4] = [b"", b"\xffgarbage", &[5], &[3, 0, 0]];
    for frame in garbage {
        let mut sim = Sim::new(Config { jobs: 1, ..config() });
        let tasks: Vec<_> = (0..3).map(|_| sim.submit(MILLI)).collect();
        sim.start_all();
        sim.worker(0).begin().unwrap();
        sim.worker(0).send(frame);
        sim.run();
        let error = tasks[0].error();
        assert!(
            error.is_lost()
                && error.to_string().contains("its process was killed: it sent an invalid message"),
            "{error}"
        );
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
fn a_task_that_the_kernel_kills_for_memory_fails_as_out_of_memory() {
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
