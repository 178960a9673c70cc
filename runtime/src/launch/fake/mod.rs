//! A launcher for tests. A test plays its workers, in this process and at the test's own times.
//!
//! A [`FakeWorker`] claims tasks on a real board, if it has one, and sends real frames, but has no process, no descriptor and no clock.

mod connection;
mod task;
mod worker;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use self::{
    connection::{Receiver, Sender, Written},
    worker::{FakeState, TOKEN},
};
pub(crate) use self::{
    task::FakeTask,
    worker::{FakeWorker, Told},
};
use super::{Launch, LaunchError, LaunchRequest, Launched, Launcher, Streams, Watched, output::StreamEnd};
use crate::{sync::ignore_poison, transport::Segment};

/// The manner in which workers answer when their tasks are recalled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Recalls {
    /// At once, by a board.
    #[default]
    Now,
    /// By a message, when the test sends it. What has begun is known only then, or when the worker has ended.
    Later,
    /// Not at all.
    Never,
}

/// Starts fake workers.
#[derive(Clone, Default)]
pub(crate) struct FakeLauncher(Arc<Mutex<Launches>>);

#[derive(Default)]
pub(crate) struct Launches {
    /// The outcomes of the next starts. Later ones succeed.
    pub(crate) outcomes: VecDeque<StartOutcome>,
    /// All workers that were started, in order.
    pub(crate) workers: Vec<FakeWorker>,
    pub(crate) recalls: Recalls,
    /// The number of starts that were asked for.
    pub(crate) asked: usize,
    /// The number of starts that were last announced.
    pub(crate) wanted: usize,
    pub(crate) oom_kills: Option<u64>,
    /// Workers are ready at once, and run what they are sent as soon as they are woken.
    pub(crate) is_prompt: bool,
    /// The tasks of workers wait for nothing but a core.
    pub(crate) computes: bool,
}

/// The outcome of a start.
#[derive(Clone, Debug)]
pub(crate) enum StartOutcome {
    NotYet,
    Fails(LaunchError),
}

impl FakeLauncher {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Launches> {
        ignore_poison(self.0.lock())
    }
}

impl Launcher for FakeLauncher {
    fn launch(&self, request: &LaunchRequest<'_>) -> Result<Launch, LaunchError> {
        let mut launches = self.lock();
        launches.asked += 1;
        match launches.outcomes.pop_front() {
            Some(StartOutcome::NotYet) => return Ok(Launch::NotYet),
            Some(StartOutcome::Fails(error)) => return Err(error),
            None => {}
        }
        let board = (launches.recalls == Recalls::Now)
            .then(|| Segment::unshared().expect("memory for a board").board());
        let state = FakeState {
            key: request.key,
            pid: 1000 + launches.workers.len() as u32,
            board,
            recalls: launches.recalls,
            is_prompt: launches.is_prompt,
            computes: launches.computes,
            ..FakeState::default()
        };
        let worker = FakeWorker::new(state);
        let stream = request.outputs.read_by_host().next().map(|(name, by_line)| StreamEnd {
            name,
            source: Box::new(Written(worker.clone())),
            by_line,
        });
        launches.workers.push(worker.clone());
        Ok(Launch::Ready(Launched {
            sender: Box::new(Sender::new(worker.clone())),
            receiver: Box::new(Receiver::new(worker.clone())),
            peer: Box::new(worker),
            is_quiet: true,
            why_slow: None,
            streams: stream.map(|stream| Streams { token: TOKEN, ends: vec![stream] }),
            watched: Watched::default(),
        }))
    }

    fn want(&self, workers: usize) {
        self.lock().wanted = workers;
    }

    fn oom_kills(&self) -> Option<u64> {
        self.lock().oom_kills
    }
}
