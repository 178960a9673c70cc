//! Calls on workers that are prompt and have no process, with the driver of a pool, and calls on the calling thread.

use std::sync::Arc;

use super::{
    collect::{Collect, Opened, Outcomes, Values},
    in_process::InProcess,
    state::Call,
};
use crate::{
    driver::state::Driver,
    error::TaskErrorKind,
    launch::fake::FakeLauncher,
    protocol::ReturnKind,
    registry,
    scheduler::{
        config::{CallOptions, Config, Finalizer},
        sim,
    },
    seed::Calls,
    task::{Args, Task},
};

/// A task that doubles a number. It fails if the result is too large.
fn double(n: u64) -> Task<u64> {
    let mut args = Args::new();
    args.put("n", &n);
    args.task(&registry::TESTED[0])
}

struct Host {
    driver: Arc<Driver>,
    config: Arc<Config>,
    launcher: FakeLauncher,
    calls: Calls,
}

impl Host {
    fn new() -> Self {
        let launcher = FakeLauncher::default();
        launcher.lock().is_prompt = true;
        let config = Arc::new(sim::config());
        let driver = Driver::new(config.clone(), Arc::new(launcher.clone())).expect("a driver");
        Self { driver, config, launcher, calls: Calls::new() }
    }

    fn call(&self, options: CallOptions) -> Call {
        Call::on_workers(&self.driver, &self.config, &self.calls, options, None)
    }
}

impl Drop for Host {
    /// No poller reports the end of these workers, so they are not waited for.
    fn drop(&mut self) {
        self.driver.inspect(crate::scheduler::state::Scheduler::break_down);
    }
}

fn open(call: Call, unordered: bool) -> Opened {
    Opened { call: Ok((call, None)), unordered }
}

fn collect(call: Call, unordered: bool, numbers: impl IntoIterator<Item = u64>) -> Result<Vec<u64>, String> {
    let mut collect = Collect::<u64, Values>::new(open(call, unordered));
    for n in numbers {
        if collect.push(double(n)).is_break() {
            break;
        }
    }
    collect.finish().map_err(|error| error.to_string())
}

#[test]
fn a_call_returns_its_results_in_the_order_of_its_tasks() {
    let host = Host::new();
    let expected: Vec<u64> = (0..2_000).map(|n| 2 * n).collect();
    for batch in [None, Some(1), Some(100)] {
        let options = CallOptions { batch, ..CallOptions::default() };
        assert_eq!(collect(host.call(options), false, 0..2_000).as_ref(), Ok(&expected), "{batch:?}");
    }
    let mut unordered = collect(host.call(CallOptions::default()), true, 0..1_000).expect("no failure");
    unordered.sort_unstable();
    assert_eq!(unordered, expected[..1_000]);
    assert!(host.launcher.lock().workers.len() <= 2);
    assert_eq!(host.driver.inspect(|scheduler| scheduler.unfinished()), Some(0));
}

#[test]
fn the_first_failure_ends_a_call_and_the_pool_has_nothing_left_of_it() {
    let host = Host::new();
    let numbers = (0..1_000_000).map(|n| if n == 500 { u64::MAX } else { n });
    let error = collect(host.call(CallOptions::default()), false, numbers).expect_err("one is too large");
    assert!(error.contains("too much") && error.contains("500"), "{error}");
    assert_eq!(host.driver.inspect(|scheduler| scheduler.unfinished()), Some(0));
}

#[test]
fn every_outcome_is_kept_if_failures_do_not_end_a_call() {
    let host = Host::new();
    let mut all = Collect::<u64, Outcomes>::new(open(host.call(CallOptions::default()), false));
    for n in 0..100 {
        assert!(all.push(double(if n % 10 == 3 { u64::MAX } else { n })).is_continue());
    }
    let outcomes = all.finish().expect("failures are kept");
    for (n, outcome) in (0..).zip(outcomes) {
        assert_eq!(outcome.ok(), (n % 10 != 3).then_some(2 * n), "task {n}");
    }
}

#[test]
fn a_call_that_is_dropped_leaves_nothing_in_the_pool() {
    let host = Host::new();
    let mut call = host.call(CallOptions::default());
    for n in 0..100 {
        call.push(double(n).call);
    }
    assert_eq!(call.pushed(), 100);
    call.flush();
    drop(call);
    assert_eq!(collect(host.call(CallOptions::default()), false, [1]).as_deref(), Ok(&[2][..]));
    assert_eq!(host.driver.inspect(|scheduler| scheduler.unfinished()), Some(0));
}

#[test]
fn a_call_of_a_pool_that_has_ended_fails_each_task() {
    let host = Host::new();
    let call = host.call(CallOptions::default());
    host.driver.with(|scheduler, now| scheduler.close(now));
    let error = collect(call, false, 0..10).expect_err("the pool has ended");
    assert!(error.contains("was cancelled"), "{error}");
    let kind = TaskErrorKind::lost(&"it cannot run anything");
    let error = collect(Call::failed(kind, None), false, 0..10).expect_err("it cannot");
    assert!(error.contains("it cannot run anything"), "{error}");
}

#[test]
fn a_call_without_workers_runs_on_the_calling_thread() {
    let here = Arc::new(InProcess::default());
    let call = || Call::in_process(&here, CallOptions::default(), None);
    let doubled = collect(call(), false, 0..100);
    assert_eq!(doubled, Ok((0..100).map(|n| 2 * n).collect()));
    let error = collect(call(), false, [1, u64::MAX, 2]).expect_err("one is too large");
    assert!(error.contains("too much"), "{error}");
    assert!(here.run_single(&double(4).call).1.is_ok());
    assert!(here.run_broadcast(&double(4).call).is_ok());
    assert!(here.finalize().is_none());
}

#[test]
fn large_arguments_and_functions_that_are_not_in_the_table_keep_their_places() {
    static STRAY: registry::Entry =
        registry::Entry { name: "stray", file: file!(), line: line!(), run: |_, _| Ok(()) };
    let host = Host::new();
    let mut all = Collect::<u64, Outcomes>::new(open(host.call(CallOptions::default()), false));
    for n in 0..30u64 {
        let mut args = Args::new();
        args.put("n", &n);
        let entry = if n % 10 == 7 { &STRAY } else { &registry::TESTED[0] };
        if n % 10 == 3 {
            args.put("more", &vec![7u64; 10_000]);
        }
        assert!(all.push(args.task(entry)).is_continue());
    }
    for (n, outcome) in (0..).zip(all.finish().expect("failures are kept")) {
        match n % 10 {
            3 => assert!(outcome.expect_err("it has too many arguments").is_codec(), "task {n}"),
            7 => assert!(outcome.expect_err("no worker knows it").to_string().contains("stray"), "task {n}"),
            _ => assert_eq!(outcome.ok(), Some(2 * n), "task {n}"),
        }
    }
}

#[test]
fn a_pool_without_workers_is_prepared_once_and_tidied_up_once() {
    let prepare = || Args::new().task::<()>(&registry::TESTED[1]).call;
    let here = InProcess {
        first: vec![(prepare(), ReturnKind::Value)],
        finalizer: Some(Finalizer::new::<()>(prepare())),
        ..InProcess::default()
    };
    assert!(here.finalize().is_none(), "nothing has run");
    assert!(here.run_single(&double(4).call).1.is_ok());
    assert!(here.finalize().expect("a task has run").is_ok());
    assert!(here.stats().to_string().contains('1'));
    let mut wrong =
        InProcess { first: vec![(double(u64::MAX).call, ReturnKind::Value)], ..InProcess::default() };
    assert!(wrong.run_single(&double(4).call).1.is_err(), "it could not be prepared");
    wrong.finalizer = Some(Finalizer::new::<()>(prepare()));
    assert!(wrong.finalize().is_none());
}

#[test]
fn a_call_takes_its_batch_size_from_its_options_or_later() {
    let host = Host::new();
    let mut call = host.call(CallOptions { workers: Some(1), ..CallOptions::default() });
    call.change(|options| options.batch = Some(3));
    for n in 0..10 {
        call.push(double(n).call);
    }
    call.flush();
    while call.outstanding() > 0 {
        call.wait();
        call.receive(|_, _| {});
    }
    assert_eq!(host.launcher.lock().workers.len(), 1, "it may use one worker");
    call.push(double(1).call);
    call.cancel(true);
    assert_eq!(host.driver.inspect(|scheduler| scheduler.unfinished()), Some(0));
}
