//! Initializers and finalizers.

use super::KILLED;
use crate::{
    codec::ShortBytes,
    error::Exit,
    launch::fake::{FakeTask, FakeWorker},
    protocol, registry,
    scheduler::{
        config::{Config, Finalizer, Lives},
        restarts::Intensity,
        sim::{MILLI, SECOND, Sim, config},
    },
    task::{EncodedCall, Handles},
};

/// A call of the function that initializes and finalizes the workers of these tests.
fn prepare() -> EncodedCall {
    EncodedCall { entry: &registry::TESTED[1], args: Ok(ShortBytes::new()), handles: Handles::default() }
}

/// A pool of one worker whose workers run `prepare` first and last.
fn prepared() -> Config {
    let lives = Lives {
        initializer: Some((prepare(), protocol::ReturnKind::Value)),
        finalizer: Some(Finalizer::new::<()>(prepare())),
        ..Lives::default()
    };
    Config { jobs: 1, lives, ..config() }
}

fn is_prepare(task: &FakeTask) -> bool {
    task.number == u64::MAX && task.function == 1
}

#[test]
fn a_worker_runs_the_initializer_before_its_tasks_and_the_finalizer_after_them() {
    let mut sim = Sim::new(prepared());
    let tasks: Vec<_> = (0..3).map(|_| sim.submit(MILLI)).collect();
    sim.run();
    assert!(tasks.iter().all(crate::scheduler::sim::Submitted::is_done));
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
        let mut config = prepared();
        config.lives.max_restarts = Intensity { most: 2, within: 30 * SECOND };
        let mut sim = Sim::new(config);
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
