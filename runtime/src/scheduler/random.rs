//! Plays random events and checks the scheduler against a simple model: what was submitted, what has begun where, and what has
//! its outcome.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::{collection::vec, prelude::*};

use super::{
    config::{CallOptions, Config, Lives},
    restarts::Intensity,
    sim::{Called, MICRO, MILLI, SECOND, Sim, Submitted, config},
};
use crate::{
    error::{Exit, TaskError},
    launch::{
        LaunchError,
        fake::{FakeTask, FakeWorker, Recalls, StartOutcome},
    },
};

/// A task: the number of its call plus one, or 0 for single tasks, and its number.
type Key = (u32, u64);

#[derive(Debug, Default)]
struct Expected {
    retries: u32,
    /// The workers that have begun it, in order.
    begun: Vec<usize>,
    /// It has returned a result, or failed by itself.
    has_replied: bool,
    /// Its outcome: whether it has a result, and the attempts of the error.
    outcome: Option<Result<(), u32>>,
}

struct Model {
    sim: Sim,
    /// The number of retries of tasks whose call does not set it.
    retries: u32,
    tasks: BTreeMap<Key, Expected>,
    singles: Vec<Submitted>,
    calls: Vec<Called>,
    /// Calls that add nothing more.
    closed: Vec<bool>,
    recalls: Recalls,
    /// The workers to which the host listens no more.
    broken: BTreeSet<usize>,
}

fn key(task: &FakeTask) -> Key {
    (task.function, task.number)
}

impl Model {
    fn new(config: Config, cpus: usize, recalls: Recalls) -> Self {
        let retries = config.call.retries.unwrap_or(0);
        let sim = Sim::on(cpus, config);
        sim.launcher.lock().recalls = recalls;
        Self {
            sim,
            retries,
            tasks: BTreeMap::new(),
            singles: Vec::new(),
            calls: Vec::new(),
            closed: Vec::new(),
            recalls,
            broken: BTreeSet::new(),
        }
    }

    /// Returns one of the workers that have not ended.
    fn worker(&self, n: u8) -> Option<(usize, FakeWorker)> {
        let workers = self.sim.workers().into_iter().enumerate();
        let alive: Vec<_> = workers.filter(|(_, worker)| !worker.has_ended()).collect();
        alive.get(usize::from(n) % alive.len().max(1)).cloned()
    }

    /// Has a worker that serves begin its next task.
    fn begin(&mut self, n: usize, worker: &FakeWorker) {
        if worker.hello().is_some() || worker.running().is_some() {
            return;
        }
        let Some(task) = worker.begin() else { return };
        let expected = self.tasks.get_mut(&key(&task)).expect("it runs what was submitted");
        // A task that was cancelled or timed out in this instant may still begin, if it is told to end.
        assert!(expected.outcome.is_none(), "{:?} begins after its outcome {expected:?}", key(&task));
        if let Some(last) = expected.begun.last() {
            assert!(!expected.has_replied, "{:?} runs again although it has ended", key(&task));
            assert!(self.sim.workers()[*last].has_ended(), "{:?} runs twice at a time", key(&task));
        }
        expected.begun.push(n);
        let times = expected.begun.len() as u32;
        assert!(times <= expected.retries + 1, "{:?} runs {times} times: {expected:?}", key(&task));
    }

    /// Ends the running task of a worker.
    fn reply(&mut self, n: usize, worker: &FakeWorker, succeeds: bool, took: Duration) {
        let Some(task) = worker.running().filter(|_| !self.broken.contains(&n)) else { return };
        self.tasks.get_mut(&key(&task)).expect("it runs what was submitted").has_replied = true;
        if succeeds { worker.finish(took) } else { worker.fail() }
    }

    /// Plays an event: `which` selects the task, the call or the worker, and `how` what becomes of it.
    fn play(&mut self, (event, which, how): (u8, u8, u8)) {
        match event {
            0..=1 => self.submit(which),
            2 => self.open_call(which, how),
            3..=4 if !self.calls.is_empty() => {
                let call = usize::from(which) % self.calls.len();
                if event == 3 { self.add_to_call(call, how) } else { self.end_call(call, how) }
            }
            5 if !self.singles.is_empty() => {
                let task = self.singles[usize::from(which) % self.singles.len()].clone();
                self.sim.cancel(&task);
            }
            6 => self.answer_one(how < 30, how < 15),
            7..=8 => self.answer_one(false, false),
            9..=20 => {
                if let Some((n, worker)) = self.worker(which) {
                    match event {
                        9..=12 => self.begin(n, &worker),
                        13..=17 => self.run_some(n, &worker, how),
                        18..=19 => self.end_worker(n, &worker, how),
                        _ => self.speak(n, &worker, how),
                    }
                }
            }
            21 => self.fail_next_start(how),
            22 => self.sim.pass(MICRO * 10 * u32::from(how)),
            23 => self.sim.pass(MILLI * u32::from(how)),
            24 => self.sim.pass(SECOND * u32::from(how % 16)),
            25 => self.sim.scheduler.resize(1 + usize::from(how) % 5, self.sim.now),
            26..=27 => {
                if let Some((_, worker)) = self.worker(which).filter(|(n, _)| !self.broken.contains(n)) {
                    worker.answer();
                }
            }
            _ => self.sim.turn(),
        }
    }

    /// Submits a single task from one of three threads.
    fn submit(&mut self, thread: u8) {
        let task = self.sim.submit_from(u64::from(thread % 3), MILLI);
        let expected = Expected { retries: self.retries, ..Expected::default() };
        self.tasks.insert((0, task.number), expected);
        self.singles.push(task);
    }

    fn open_call(&mut self, settings: u8, tasks: u8) {
        let options = CallOptions {
            batch: settings.is_multiple_of(3).then_some(1 + usize::from(settings) / 16),
            workers: settings.is_multiple_of(5).then_some(1 + usize::from(settings) % 2),
            retries: (settings % 4 < 2).then_some(u32::from(settings % 2)),
            is_patient: settings % 7 < 3,
            ..CallOptions::default()
        };
        let (tasks, retries) = (usize::from(tasks) % 40, options.retries.unwrap_or(self.retries));
        let call = self.sim.call_with((0..tasks).map(|_| MILLI), options);
        self.calls.push(call);
        self.closed.push(false);
        self.added(self.calls.len() - 1, 0, tasks, retries);
    }

    fn add_to_call(&mut self, call: usize, tasks: u8) {
        let tasks = usize::from(tasks) % 40;
        let before = self.tasks.keys().filter(|key| key.0 == call as u32 + 1).count();
        let retries = self.tasks.get(&(call as u32 + 1, 0)).map_or(0, |task| task.retries);
        if !self.closed[call] && before > 0 {
            self.sim.add(&mut self.calls[call], (0..tasks).map(|_| MILLI));
            self.added(call, before, tasks, retries);
        }
    }

    /// Closes or cancels a call.
    fn end_call(&mut self, call: usize, how: u8) {
        self.closed[call] = true;
        if how.is_multiple_of(3) {
            self.sim.cancel_call(&self.calls[call]);
        } else {
            self.sim.close_call(&self.calls[call]);
        }
    }

    /// Has the first worker that is starting complete its handshake, or refuse to become a worker.
    fn answer_one(&mut self, refuses: bool, is_short: bool) {
        let is_starting = |n: usize, worker: &FakeWorker| {
            !self.broken.contains(&n) && worker.hello().is_some() && !worker.has_ended()
        };
        let workers = self.sim.workers();
        let Some((n, worker)) = workers.iter().enumerate().find(|(n, worker)| is_starting(*n, worker)) else {
            return;
        };
        if refuses {
            self.broken.insert(n);
            worker.refuse("no", is_short);
        } else {
            worker.ready();
        }
    }

    /// Has a worker begin and end a few tasks.
    fn run_some(&mut self, n: usize, worker: &FakeWorker, how: u8) {
        for _ in 0..=how % 20 {
            self.begin(n, worker);
            self.reply(n, worker, how % 16 != 15, MICRO * u32::from(how));
        }
    }

    fn end_worker(&mut self, n: usize, worker: &FakeWorker, how: u8) {
        match how % 8 {
            0 => {
                self.broken.insert(n);
                worker.disconnect();
            }
            1 => worker.end_as(Err("its status was collected")),
            _ => worker.end(if how.is_multiple_of(2) { Exit::from_signal(9) } else { Exit::from_code(3) }),
        }
    }

    /// Has a worker send something other than a result, or grow.
    fn speak(&mut self, n: usize, worker: &FakeWorker, how: u8) {
        match how % 4 {
            0 => {
                self.broken.insert(n);
                worker.send(b"\xffgarbage");
            }
            1 if worker.running().is_some() => worker.log("says"),
            2 if worker.running().is_some() => worker.progress(0.5),
            _ => worker.grow_to(u64::from(how) << 20),
        }
    }

    fn fail_next_start(&mut self, how: u8) {
        let shortage = std::io::Error::from_raw_os_error(nix::libc::EAGAIN);
        self.sim.launcher.lock().outcomes.push_back(match how % 4 {
            0 => StartOutcome::NotYet,
            1 => StartOutcome::Fails(LaunchError::Refused("no".to_owned())),
            2 => StartOutcome::Fails(LaunchError::Failed("it failed".to_owned())),
            _ => StartOutcome::Fails(LaunchError::new("a worker cannot be made", &shortage)),
        });
    }

    /// Notes tasks that were added to a call.
    fn added(&mut self, call: usize, before: usize, n: usize, retries: u32) {
        for index in before..before + n {
            let expected = Expected { retries, ..Expected::default() };
            self.tasks.insert((call as u32 + 1, index as u64), expected);
        }
    }

    /// Takes the outcomes that are there, and checks them.
    fn check(&mut self) {
        let mut arrived: Vec<(Key, Result<(), TaskError>)> = Vec::new();
        for task in &self.singles {
            arrived.extend(task.outcome().map(|outcome| ((0, task.number), outcome)));
        }
        for (n, call) in self.calls.iter_mut().enumerate() {
            for (index, outcome) in call.outcomes() {
                let key = (n as u32 + 1, *index as u64);
                if self.tasks.get(&key).is_none_or(|task| task.outcome.is_none()) {
                    arrived.push((key, outcome.clone()));
                }
            }
        }
        for (key, outcome) in arrived {
            let expected = self.tasks.get_mut(&key).expect("outcomes are of tasks that were submitted");
            assert!(expected.outcome.is_none(), "{key:?} has a second outcome");
            let times = expected.begun.len() as u32;
            match &outcome {
                Ok(()) => assert!(expected.has_replied, "{key:?} has a result that no worker has sent"),
                Err(error) if error.is_crash() || error.is_out_of_memory() => {
                    assert_eq!(error.attempts(), times, "{key:?}: {error}");
                    let is_used_up = times == expected.retries + 1 || self.sim.scheduler.closing;
                    assert!(is_used_up, "{key:?} has retries left: {error}");
                }
                Err(error) if self.recalls != Recalls::Never && !error.is_lost() => {
                    assert!(error.attempts() <= times.max(1), "{key:?} has begun {times} times: {error}");
                }
                Err(_) => {}
            }
            expected.outcome = Some(outcome.map_err(|error| error.attempts()));
        }
        let open = self.tasks.values().filter(|task| task.outcome.is_none()).count();
        assert_eq!(self.sim.scheduler.unfinished(), open, "the scheduler counts its tasks");
    }

    /// Plays all workers well until nothing is left.
    fn finish(&mut self) {
        self.sim.launcher.lock().outcomes.clear();
        for _ in 0..2_000 {
            self.sim.turn();
            self.check();
            if self.sim.scheduler.unfinished() == 0 {
                return;
            }
            let mut has_acted = false;
            for (n, worker) in self.sim.workers().into_iter().enumerate() {
                if worker.has_ended() {
                    continue;
                }
                if worker.hello().is_some() {
                    if self.broken.insert(n) {
                        worker.ready();
                        has_acted = true;
                        self.broken.remove(&n);
                    }
                    continue;
                }
                has_acted |= !self.broken.contains(&n) && worker.answer();
                self.begin(n, &worker);
                has_acted |= worker.running().is_some() && !self.broken.contains(&n);
                self.reply(n, &worker, true, MICRO);
            }
            if !has_acted {
                let due = self.sim.scheduler.deadline(self.sim.now);
                let due = due.expect("something is due while tasks are unfinished and no worker acts");
                self.sim.now = self.sim.now.max(due);
            }
        }
        panic!("{} tasks are left", self.sim.scheduler.unfinished());
    }
}

fn settings() -> impl Strategy<Value = (Config, usize, Recalls)> {
    let lives = (prop::option::of(1u64..20), any::<bool>(), prop::option::of(1u64..2_000));
    let call = (prop::option::of(1u64..2_000), prop::option::of(0u32..3));
    (1usize..5, 1usize..5, call, lives, 0u32..5, 0usize..5).prop_map(
        |(jobs, cpus, (timeout, retries), (max_tasks, has_limit, idle), restarts, recalls)| {
            let recalls =
                [Recalls::Never, Recalls::Later, Recalls::Later, Recalls::Now, Recalls::Now][recalls];
            let lives = Lives {
                max_tasks,
                max_rss: has_limit.then_some(128 << 20),
                idle_timeout: idle.map(Duration::from_millis),
                max_restarts: Intensity { most: restarts, within: 30 * SECOND },
                ..Lives::default()
            };
            let timeout = timeout.map(Duration::from_millis);
            let call = CallOptions { timeout, retries, ..CallOptions::default() };
            (Config { jobs, lives, call, ..config() }, cpus, recalls)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn each_task_ends_once_and_none_runs_again_without_a_retry(
        (config, cpus, recalls) in settings(),
        events in vec((0u8..30, any::<u8>(), any::<u8>()), 0..150),
        is_closed_early in any::<bool>(),
    ) {
        let mut model = Model::new(config, cpus, recalls);
        for event in events {
            model.play(event);
            model.check();
        }
        if !is_closed_early {
            model.finish();
        }
        model.sim.end();
        model.check();
        prop_assert!(model.tasks.values().all(|task| task.outcome.is_some()));
    }
}
