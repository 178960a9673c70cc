//! Tasks that are taken back from a worker that says later what it has begun.

use super::{MILLI, Pair, SECOND, numbers};
use crate::{
    error::TaskErrorKind,
    launch::fake::{Recalls, Told},
    protocol::Notice,
    supervisor::event::Phase,
};

/// Returns a worker whose recalls are answered later. It has begun the first of its tasks.
fn recalled_later(tasks: u32) -> Pair {
    let mut pair = Pair::new();
    pair.launcher.lock().recalls = Recalls::Later;
    pair.launch().expect("the launcher is ready");
    pair.worker().ready();
    pair.read();
    pair.run(tasks);
    pair.worker().begin().expect("it has tasks");
    pair
}

#[test]
fn tasks_that_are_recalled_later_come_with_the_answer_and_nothing_is_sent_meanwhile() {
    let mut pair = recalled_later(4);
    let worker = pair.worker();
    assert!(pair.supervisor.take_back(pair.now).is_none(), "the answer is not there yet");
    assert!(pair.supervisor.is_stopping());
    assert!(pair.supervisor.take_back(pair.now).is_none(), "it is not asked again");
    worker.finish(MILLI);
    worker.begin().unwrap();
    assert!(worker.answer());
    pair.read();
    assert_eq!(pair.seen, ["started", "done 0", "recalled 2", "recalled 3"]);
    assert_eq!((numbers(pair.supervisor.in_flight()), pair.supervisor.given()), (vec![1], 2));
    assert!(pair.supervisor.take_back(pair.now).unwrap().is_empty(), "what is left has begun");
    pair.supervisor.stop(TaskErrorKind::Cancelled { why: "" }, pair.now);
    assert!(worker.is_told_to_end() && !worker.is_left());
    worker.finish(MILLI);
    pair.read();
    assert!(pair.seen.contains(&"stopped 1".to_owned()) && pair.supervisor.is_idle());
}

#[test]
fn an_answer_that_comes_after_the_tasks_have_ended_takes_nothing_back() {
    let mut pair = recalled_later(1);
    let worker = pair.worker();
    assert!(pair.supervisor.take_back(pair.now).is_none());
    worker.finish(MILLI);
    pair.read();
    assert!(pair.supervisor.is_idle() && !pair.supervisor.is_stopping());
    pair.run(3);
    worker.answer();
    pair.read();
    assert_eq!(numbers(pair.supervisor.in_flight()), [1, 2, 3]);
    assert!(pair.supervisor.take_back(pair.now).is_none(), "it is asked again");
    worker.answer();
    pair.read();
    assert_eq!(pair.seen, ["started", "done 0", "recalled 1", "recalled 2", "recalled 3"]);
    pair.run(1);
    worker.begin().unwrap();
    assert!(pair.supervisor.take_back(pair.now).is_none());
    worker.finish(MILLI);
    pair.read();
    pair.supervisor.drain(pair.now);
    worker.answer();
    pair.until_ended();
    assert_eq!((pair.reap().was, worker.told()), (Phase::Draining, vec![]));
}

#[test]
fn a_worker_that_does_not_answer_a_recall_in_time_is_killed_and_its_end_shows_what_has_begun() {
    let mut pair = recalled_later(3);
    assert!(pair.supervisor.take_back(pair.now).is_none());
    let asked = pair.now;
    while pair.worker().told().is_empty() {
        pair.now = pair.supervisor.deadline().expect("a look is due while a recall is unanswered");
        pair.read();
    }
    assert!((2 * SECOND..4 * SECOND).contains(&(pair.now - asked)));
    pair.until_ended();
    let report = pair.reap();
    assert_eq!((numbers(&report.running), numbers(&report.waiting)), (vec![0], vec![1, 2]));
    assert!(report.killed && report.reason.unwrap().contains("which tasks have begun"));
}

#[test]
fn an_answer_to_no_recall_and_one_that_cannot_be_true_are_nonsense() {
    for (is_asked, begun) in [(false, 1), (true, 3), (true, 9)] {
        let mut pair = recalled_later(2);
        if is_asked {
            assert!(pair.supervisor.take_back(pair.now).is_none());
        }
        pair.worker().send(&Notice::Recalled { begun }.encode());
        pair.read();
        assert_eq!(pair.worker().told(), [Told::Kill], "{is_asked} {begun}");
        pair.until_ended();
        let report = pair.reap();
        assert_eq!((numbers(&report.running), numbers(&report.waiting)), (vec![0], vec![1]));
    }
}
