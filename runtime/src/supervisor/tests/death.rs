//! Every death of a worker in every phase.

use super::{MILLI, Pair, SECOND, numbers};
use crate::{
    error::{Exit, TaskErrorKind},
    supervisor::event::{ExitReport, Phase},
};

/// The activity of a worker when it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Starting,
    Greeting,
    Idle,
    Waiting,
    Running,
    Stopping,
    Replied,
    Draining,
}

/// The way in which it dies.
#[derive(Clone, Copy, Debug)]
enum How {
    Code,
    Signal,
    Unknown,
    /// It closes its connection and does not end.
    Disconnects,
    /// It sends what no worker of ours sends.
    Garbage,
    /// The host kills it.
    Killed,
    /// The host kills it, and the system refuses that.
    Unkillable,
}

fn die(when: When, how: How) -> (Pair, ExitReport) {
    let mut pair = Pair::new();
    assert!(pair.launch().expect("the launcher is ready") && pair.supervisor.is_starting());
    let worker = pair.worker();
    if when != When::Starting {
        worker.ready();
    }
    if !matches!(when, When::Starting | When::Greeting) {
        pair.read();
        assert!(pair.supervisor.is_idle());
        if when == When::Draining {
            pair.supervisor.drain(pair.now);
            assert!(worker.is_left() && !pair.supervisor.is_live());
        } else if when != When::Idle {
            pair.run(3);
            if when != When::Waiting {
                assert_eq!(worker.begin().map(|task| task.number), Some(0));
            }
            match when {
                When::Replied => worker.finish(MILLI),
                When::Stopping => {
                    let rest = pair.supervisor.take_back(pair.now).expect("the answer");
                    assert_eq!(numbers(&rest), [1, 2]);
                    pair.supervisor.stop(TaskErrorKind::Timeout { limit: SECOND }, pair.now);
                    assert!(worker.is_told_to_end());
                }
                _ => {}
            }
        }
    }
    match how {
        How::Code => worker.end(Exit::from_code(3)),
        How::Signal => worker.end(Exit::from_signal(11)),
        How::Unknown => worker.end_as(Err("it was collected")),
        How::Disconnects => worker.disconnect(),
        How::Garbage => worker.send(b"\xffgarbage"),
        How::Killed => pair.supervisor.kill(),
        How::Unkillable => {
            worker.refuse_signals();
            pair.supervisor.kill();
        }
    }
    pair.read();
    pair.until_ended();
    let report = pair.reap();
    (pair, report)
}

#[test]
fn every_death_in_every_phase_is_reported_with_the_fate_of_each_task() {
    use When::{Draining, Greeting, Idle, Replied, Running, Starting, Stopping, Waiting};
    let phases = [Starting, Greeting, Idle, Waiting, Running, Stopping, Replied, Draining];
    let deaths =
        [How::Code, How::Signal, How::Unknown, How::Disconnects, How::Garbage, How::Killed, How::Unkillable];
    for (when, how) in phases.into_iter().flat_map(|when| deaths.map(|how| (when, how))) {
        let (pair, report) = die(when, how);
        let case = format!("{when:?}, {how:?}");
        let was = match when {
            Starting => Phase::Starting,
            Draining => Phase::Draining,
            _ => Phase::Serving,
        };
        assert_eq!(report.was, was, "{case}");
        match how {
            How::Code => assert_eq!(report.exit.unwrap().code(), Some(3), "{case}"),
            How::Signal => assert_eq!(report.exit.unwrap().signal(), Some(11), "{case}"),
            // A worker that was told to leave obeys.
            How::Disconnects | How::Unkillable if when == Draining => {
                assert_eq!(report.exit.unwrap().code(), Some(0), "{case}");
            }
            How::Disconnects | How::Garbage | How::Killed => {
                assert_eq!(report.exit.unwrap().signal(), Some(9), "{case}");
            }
            How::Unknown | How::Unkillable => assert!(report.exit.is_err(), "{case}"),
        }
        let is_left = matches!(how, How::Unkillable) && when != Draining;
        assert_eq!(pair.worker().is_given_up(), is_left, "{case}");
        // A late start or end is not a kill: it counts as the worker's own end.
        if when != Stopping {
            let is_killed = matches!(how, How::Garbage | How::Killed | How::Unkillable);
            assert_eq!(report.killed, is_killed, "{case}");
        }
        let running: Vec<u64> = numbers(&report.running);
        assert_eq!(running, if matches!(when, Running | Stopping) { vec![0] } else { vec![] }, "{case}");
        let waiting = match when {
            Waiting => vec![0, 1, 2],
            Running | Replied => vec![1, 2],
            _ => vec![],
        };
        assert_eq!(numbers(&report.waiting), waiting, "{case}");
        assert!(report.unknown.is_empty(), "{case}");
        assert_eq!(report.stopped.is_some(), when == Stopping, "{case}");
        assert_eq!(report.was_useful, when == Replied, "{case}");
        assert_eq!(pair.seen.contains(&"done 0".to_owned()), when == Replied, "{case}");
        if let How::Garbage = how {
            let reason = report.reason.expect("the reason of the kill");
            assert!(reason.contains("an invalid message"), "{case}: {reason}");
        }
    }
}
