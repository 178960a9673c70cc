//! The transitions of a supervisor, and what becomes of tasks that were sent.

use proptest::{collection::vec, prelude::*};

use super::{MILLI, Pair, SECOND, numbers};
use crate::{
    error::{Exit, TaskErrorKind},
    launch::{
        LaunchError, Peer,
        fake::{Recalls, StartOutcome, Told},
    },
    protocol::{Notice, VERSION},
    supervisor::event::Phase,
};

#[test]
fn a_start_ends_with_the_handshake_or_at_its_deadline() {
    let mut pair = Pair::new();
    pair.launcher
        .lock()
        .outcomes
        .extend([StartOutcome::NotYet, StartOutcome::Fails(LaunchError::Refused("no".to_owned()))]);
    assert!(!pair.launch().unwrap(), "the launcher is not ready");
    assert!(pair.supervisor.is_vacant());
    assert_eq!(pair.launch(), Err(LaunchError::Refused("no".to_owned())));
    assert!(pair.supervisor.is_vacant());
    assert!(pair.launch().unwrap());
    assert_eq!(pair.supervisor.deadline(), Some(pair.now + SECOND));
    pair.supervisor.on_deadline(pair.now);
    assert!(pair.supervisor.is_starting());
    pair.now += SECOND;
    pair.supervisor.on_deadline(pair.now);
    assert_eq!(pair.worker().told(), [Told::Kill]);
    pair.worker().obey();
    let report = pair.reap();
    assert_eq!(
        (report.was, report.reason.as_deref()),
        (Phase::Starting, Some("it did not complete the handshake in time"))
    );
}

#[test]
fn a_worker_of_another_build_is_not_accepted() {
    let mut pair = Pair::new();
    pair.launch().unwrap();
    let ready = crate::protocol::Ready { version: VERSION, build_id: 1, pid: 7 };
    pair.worker().send(&Notice::Ready(ready).encode());
    pair.read();
    pair.until_ended();
    let report = pair.reap();
    assert!(report.reason.unwrap().contains("it is build 0000000000000001"));
    assert!(pair.seen.is_empty());
}

#[test]
fn an_event_of_an_earlier_process_is_recognized() {
    let mut pair = Pair::new();
    pair.launch().unwrap();
    pair.worker().end(Exit::from_code(0));
    let keys = pair.worker().events();
    assert!(keys.iter().all(|key| pair.supervisor.owns(*key)));
    drop(pair.reap());
    assert!(keys.iter().all(|key| !pair.supervisor.owns(*key)));
    pair.launch().unwrap();
    assert!(keys.iter().all(|key| !pair.supervisor.owns(*key)));
}

#[test]
fn tasks_that_were_taken_back_are_not_begun_and_the_others_are_answered_in_order() {
    let mut pair = Pair::new();
    pair.launch().unwrap();
    pair.worker().ready();
    pair.read();
    pair.run(2);
    pair.run(3);
    let worker = pair.worker();
    worker.begin().unwrap();
    worker.finish(MILLI);
    worker.begin().unwrap();
    assert_eq!(numbers(&pair.supervisor.take_back(pair.now).unwrap()), [2, 3, 4]);
    assert_eq!(pair.supervisor.given(), 2);
    assert_eq!(numbers(pair.supervisor.in_flight()), [0, 1]);
    worker.finish(MILLI);
    assert!(worker.begin().is_none());
    pair.run(1);
    worker.begin().unwrap();
    worker.fail();
    pair.read();
    assert_eq!(pair.seen, ["started", "done 0", "done 1", "failed 5"]);
    assert!(pair.supervisor.is_idle());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn each_task_that_was_sent_is_answered_taken_back_or_reported_once(
        events in vec((0u8..8, 1u32..6), 0..60),
        recalls in prop_oneof![Just(Recalls::Now), Just(Recalls::Later), Just(Recalls::Never)],
    ) {
        let mut pair = Pair::new();
        pair.launcher.lock().recalls = recalls;
        let can_recall = recalls != Recalls::Never;
        pair.launch().unwrap();
        pair.worker().ready();
        pair.read();
        let worker = pair.worker();
        let mut settled: Vec<u64> = Vec::new();
        let mut is_gone = false;
        for (event, n) in events {
            match event {
                0 if !pair.supervisor.is_live() || pair.supervisor.is_stopping() => {}
                0 if can_recall || pair.supervisor.is_idle() => pair.run(if can_recall { n } else { 1 }),
                1 if worker.running().is_none() => drop(worker.begin()),
                2 if worker.running().is_some() && !is_gone => worker.finish(MILLI),
                3 => settled.extend(numbers(&pair.supervisor.take_back(pair.now).unwrap_or_default())),
                4 => pair.read(),
                5 if n == 5 && (pair.supervisor.has_begun() || can_recall && worker.running().is_some()) => {
                    if let Some(taken) = pair.supervisor.take_back(pair.now) {
                        settled.extend(numbers(&taken));
                        pair.supervisor.stop(TaskErrorKind::Cancelled { why: "" }, pair.now);
                    }
                }
                6 if n == 5 => {
                    is_gone = true;
                    worker.disconnect();
                }
                7 if !is_gone => drop(worker.answer()),
                _ => {}
            }
        }
        worker.end(Exit::from_signal(11));
        let report = pair.reap();
        let reported = report.running.iter().chain(&report.waiting).chain(&report.unknown);
        settled.extend(numbers(reported));
        let answers = pair.seen.iter().filter_map(|event| event.rsplit_once(' '));
        settled.extend(answers.map(|(_, number)| number.parse::<u64>().unwrap()));
        settled.sort_unstable();
        prop_assert_eq!(settled, (0..pair.next).collect::<Vec<_>>());
        prop_assert_eq!(report.unknown.is_empty() || !can_recall, true);
        prop_assert!(worker.pid() >= 1000 && worker.is_reaped());
    }
}
