//! Tasks at workers that say later what they have begun.

use super::{KILLED, batches_of, limited};
use crate::{
    error::{Exit, TaskError},
    launch::fake::{Recalls, Told},
    scheduler::{
        config::{CallOptions, Config},
        sim::{Called, MILLI, SECOND, Sim, config},
    },
};

/// A pool of a worker that answers a recall when the test says so. It has this many tasks and has begun one of them.
fn pool_of_late_answers(tasks: usize, retries: u32) -> (Sim, Called) {
    let mut sim = Sim::new(Config { jobs: 1, ..config() });
    sim.launcher.lock().recalls = Recalls::Later;
    let call =
        sim.call_with((0..tasks).map(|_| MILLI), CallOptions { retries: Some(retries), ..batches_of(tasks) });
    sim.close_call(&call);
    sim.start_all();
    sim.worker(0).begin().expect("it has tasks");
    assert_eq!(sim.worker(0).waiting(), tasks - 1, "they are sent together, because they can be recalled");
    (sim, call)
}

#[test]
fn a_call_is_cancelled_at_a_worker_that_answers_the_recall_later() {
    let (mut sim, mut call) = pool_of_late_answers(5, 0);
    sim.cancel_call(&call);
    sim.turn();
    assert!(call.outcomes().is_empty() && !sim.worker(0).is_told_to_end(), "nothing is known yet");
    let next = sim.submit(MILLI);
    sim.turn();
    assert_eq!(sim.worker(0).waiting(), 4, "nothing is sent to it meanwhile");
    sim.worker(0).finish(MILLI);
    sim.worker(0).begin().unwrap();
    sim.worker(0).answer();
    sim.turn();
    assert!(sim.worker(0).is_told_to_end());
    sim.run();
    assert_eq!(call.done(), 1);
    let errors: Vec<_> = call.outcomes().values().filter_map(|outcome| outcome.as_ref().err()).collect();
    let stopped = errors.iter().filter(|error| error.to_string().contains("while it ran")).count();
    assert!(errors.iter().all(|error| error.is_cancelled()) && (errors.len(), stopped) == (4, 1));
    assert!(next.is_done() && sim.workers().len() == 1);
    sim.end();
}

#[test]
fn a_cancelled_task_of_a_worker_that_ends_without_an_answer_does_not_run_again() {
    let (mut sim, mut call) = pool_of_late_answers(5, 3);
    sim.cancel_call(&call);
    sim.worker(0).end(Exit::from_signal(KILLED));
    sim.run();
    assert!(call.outcomes().values().all(|outcome| outcome.as_ref().is_err_and(TaskError::is_cancelled)));
    assert_eq!(call.outcomes().len(), 5);
    sim.end();
}

#[test]
fn a_task_is_stopped_at_its_time_limit_once_its_worker_has_answered_the_recall() {
    let mut sim = Sim::new(Config { jobs: 1, ..limited() });
    sim.launcher.lock().recalls = Recalls::Later;
    let task = sim.submit(MILLI);
    sim.start_all();
    sim.worker(0).begin().unwrap();
    // The limit and a sixteenth.
    sim.pass(SECOND + 64 * MILLI);
    assert!(!sim.worker(0).is_told_to_end());
    sim.worker(0).answer();
    sim.pass(20 * MILLI);
    assert!(sim.worker(0).is_told_to_end());
    sim.run();
    assert!(task.error().is_timeout());
    sim.end();
}

#[test]
fn a_worker_that_never_answers_a_recall_is_replaced_and_its_other_tasks_run() {
    let mut sim = Sim::new(Config { jobs: 2, ..config() });
    sim.launcher.lock().recalls = Recalls::Later;
    let mut call = sim.call_with((0..10).map(|_| MILLI), batches_of(10));
    sim.close_call(&call);
    sim.start_all();
    sim.worker(0).begin().unwrap();
    // The other worker is idle, so the tasks of the first are recalled, and it does not answer.
    sim.pass(10 * SECOND);
    assert!(sim.worker(0).told().contains(&Told::Kill) && sim.worker(0).is_reaped());
    sim.run();
    assert_eq!(call.done(), 9);
    let lost = call.outcomes()[&0].as_ref().unwrap_err().to_string();
    assert!(lost.contains("did not say in time"), "{lost}");
    sim.end();
}
