//! Implements what `parallel!` expands to: sinks that accept tasks while the caller's own loops run, and collect their results.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt,
    ops::{Add, ControlFlow, Mul},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::de::DeserializeOwned;

use crate::{
    codec::{Encoded, OwnedResult},
    error::{Error, Place, Result, TaskError, TaskErrorKind},
    handle::{decode, decode_many, inherited},
    pool::{Arrival, Call, CallOptions, Jobs, Label, Pool, Report, global, verbose_by_env},
    setting::{ABOVE_ZERO, FOREVER, no_chunk, refused},
    sys::memory::advise_huge,
    task::Task,
};

/// The settings before the semicolon of a `parallel!`. Part of the expansion's interface.
#[derive(Debug, Default)]
pub struct Settings<'p> {
    pool: Option<&'p Pool>,
    jobs: Option<Jobs>,
    batch: Option<usize>,
    /// As it was written.
    timeout: Option<Span>,
    retries: Option<u32>,
    seed: Option<u64>,
    verbose: Option<u32>,
    progress: Option<String>,
    unordered: bool,
}

impl<'p> Settings<'p> {
    /// Creates empty settings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the pool that runs the call: `pool = &pool`.
    #[must_use]
    pub fn pool(mut self, pool: &'p Pool) -> Self {
        self.pool = Some(pool);
        self
    }

    /// Sets the maximum number of workers used at a time: `jobs = 8`.
    #[must_use]
    pub fn jobs(mut self, jobs: impl Workers) -> Self {
        self.jobs = Some(jobs.into());
        self
    }

    /// Sets the number of tasks sent together: `batch = 64`.
    #[must_use]
    pub fn batch(mut self, batch: usize) -> Self {
        self.batch = Some(batch);
        self
    }

    /// Sets how long each task may run: `timeout = secs(3)`.
    #[must_use]
    pub fn timeout(mut self, timeout: impl Timeout) -> Self {
        self.timeout = timeout.span();
        self
    }

    /// Sets how many times a task is retried after its worker dies: `retries = 2`.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = Some(retries);
        self
    }

    /// Sets the number from which the seeds of the tasks are derived: `seed = 42`.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets how much the call reports on stderr: `verbose = 10`.
    #[must_use]
    pub fn verbose(mut self, verbose: u32) -> Self {
        self.verbose = Some(verbose);
        self
    }

    /// Shows a bar with this label: `progress = "scoring"`.
    #[must_use]
    pub fn progress(mut self, label: impl Label) -> Self {
        self.progress = label.label();
        self
    }

    /// Returns results in the order of completion: `order = unordered`.
    #[must_use]
    pub fn unordered(mut self) -> Self {
        self.unordered = true;
        self
    }

    /// Begins the call.
    fn open(&self) -> Result<(Call, Option<Box<Report>>)> {
        let jobs = self.jobs.map(Jobs::count).transpose()?;
        if self.batch == Some(0) {
            return Err(no_chunk("batch = 0"));
        }
        let timeout = self.timeout.as_ref().map(Span::limit).transpose()?;
        let verbose = self.verbose.map_or_else(verbose_by_env, Ok)?;
        let pool = match self.pool {
            Some(pool) => pool,
            None => {
                // The process's own pool grows and shrinks to what the latest call asks for.
                let pool = global()?;
                pool.set_jobs(jobs);
                pool
            }
        };
        let Self { batch, retries, seed, .. } = *self;
        let mut options = CallOptions {
            chunk: batch,
            most_workers: jobs,
            retries,
            timeout,
            seed,
            ..CallOptions::default()
        };
        let mut report = None;
        if verbose > 0 || self.progress.is_some() {
            let workers = pool.jobs().min(jobs.unwrap_or(usize::MAX));
            report = Report::new(verbose, self.progress.as_deref(), workers, batch);
            options.is_reported = report.is_some();
            options.wants_progress = report.as_ref().is_some_and(|report| report.wants_progress());
        }
        Ok((pool.open(options), report))
    }
}

/// Types that can be the value of `jobs`. Part of the expansion's interface.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no number of workers",
    label = "it is no whole number, and no `Jobs`",
    note = "write `jobs = 4` for four workers, `jobs = -1` for all the CPUs, `jobs = -2` for all but one, or give a `procession::Jobs`"
)]
pub trait Workers: Into<Jobs> {}

#[diagnostic::do_not_recommend]
impl<T: Into<Jobs>> Workers for T {}

/// Types that can be the value of `timeout`. Part of the expansion's interface.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no time for a task to run",
    label = "it is no time with a unit",
    note = "write `timeout = secs(3)`, `millis(200)` or `mins(2)`, or give a `std::time::Duration`"
)]
pub trait Timeout {
    /// The time; `None`: as long as it takes.
    fn span(self) -> Option<Span>;
}

impl Timeout for Duration {
    fn span(self) -> Option<Span> {
        Some(self.into())
    }
}

impl Timeout for Option<Duration> {
    fn span(self) -> Option<Span> {
        self.map(Span::from)
    }
}

impl Timeout for Span {
    fn span(self) -> Option<Span> {
        Some(self)
    }
}

impl Timeout for Option<Span> {
    fn span(self) -> Option<Span> {
        self
    }
}

/// The value of a `timeout`, as it was written, for errors. Part of the expansion's interface.
#[derive(Clone, Debug)]
pub struct Span {
    words: String,
    /// `None`: it is less than nothing, or not a number.
    time: Option<Duration>,
}

impl Span {
    fn new(unit: &str, each: Duration, n: impl Amount) -> Self {
        Self { words: format!("{unit}({n:?})"), time: n.of(each) }
    }

    /// Keeps the words of whichever cannot be.
    fn with(self, other: Self, time: impl FnOnce(Duration, Duration) -> Duration) -> Self {
        match (self.time, other.time) {
            (Some(one), Some(two)) => {
                Self { words: format!("{} + {}", self.words, other.words), time: Some(time(one, two)) }
            }
            (None, _) => self,
            (_, None) => other,
        }
    }

    /// # Errors
    ///
    /// No task can end in that time.
    fn limit(&self) -> Result<Duration> {
        let why = match self.time {
            Some(time) if !time.is_zero() => return Ok(time.min(FOREVER)),
            Some(_) => "no task would ever end in time",
            None => "that is no time",
        };
        Err(refused(format_args!("timeout = {}", self.words), why, ABOVE_ZERO))
    }
}

impl From<Duration> for Span {
    fn from(time: Duration) -> Self {
        Self { words: format!("{time:?}"), time: Some(time) }
    }
}

impl<T: Into<Span>> Add<T> for Span {
    type Output = Self;

    fn add(self, other: T) -> Self {
        self.with(other.into(), Duration::saturating_add)
    }
}

impl Add<Span> for Duration {
    type Output = Span;

    fn add(self, other: Span) -> Span {
        Span::from(self) + other
    }
}

impl Mul<u32> for Span {
    type Output = Self;

    fn mul(self, n: u32) -> Self {
        Self { words: format!("{} * {n}", self.words), time: self.time.map(|time| time.saturating_mul(n)) }
    }
}

/// Numbers that can be an argument of `millis`, `secs` and `mins`. Part of the expansion's interface.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no number of milliseconds, seconds or minutes",
    label = "it is no number",
    note = "write `timeout = secs(3)`, `secs(0.5)`, `millis(200)` or `mins(2)`; a `std::time::Duration` needs no unit"
)]
pub trait Amount: fmt::Debug + Copy {
    /// So many times the unit; `None` if it is less than nothing or not a number. What is endless is the longest time there is.
    fn of(self, unit: Duration) -> Option<Duration>;
}

macro_rules! amounts {
    ($($whole:ty)*; $($fraction:ty)*) => {
        $(impl Amount for $whole {
            fn of(self, unit: Duration) -> Option<Duration> {
                let nanos = u128::try_from(self).ok()?.saturating_mul(unit.as_nanos());
                Some(u64::try_from(nanos).map_or(Duration::MAX, Duration::from_nanos))
            }
        })*
        $(impl Amount for $fraction {
            fn of(self, unit: Duration) -> Option<Duration> {
                let secs = f64::from(self) * unit.as_secs_f64();
                (secs >= 0.0).then(|| Duration::try_from_secs_f64(secs).unwrap_or(Duration::MAX))
            }
        })*
    };
}

amounts!(i8 i16 i32 i64 isize u8 u16 u32 u64 usize; f32 f64);

/// Returns a time of `n` milliseconds, for a `timeout`.
#[must_use]
pub fn millis(n: impl Amount) -> Span {
    Span::new("millis", Duration::from_millis(1), n)
}

/// Returns a time of `n` seconds, for a `timeout`.
#[must_use]
pub fn secs(n: impl Amount) -> Span {
    Span::new("secs", Duration::from_secs(1), n)
}

/// Returns a time of `n` minutes, for a `timeout`.
#[must_use]
pub fn mins(n: impl Amount) -> Span {
    Span::new("mins", Duration::from_secs(60), n)
}

/// One comprehension in progress: what the two sinks have in common.
struct Gathering<T> {
    /// `None` if the call could not begin.
    call: Option<Call>,
    results: InOrder<T>,
    function: &'static str,
    /// What is said of it while it runs.
    report: Option<Box<Report>>,
}

/// Results in the order of the input, or as they come.
struct InOrder<T> {
    /// Those before which none is missing.
    first: Vec<T>,
    /// Those after a gap: neighbours together, by the index of the first of them.
    ahead: BTreeMap<usize, Vec<T>>,
    /// Memory for more of these.
    spare: Vec<Vec<T>>,
    /// The order of the input does not matter.
    unordered: bool,
}

/// So much memory is kept for later.
const MOST_SPARE: usize = 8;

/// Neighbours among the results, to which more are being added.
struct Run<T> {
    /// The index of the first; 0 for those before which none is missing.
    start: usize,
    values: Vec<T>,
}

impl<T> InOrder<T> {
    fn new(unordered: bool) -> Self {
        Self { first: Vec::new(), ahead: BTreeMap::new(), spare: Vec::new(), unordered }
    }

    /// What so many results from `index` on are to be added to. It is to be [closed](Self::close).
    fn open(&mut self, index: usize, tasks: usize) -> Run<T> {
        if index == self.first.len() || self.unordered {
            let mut values = std::mem::take(&mut self.first);
            reserve(&mut values, tasks);
            return Run { start: 0, values };
        }
        let before = self.ahead.range(..index).next_back();
        let adjoining = before.filter(|(start, run)| *start + run.len() == index).map(|(&start, _)| start);
        let start = adjoining.unwrap_or(index);
        let known = adjoining.and_then(|start| self.ahead.remove(&start));
        let mut values = known.or_else(|| self.spare.pop()).unwrap_or_default();
        values.reserve(tasks);
        Run { start, values }
    }

    fn close(&mut self, Run { start, values }: Run<T>) {
        if start > 0 {
            self.ahead.insert(start, values);
            return;
        }
        self.first = values;
        while let Some(next) = self.ahead.first_entry()
            && *next.key() == self.first.len()
        {
            let mut run = next.remove();
            reserve(&mut self.first, run.len());
            self.first.append(&mut run);
            if self.spare.len() < MOST_SPARE {
                self.spare.push(run);
            }
        }
    }
}

/// Makes room for so many more. What grows large is made of large pages, or each small one would be asked for by itself.
fn reserve<T>(values: &mut Vec<T>, more: usize) {
    if values.capacity() - values.len() < more {
        values.reserve(more);
        advise_huge(values.as_ptr().cast(), values.capacity() * size_of::<T>());
    }
}

impl<T> Gathering<T> {
    fn new(settings: &Settings<'_>) -> (Self, Option<Error>) {
        let (call, report, error) = match settings.open() {
            Ok((call, report)) => (Some(call), report, None),
            Err(error) => (None, None, Some(error)),
        };
        let results = InOrder::new(settings.unordered);
        (Self { call, results, function: "", report }, error)
    }

    /// The input of a call that has but this one.
    fn count<I: IntoIterator>(&mut self, input: I) -> I::IntoIter {
        let input = input.into_iter();
        if let Some(report) = &mut self.report
            && let (least, Some(most)) = input.size_hint()
            && least == most
        {
            report.expect(most);
        }
        input
    }

    /// As [`push`](Self::push), for a task that is simple, while the window is not full. `false`: it is to be pushed.
    #[inline]
    fn push_simple<V>(&mut self, task: &Task<V>) -> bool {
        self.call.as_mut().is_some_and(|call| call.push_simple(&task.call))
    }

    /// Queues the task; while the window is full, takes results and hands each to `judge`, which keeps the value or fails the call.
    fn push<V, F>(
        &mut self,
        task: Task<V>,
        judge: impl Fn(Result<V, TaskError>, &mut usize) -> Result<T, F>,
    ) -> Result<(), F>
    where
        V: DeserializeOwned + 'static,
    {
        self.function = task.function();
        self.disown(&judge)?;
        let Some(call) = &mut self.call else { return Ok(()) };
        call.push(task.call);
        loop {
            let Some(call) = &mut self.call else { return Ok(()) };
            if call.has_room() {
                return Ok(());
            }
            call.wait();
            self.receive(&judge)?;
        }
    }

    /// The reader of the input has forked this process: every task without a result in its order comes to an error.
    fn disown<V, F>(
        &mut self,
        judge: &impl Fn(Result<V, TaskError>, &mut usize) -> Result<T, F>,
    ) -> Result<(), F> {
        let Some(call) = &mut self.call else { return Ok(()) };
        if call.disown().is_none() {
            return Ok(());
        }
        self.results.ahead.clear();
        while self.results.first.len() < call.pushed() {
            self.results.first.push(judge(Err(inherited(self.function)), &mut 0)?);
        }
        Ok(())
    }

    fn receive<V, F>(
        &mut self,
        judge: &impl Fn(Result<V, TaskError>, &mut usize) -> Result<T, F>,
    ) -> Result<(), F>
    where
        V: DeserializeOwned + 'static,
    {
        let Self { call: Some(call), results, function, report } = self else { return Ok(()) };
        let (mut failure, mut failed) = (None, 0);
        call.receive(|first, arrival| {
            if failure.is_some() {
                return;
            }
            let tasks = if let Arrival::Many(arrived) = &arrival { arrived.len() as usize } else { 1 };
            let mut run = results.open(first, tasks);
            // Called for one after the other.
            let mut keep = |_, outcome| match judge(outcome, &mut failed) {
                Ok(value) => {
                    run.values.push(value);
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            };
            match arrival {
                Arrival::Many(arrived) => decode_many(function, first, arrived, keep),
                Arrival::One(outcome) => {
                    let place = Place { index: Some(first), attempts: 1, worker: None };
                    let _ = keep(first, outcome.and_then(|result| decode(function, result, place)));
                }
            }
            results.close(run);
        });
        if let Some(report) = report {
            tell(report, call, failed + usize::from(failure.is_some()));
        }
        match failure {
            None => Ok(()),
            Some(error) => {
                *report = None;
                call.cancel(true);
                Err(error)
            }
        }
    }

    fn finish<V, F>(
        mut self,
        judge: impl Fn(Result<V, TaskError>, &mut usize) -> Result<T, F>,
    ) -> Result<Vec<T>, F>
    where
        V: DeserializeOwned + 'static,
    {
        if let (Some(report), Some(call)) = (&mut self.report, &self.call) {
            report.expect(call.pushed());
        }
        self.disown(&judge)?;
        while let Some(call) = &mut self.call
            && call.outstanding() > 0
        {
            call.wait();
            self.receive(&judge)?;
        }
        debug_assert!(self.results.ahead.is_empty(), "every task of a call without failures has a result");
        if let Some(report) = self.report {
            report.finish();
        }
        Ok(self.results.first)
    }
}

/// Gathers the results of one comprehension. Part of the expansion's interface.
pub struct Gather<T> {
    gathering: Gathering<T>,
    failed: Option<Error>,
}

impl<T: DeserializeOwned + 'static> Gather<T> {
    /// A sink for the tasks of one call.
    #[must_use]
    pub fn new(settings: Settings<'_>) -> Self {
        let (gathering, failed) = Gathering::new(&settings);
        Self { gathering, failed }
    }

    /// The input of a call that has but this one: its length, where it knows it, is that of the call.
    pub fn count<I: IntoIterator>(&mut self, input: I) -> I::IntoIter {
        self.gathering.count(input)
    }

    /// Takes the next task; `Break` once the call has failed and more input is of no use.
    #[inline]
    pub fn push(&mut self, task: Task<T>) -> ControlFlow<()> {
        if self.failed.is_none() && self.gathering.push_simple(&task) {
            return ControlFlow::Continue(());
        }
        self.push_slowly(task)
    }

    #[inline(never)]
    fn push_slowly(&mut self, task: Task<T>) -> ControlFlow<()> {
        if self.failed.is_none() {
            self.failed = self.gathering.push(task, |outcome, _| outcome).err().map(Error::from);
        }
        flow(self.failed.is_some())
    }

    /// Waits for the rest.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub fn finish(self) -> Result<Vec<T>, Error> {
        match self.failed {
            Some(error) => Err(error),
            None => Ok(self.gathering.finish(|outcome: Result<T, TaskError>, _| outcome)?),
        }
    }
}

/// As [`Gather`], for functions that return a `Result`, called with `?`: the first `Err` ends the call and is what comes back. Part
/// of the expansion's interface.
pub struct GatherOk<T, E> {
    gathering: Gathering<T>,
    failed: Option<E>,
}

impl<T, E> GatherOk<T, E>
where
    std::result::Result<T, E>: DeserializeOwned + 'static,
    T: DeserializeOwned + 'static,
    E: From<TaskError>,
{
    /// A sink for the tasks of one call.
    #[must_use]
    pub fn new(settings: Settings<'_>) -> Self {
        let (gathering, error) = Gathering::new(&settings);
        // The function's own error is made of a task's: a call that cannot begin is one whose tasks are lost.
        let failed = error.map(|error| {
            let kind = TaskErrorKind::Lost { message: error.to_string() };
            E::from(TaskError::new("parallel!", kind, Place::default()))
        });
        Self { gathering, failed }
    }

    /// As [`Gather::count`].
    pub fn count<I: IntoIterator>(&mut self, input: I) -> I::IntoIter {
        self.gathering.count(input)
    }

    /// Takes the next task; `Break` once the call has failed and more input is of no use.
    #[inline]
    pub fn push(&mut self, task: Task<std::result::Result<T, E>>) -> ControlFlow<()> {
        if self.failed.is_none() && self.gathering.push_simple(&task) {
            return ControlFlow::Continue(());
        }
        self.push_slowly(task)
    }

    #[inline(never)]
    fn push_slowly(&mut self, task: Task<std::result::Result<T, E>>) -> ControlFlow<()> {
        if self.failed.is_none() {
            self.failed = self.gathering.push(task, |outcome, _| flatten(outcome)).err();
        }
        flow(self.failed.is_some())
    }

    /// Waits for the rest.
    ///
    /// # Errors
    ///
    /// The first failure, be it the function's own or its task's.
    pub fn finish(self) -> std::result::Result<Vec<T>, E> {
        match self.failed {
            Some(error) => Err(error),
            None => self.gathering.finish(|outcome, _| flatten(outcome)),
        }
    }
}

/// As [`Gather`], for `on_error = collect`: each task's outcome is an item, and no failure ends the call. Part of the expansion's
/// interface.
pub struct GatherAll<T> {
    gathering: Gathering<Result<T, TaskError>>,
    failed: Option<Error>,
}

impl<T: DeserializeOwned + 'static> GatherAll<T> {
    /// A sink for the tasks of one call.
    #[must_use]
    pub fn new(settings: Settings<'_>) -> Self {
        let (gathering, failed) = Gathering::new(&settings);
        Self { gathering, failed }
    }

    /// As [`Gather::count`].
    pub fn count<I: IntoIterator>(&mut self, input: I) -> I::IntoIter {
        self.gathering.count(input)
    }

    /// Takes the next task; `Break` if the call could not begin.
    #[inline]
    pub fn push(&mut self, task: Task<T>) -> ControlFlow<()> {
        if self.failed.is_none() && self.gathering.push_simple(&task) {
            return ControlFlow::Continue(());
        }
        self.push_slowly(task)
    }

    #[inline(never)]
    fn push_slowly(&mut self, task: Task<T>) -> ControlFlow<()> {
        if self.failed.is_none() {
            let Ok(()) = self.gathering.push(task, keep::<T, TaskError>);
        }
        flow(self.failed.is_some())
    }

    /// Waits for the rest.
    ///
    /// # Errors
    ///
    /// The call could not begin.
    pub fn finish(self) -> Result<Vec<Result<T, TaskError>>, Error> {
        match self.failed {
            Some(error) => Err(error),
            None => {
                let Ok(outcomes) = self.gathering.finish(keep::<T, TaskError>);
                Ok(outcomes)
            }
        }
    }
}

/// As [`GatherAll`], for functions that return a `Result`, called with `?`: a task's failure is one of the function's own kind. Part of
/// the expansion's interface.
pub struct GatherAllOk<T, E> {
    gathering: Gathering<std::result::Result<T, E>>,
    failed: Option<Error>,
}

impl<T, E> GatherAllOk<T, E>
where
    std::result::Result<T, E>: DeserializeOwned + 'static,
    E: From<TaskError>,
{
    /// A sink for the tasks of one call.
    #[must_use]
    pub fn new(settings: Settings<'_>) -> Self {
        let (gathering, failed) = Gathering::new(&settings);
        Self { gathering, failed }
    }

    /// As [`Gather::count`].
    pub fn count<I: IntoIterator>(&mut self, input: I) -> I::IntoIter {
        self.gathering.count(input)
    }

    /// Takes the next task; `Break` if the call could not begin.
    #[inline]
    pub fn push(&mut self, task: Task<std::result::Result<T, E>>) -> ControlFlow<()> {
        if self.failed.is_none() && self.gathering.push_simple(&task) {
            return ControlFlow::Continue(());
        }
        self.push_slowly(task)
    }

    #[inline(never)]
    fn push_slowly(&mut self, task: Task<std::result::Result<T, E>>) -> ControlFlow<()> {
        if self.failed.is_none() {
            let Ok(()) = self.gathering.push(task, |outcome, failed| keep(flatten(outcome), failed));
        }
        flow(self.failed.is_some())
    }

    /// Waits for the rest.
    ///
    /// # Errors
    ///
    /// The call could not begin.
    pub fn finish(self) -> Result<Vec<std::result::Result<T, E>>, Error> {
        match self.failed {
            Some(error) => Err(error),
            None => {
                let Ok(outcomes) = self.gathering.finish(|outcome, failed| keep(flatten(outcome), failed));
                Ok(outcomes)
            }
        }
    }
}

/// No outcome ends the call; failures are counted.
fn keep<T, E>(
    outcome: std::result::Result<T, E>,
    failed: &mut usize,
) -> std::result::Result<std::result::Result<T, E>, Infallible> {
    *failed += usize::from(outcome.is_err());
    Ok(outcome)
}

/// Says what has become of tasks.
fn tell(report: &mut Report, call: &mut Call, failed: usize) {
    let (progress, ended) = call.news();
    report.progress(progress);
    report.add(&ended, failed);
}

fn flatten<T, E: From<TaskError>>(
    outcome: Result<std::result::Result<T, E>, TaskError>,
) -> std::result::Result<T, E> {
    outcome.map_err(E::from).and_then(|result| result)
}

fn flow(failed: bool) -> ControlFlow<()> {
    if failed { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Different calls side by side: the members of a tuple. Part of the expansion's interface.
#[derive(Debug)]
pub struct Group<'p> {
    /// The call, or why there is none.
    call: Result<Call>,
    report: Option<Box<Report>>,
    members: Vec<Arc<Mutex<Slot>>>,
    /// No failure ends the call.
    collect: bool,
    pool: std::marker::PhantomData<&'p Pool>,
}

/// A member's outcome, once it is there.
type Slot = Option<Result<OwnedResult, TaskError>>;

/// One member of a [`Group`].
#[derive(Debug)]
pub struct Member<T> {
    slot: Arc<Mutex<Slot>>,
    function: &'static str,
    index: usize,
    result: std::marker::PhantomData<fn() -> T>,
}

impl<'p> Group<'p> {
    /// No members yet.
    #[must_use]
    pub fn new(settings: Settings<'p>) -> Self {
        let (call, report) = match settings.open() {
            Ok((call, report)) => (Ok(call), report),
            Err(error) => (Err(error), None),
        };
        Self { call, report, members: Vec::new(), collect: false, pool: std::marker::PhantomData }
    }

    /// As [`new`](Self::new), for `on_error = collect`.
    #[must_use]
    pub fn collecting(settings: Settings<'p>) -> Self {
        Self { collect: true, ..Self::new(settings) }
    }

    /// Starts one more task.
    pub fn add<T: DeserializeOwned + 'static>(&mut self, task: Task<T>) -> Member<T> {
        let slot = Arc::default();
        let member = Member {
            slot: Arc::clone(&slot),
            function: task.function(),
            index: self.members.len(),
            result: std::marker::PhantomData,
        };
        self.members.push(slot);
        if let Ok(call) = &mut self.call {
            call.push(task.call);
        }
        member
    }

    /// Waits for all of them, or for the first failure, which cancels the others.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub fn wait(&mut self) -> Result<(), Error> {
        let used = Err(Error::config("this group has been waited for"));
        let mut call = std::mem::replace(&mut self.call, used)?;
        let mut report = self.report.take();
        if let Some(report) = &mut report {
            report.expect(call.pushed());
        }
        if let Some(error) = call.disown() {
            return Err(error.into());
        }
        while call.outstanding() > 0 {
            call.wait();
            let (mut failure, mut failed) = (None, 0);
            let mut keep = |index: usize, outcome: Result<Encoded<'_>, TaskError>| match outcome {
                Err(error) if !self.collect => {
                    failed += 1;
                    failure = failure.take().or(Some(error));
                }
                outcome => {
                    failed += usize::from(outcome.is_err());
                    *self.members[index].lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(outcome.map(Encoded::into_owned))
                }
            };
            call.receive(|first, arrival| match arrival {
                Arrival::Many(results) => {
                    (first..).zip(results).for_each(|(index, result)| keep(index, Ok(Encoded::Short(result))))
                }
                Arrival::One(outcome) => keep(first, outcome),
            });
            if let Some(report) = &mut report {
                tell(report, &mut call, failed);
            }
            if let Some(error) = failure {
                drop(report);
                call.cancel(true);
                return Err(error.into());
            }
        }
        if let Some(report) = report {
            report.finish();
        }
        Ok(())
    }
}

impl<T: DeserializeOwned + 'static> Member<T> {
    /// The member's result, after [`Group::wait`].
    ///
    /// # Errors
    ///
    /// The result does not decode.
    pub fn take(self) -> Result<T, Error> {
        Ok(self.outcome()?)
    }

    /// What the member came to, after [`Group::wait`].
    ///
    /// # Errors
    ///
    /// The task failed, or its result does not decode.
    pub fn outcome(self) -> Result<T, TaskError> {
        let outcome = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut result = outcome.expect("a group whose wait was well has every member's outcome")?;
        let place = Place { index: Some(self.index), attempts: 1, worker: None };
        decode(self.function, result.as_encoded(), place)
    }
}

impl<T> fmt::Debug for Gather<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather").finish_non_exhaustive()
    }
}

impl<T, E> fmt::Debug for GatherOk<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatherOk").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for GatherAll<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatherAll").finish_non_exhaustive()
    }
}

impl<T, E> fmt::Debug for GatherAllOk<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatherAllOk").finish_non_exhaustive()
    }
}
