//! The amount that is read from a worker in one turn.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    ops::ControlFlow,
    os::fd::AsFd as _,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::{
    error::Exit,
    id::WorkerId,
    launch::{Launch, LaunchError, LaunchRequest, Launched, Launcher, Outputs, Peer, Watched},
    protocol::{Hello, Note, Notice, WorkerSetup},
    supervisor::{receive::MOST_MESSAGES, state::Supervisor},
    sys::{fd::stream_pair, identified::Identified},
    transport::{Body, FrameSender, Segment, offer, shm::worker::WorkerEnd},
};

/// The worker of these tests is this process, which is not held.
struct NoProcess;

impl Peer for NoProcess {
    fn pid(&self) -> u32 {
        std::process::id()
    }

    fn try_reap(&mut self) -> Option<Result<Exit, &'static str>> {
        None
    }

    fn give_up(&mut self) {}
}

/// Starts nothing, and keeps the worker's way to the host.
#[derive(Default)]
struct Here(Mutex<Option<Box<dyn FrameSender>>>);

impl Launcher for Here {
    fn launch(&self, _: &LaunchRequest<'_>) -> Result<Launch, LaunchError> {
        let (socket, theirs) = stream_pair().unwrap();
        let end = offer(Arc::new(Identified::new(socket))).unwrap();
        let memory = end.segment.as_ref().filter(|_| end.rings);
        let memory = memory.map(|memory| Segment::attach(memory.as_fd(), true).unwrap());
        let worker = WorkerEnd::new(Arc::new(Identified::new(theirs)), memory.as_ref()).unwrap();
        *self.0.lock().unwrap() = Some(worker.sender);
        Ok(Launch::Ready(Launched {
            peer: Box::new(NoProcess),
            sender: end.sender,
            receiver: end.receiver,
            is_quiet: end.rings,
            why_slow: end.why_not,
            streams: None,
            watched: Watched::default(),
        }))
    }
}

fn launched() -> (Supervisor, Box<dyn FrameSender>) {
    let (here, now) = (Here::default(), Instant::now());
    let mut supervisor = Supervisor::new(WorkerId(0));
    let request = LaunchRequest { env: &[], outputs: Outputs::default(), key: 0 };
    let hello = Hello::new(WorkerId(0), WorkerSetup::default(), 0);
    let deadline = now + Duration::from_secs(60);
    assert!(supervisor.launch(&here, &request, &hello, now, deadline).unwrap());
    let worker = here.0.lock().unwrap().take().unwrap();
    (supervisor, worker)
}

#[test]
fn one_turn_reads_a_bounded_number_of_messages_and_the_next_goes_on_from_there() {
    let (mut supervisor, mut worker) = launched();
    let note = Notice::Note(Note::Begun { nanos: 1 }).encode();
    for _ in 0..=2 * MOST_MESSAGES {
        worker.send(&[], Body::Borrowed(&note)).unwrap();
    }
    let mut turns = Vec::new();
    loop {
        let mut read = 0;
        let paused = supervisor.read(true, Instant::now(), |_| {
            read += 1;
            ControlFlow::Continue(())
        });
        turns.push(read);
        if !paused {
            break;
        }
    }
    assert_eq!(turns, [MOST_MESSAGES, MOST_MESSAGES, 1]);
}

#[test]
fn a_stop_is_put_off_until_the_worker_is_read_to_the_end_but_not_for_long() {
    let (mut supervisor, _worker) = launched();
    let start = Instant::now();
    let after = |millis| start + Duration::from_millis(millis);
    assert!(supervisor.may_enforce(true, start), "it was read to the end");
    assert!(!supervisor.may_enforce(false, start), "its result may be in the rest");
    assert!(!supervisor.may_enforce(false, after(100)), "and still");
    assert!(supervisor.may_enforce(false, after(1000)), "it never stops sending");
    assert!(supervisor.may_enforce(false, after(1001)), "nor does it later");
    assert!(!supervisor.read(true, after(1002), |_| ControlFlow::Continue(())));
    assert!(!supervisor.may_enforce(false, after(1003)), "it was read to the end since");
}
