//! The settings of a round.

use std::time::Duration;

use procession::{Output, Pool, delayed};

use super::deed::{INITIALIZED, PRELOADED, finalize, initialize, preload};
use crate::random::Random;

/// The settings of a pool of a round.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) jobs: usize,
    pub(super) retries: u32,
    pub(super) task_timeout: Option<u64>,
    pub(super) max_tasks: Option<u64>,
    pub(super) idle_millis: Option<u64>,
    pub(super) chunk: Option<usize>,
    /// The time that it takes, and one in how many fails.
    pub(super) initializer: Option<(u64, u64)>,
    pub(super) finalizer: Option<u64>,
    pub(super) preload: Option<u64>,
    /// Of stdout and of stderr.
    pub(super) outputs: [Output; 2],
}

const OUTPUTS: [Output; 4] = [Output::Inherit, Output::Null, Output::Log, Output::Capture];

impl Settings {
    pub(super) fn draw(random: &mut Random, method: &str) -> Self {
        let preload = method != "spawn" && random.once_in(3);
        Self {
            jobs: 1 + random.below(4) as usize,
            retries: random.below(3) as u32,
            task_timeout: random.once_in(4).then(|| 20 + random.below(400)),
            max_tasks: random.once_in(4).then(|| 1 + random.below(200)),
            idle_millis: random.once_in(4).then(|| 1 + random.below(20)),
            chunk: random.once_in(4).then(|| 1 + random.below(100) as usize),
            initializer: random.once_in(3).then(|| {
                let fails = if random.once_in(3) { 4 + random.below(8) } else { 0 };
                (random.below(8_000), fails)
            }),
            finalizer: random.once_in(3).then(|| random.below(8_000)),
            preload: preload.then(|| random.below(8_000)),
            outputs: [(); 2].map(|()| *random.pick(&OUTPUTS)),
        }
    }

    /// Returns the bits of a task's word that describe its worker's pool.
    pub(super) fn bits(&self) -> u64 {
        [(self.initializer.is_some(), INITIALIZED), (self.preload.is_some(), PRELOADED)]
            .into_iter()
            .filter_map(|(is_so, bit)| is_so.then_some(bit))
            .sum()
    }

    pub(super) fn build(&self) -> procession::Result<Pool> {
        let mut builder = Pool::builder().jobs(self.jobs).retries(self.retries).name("chaos");
        if let Some(limit) = self.task_timeout {
            builder = builder.task_timeout(Duration::from_millis(limit));
        }
        if let Some(tasks) = self.max_tasks {
            builder = builder.max_tasks_per_worker(tasks);
        }
        if let Some(idle) = self.idle_millis {
            builder = builder.idle_timeout(Duration::from_millis(idle));
        }
        if let Some(chunk) = self.chunk {
            builder = builder.chunk_size(chunk);
        }
        if let Some((micros, fails)) = self.initializer {
            builder = builder.initializer(delayed!(initialize(micros, fails, self.preload.is_some())));
        }
        if let Some(micros) = self.finalizer {
            builder = builder.finalizer(delayed!(finalize(micros, self.initializer.is_some())));
        }
        if let Some(micros) = self.preload {
            builder = builder.preload(delayed!(preload(micros)));
        }
        let [stdout, stderr] = self.outputs;
        builder.stdout(stdout).stderr(stderr).build()
    }
}
