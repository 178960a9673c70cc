//! Events and spans of `tracing` in workers reach the parent's subscriber: once, typed, in its spans, under the caller's span.

mod collector;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use procession::{Pool, Process, StartMethod, delayed, worker};
use tracing::{Level, Subscriber, level_filters::LevelFilter, span::Id};
use tracing_subscriber::{
    EnvFilter, Layer,
    layer::{Context, SubscriberExt},
    reload,
};

use self::collector::{Collector, Fields, collect};
use crate::{
    alone::alone,
    end::End,
    event::{block_on, until, until_exists},
    scratch::{Folder, append, numbers},
};

/// The line number of the event in `speak`.
const LINE: u32 = line!() + 5;

#[worker]
fn speak(n: u64) -> u32 {
    let colour = String::from("red");
    tracing::warn!(target: "of our own", size = n, depth = -3, ratio = 0.5, done = true, colour, shape = ?Some(n), place = %n, "task {n} speaks");
    std::process::id()
}

#[worker]
fn say(n: u64) -> u64 {
    tracing::info!("{n}");
    n
}

#[worker]
fn say_apart() {
    tracing::info!(parent: None, "apart");
}

#[tracing::instrument(fields(later))]
fn inner(depth: u64) {
    tracing::Span::current().record("later", "known now");
    tracing::info!("within");
    if depth > 0 {
        inner(depth - 1);
    }
}

#[worker]
fn in_spans(n: u64) {
    let outer = tracing::info_span!("outer", n, exact = 1.5);
    outer.in_scope(|| inner(1));
    tracing::info!(parent: &outer, "by its parent");
    tracing::info!("outside");
}

#[worker]
fn in_a_span_that_ends(end: End) {
    let _entered = tracing::info_span!("doomed").entered();
    tracing::info!("before the end");
    end.strike()
}

#[worker]
fn end_in_nested_spans(file: &Path, end: End) {
    let _outer = tracing::info_span!("outer").entered();
    let _inner = tracing::info_span!("inner").entered();
    until_exists(file);
    end.strike()
}

#[worker]
async fn in_a_future(n: u64) -> u64 {
    use tracing::Instrument;
    async {
        tokio::task::yield_now().await;
        tracing::info!("awaited");
    }
    .instrument(tracing::info_span!("future", n))
    .await;
    n
}

/// Notes in the file how often an event's words were put together.
#[worker]
fn expensive(evaluated: &Path) {
    let evaluate = |n: u64| {
        append(evaluated, n);
        n
    };
    tracing::debug!("{}", evaluate(1));
    tracing::info!("{}", evaluate(2));
}

#[worker]
fn say_by_log(n: u64) {
    log::info!("{n}");
}

#[worker]
fn every_level() {
    tracing::error!("error");
    tracing::warn!("warn");
    tracing::info!("info");
    tracing::debug!("debug");
    tracing::trace!("trace");
}

#[worker]
fn from_threads(threads: u64, events: u64) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || (0..events).for_each(|n| tracing::info!(thread, n)));
        }
    });
}

#[worker]
fn long(bytes: usize) {
    tracing::info!("{}", "x".repeat(bytes));
}

#[test]
fn an_event_arrives_once_with_typed_fields_and_its_place_before_the_result() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let collector = collect(LevelFilter::INFO);
        for n in 0..50 {
            let handle = pool.submit(delayed!(speak(n)));
            let task = handle.task_id();
            let pid = handle.join().unwrap();
            let seen = collector.take();
            assert_eq!(seen.len(), 1, "{seen:?}");
            let event = &seen[0];
            assert_eq!((event.level, event.target.as_str()), (Level::WARN, "of our own"));
            assert_eq!(event.module.as_deref(), Some(module_path!()));
            assert!(event.file.as_deref().is_some_and(|file| file.ends_with("subscriber/mod.rs")));
            assert_eq!(event.line, Some(LINE));
            let expected = [
                ("message", format!("task {n} speaks")),
                ("size", format!("u64 {n}")),
                ("depth", "i64 -3".to_owned()),
                ("ratio", "f64 0.5".to_owned()),
                ("done", "bool true".to_owned()),
                ("colour", "str red".to_owned()),
                ("shape", format!("Some({n})")),
                ("place", n.to_string()),
                ("worker", "u64 0".to_owned()),
                ("pid", format!("u64 {pid}")),
                ("task", format!("u64 {task}")),
            ];
            let expected = expected.into_iter().map(|(name, value)| (name.to_owned(), value));
            assert_eq!(event.fields, Fields(expected.collect()));
            assert_eq!(event.names(), [""; 0]);
        }
    });
}

#[test]
fn events_are_children_of_the_span_in_which_the_task_was_submitted() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let collector = collect(LevelFilter::INFO);
        let handles: Vec<_> = (0..20)
            .map(|n| tracing::info_span!("submitting", n).in_scope(|| pool.submit(delayed!(say(n)))))
            .collect();
        tracing::info_span!("joining")
            .in_scope(|| handles.into_iter().for_each(|handle| assert!(handle.join().is_ok())));
        let seen = collector.take();
        assert_eq!(seen.len(), 20);
        for event in seen {
            assert_eq!(event.names(), ["submitting"]);
            assert_eq!(event.scope[0].1.get("n"), format!("u64 {}", event.words()));
            assert_eq!(event.current.as_deref(), Some("submitting"));
        }
        let results =
            tracing::info_span!("mapping").in_scope(|| pool.map((0..100).map(|n| delayed!(say(n)))));
        assert_eq!(results.unwrap().len(), 100);
        let lazy = tracing::info_span!("reading").in_scope(|| pool.imap((0..100).map(|n| delayed!(say(n)))));
        assert_eq!(lazy.count(), 100);
        tracing::info_span!("spreading").in_scope(|| pool.broadcast(delayed!(say(1))).unwrap());
        let seen = collector.take();
        let count = |name: &str| seen.iter().filter(|event| event.names() == [name]).count();
        assert_eq!((count("mapping"), count("reading"), count("spreading"), seen.len()), (100, 100, 2, 202));
        tracing::info_span!("calling").in_scope(|| pool.submit(delayed!(say_apart()))).join().unwrap();
        assert_eq!(collector.take()[0].names(), [""; 0], "it asked to stand apart");
        until("no span is held for longer than its tasks", || collector.open_spans() == 0);
    });
}

#[test]
fn spans_of_a_worker_are_made_again_with_their_fields_and_end() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let collector = collect(LevelFilter::INFO);
        for n in 0..10 {
            let call = tracing::info_span!("call");
            call.in_scope(|| pool.submit(delayed!(in_spans(n)))).join().unwrap();
            drop(call);
            let seen = collector.take();
            let names: Vec<_> = seen.iter().map(|event| (event.words(), event.names())).collect();
            assert_eq!(
                names,
                [
                    ("within", vec!["call", "outer", "inner"]),
                    ("within", vec!["call", "outer", "inner", "inner"]),
                    ("by its parent", vec!["call", "outer"]),
                    ("outside", vec!["call"]),
                ]
            );
            assert_eq!(seen[0].current.as_deref(), Some("inner"));
            let outer = &seen[0].scope[1].1;
            assert_eq!((outer.get("n"), outer.get("exact")), (format!("u64 {n}").as_str(), "f64 1.5"));
            let inner = &seen[1].scope[3].1;
            assert_eq!((inner.get("depth"), inner.get("later")), ("u64 0", "str known now"));
            until("no span is held for longer than its tasks", || collector.open_spans() == 0);
        }
    });
}

#[test]
fn events_before_a_panic_or_a_crash_arrive_and_spans_end_with_the_process() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let collector = collect(LevelFilter::INFO);
        for end in [End::Panic, End::Abort, End::Segfault] {
            assert!(pool.submit(delayed!(in_a_span_that_ends(end))).join().is_err());
            let seen = collector.take();
            assert_eq!(seen.len(), 1);
            assert_eq!((seen[0].words(), seen[0].names()), ("before the end", vec!["doomed"]));
            pool.submit(delayed!(say(1))).join().unwrap();
            collector.take();
            until("no span is held for longer than its tasks", || collector.open_spans() == 0);
        }
    });
}

#[test]
fn spans_of_a_process_end_with_it() {
    alone(|| {
        let collector = collect(LevelFilter::INFO);
        for end in [End::Panic, End::Abort, End::Kill] {
            assert!(Process::spawn(delayed!(in_a_span_that_ends(end))).unwrap().join().is_err());
            let seen = collector.take();
            assert_eq!((seen.len(), seen[0].names()), (1, vec!["doomed"]));
            until("no span is held for longer than its process", || collector.open_spans() == 0);
        }
    });
}

/// Panics whenever a span is left or closed.
#[derive(Clone, Default)]
struct Refusing(Arc<AtomicUsize>);

impl<S: Subscriber> Layer<S> for Refusing {
    fn on_exit(&self, _: &Id, _: Context<'_, S>) {
        panic!("a span is left");
    }

    fn on_close(&self, _: Id, _: Context<'_, S>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("a span is closed");
    }
}

/// Runs `run` in a span that is closed when the library needs it no more.
fn in_a_passing_span<R>(run: impl FnOnce() -> R) -> R {
    let span = tracing::info_span!("passing");
    span.with_subscriber(|(id, dispatch)| {
        dispatch.enter(id);
        let result = run();
        // The subscriber panics, and has left the span by then.
        assert!(catch_unwind(AssertUnwindSafe(|| dispatch.exit(id))).is_err());
        result
    })
    .expect("there is a subscriber")
}

fn refuse() -> Refusing {
    let refusing = Refusing::default();
    // The layer is called after the registry.
    let subscriber = tracing_subscriber::registry().with(LevelFilter::INFO).with(refusing.clone());
    tracing::subscriber::set_global_default(subscriber).unwrap();
    refusing
}

#[test]
fn a_subscriber_that_panics_as_spans_are_left_and_closed_keeps_no_result_of_a_pool() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let folder = Folder::new();
        let refusing = refuse();
        for is_awaited in [true, false] {
            let file = folder.path(if is_awaited { "await" } else { "join" });
            // The first one's end closes the worker's spans and the caller's, all at once.
            let lost = in_a_passing_span(|| pool.submit(delayed!(end_in_nested_spans(&file, End::Abort))));
            let later: Vec<_> = (0..9).map(|n| in_a_passing_span(|| pool.submit(delayed!(say(n))))).collect();
            let released = std::thread::spawn(move || std::fs::write(file, ""));
            let (lost, later) = if is_awaited {
                (block_on(lost), later.into_iter().map(block_on).collect::<Vec<_>>())
            } else {
                (lost.join(), later.into_iter().map(|handle| handle.join()).collect())
            };
            released.join().unwrap().unwrap();
            assert!(lost.unwrap_err().is_crash());
            assert!(later.into_iter().map(Result::unwrap).eq(0..9));
            until("all spans are closed", || refusing.0.load(Ordering::SeqCst) == 12);
            refusing.0.store(0, Ordering::SeqCst);
        }
    });
}

#[test]
fn a_subscriber_that_panics_as_spans_are_left_and_closed_keeps_no_result_of_a_process() {
    alone(|| {
        let folder = Folder::new();
        let refusing = refuse();
        for is_awaited in [true, false] {
            let file = folder.path(if is_awaited { "await" } else { "join" });
            let mut process = in_a_passing_span(|| {
                // A copy of this process would have its subscriber, and give its spans to that.
                let builder = Process::builder().start_method(StartMethod::Spawn);
                builder.spawn(delayed!(end_in_nested_spans(&file, End::Abort))).unwrap()
            });
            let released = std::thread::spawn(move || std::fs::write(file, ""));
            let lost = if is_awaited { block_on(&mut process) } else { process.join() };
            released.join().unwrap().unwrap();
            assert!(lost.unwrap_err().is_crash());
            until("all spans are closed", || refusing.0.load(Ordering::SeqCst) == 3);
            refusing.0.store(0, Ordering::SeqCst);
        }
    });
}

#[test]
fn events_of_a_future_arrive_within_its_span() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let collector = collect(LevelFilter::INFO);
        pool.submit(delayed!(in_a_future(7))).join().unwrap();
        let seen = collector.take();
        assert_eq!((seen[0].words(), seen[0].names()), ("awaited", vec!["future"]));
        until("no span is held for longer than its tasks", || collector.open_spans() == 0);
    });
}

#[test]
fn levels_that_the_parent_has_disabled_are_never_evaluated_in_the_worker() {
    alone(|| {
        let folder = Folder::new();
        let evaluated = folder.path("evaluated");
        let pool = Pool::new(1).unwrap();
        pool.submit(delayed!(expensive(&evaluated))).join().unwrap();
        assert_eq!(numbers(&evaluated), [], "nobody listens");
        let (filter, handle) = reload::Layer::new(LevelFilter::INFO);
        let collector = Collector::default();
        let subscriber = tracing_subscriber::registry().with(filter).with(collector.clone());
        tracing::subscriber::set_global_default(subscriber).unwrap();
        pool.submit(delayed!(expensive(&evaluated))).join().unwrap();
        assert_eq!(numbers(&evaluated), [2]);
        handle.reload(LevelFilter::OFF).unwrap();
        pool.submit(delayed!(expensive(&evaluated))).join().unwrap();
        assert_eq!(numbers(&evaluated), [2], "nothing is evaluated with everything off");
        handle.reload(LevelFilter::TRACE).unwrap();
        pool.submit(delayed!(expensive(&evaluated))).join().unwrap();
        assert_eq!(numbers(&evaluated), [1, 2, 2], "a change is heard by workers that run");
        let words: Vec<String> = collector.take().iter().map(|event| event.words().to_owned()).collect();
        assert_eq!(words, ["2", "1", "2"]);
    });
}

#[test]
fn each_level_arrives_as_itself_and_a_finer_filter_is_heeded() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let collector = Collector::default();
        let filter = EnvFilter::new(format!("error,{}=debug,of our own=off", module_path!()));
        let subscriber = tracing_subscriber::registry().with(collector.clone().with_filter(filter));
        tracing::subscriber::set_global_default(subscriber).unwrap();
        pool.submit(delayed!(every_level())).join().unwrap();
        pool.submit(delayed!(speak(1))).join().unwrap();
        let words: Vec<String> = collector.take().iter().map(|event| event.words().to_owned()).collect();
        assert_eq!(words, ["error", "warn", "info", "debug"]);
    });
}

#[test]
fn records_of_log_become_events_once_where_the_parent_wants_that() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let collector = collect(LevelFilter::INFO);
        tracing_log::LogTracer::init().unwrap();
        log::set_max_level(log::LevelFilter::Info);
        let span = tracing::info_span!("call");
        span.in_scope(|| pool.submit(delayed!(say_by_log(3)))).join().unwrap();
        span.in_scope(|| pool.submit(delayed!(say(4)))).join().unwrap();
        let seen = collector.take();
        let words: Vec<_> = seen.iter().map(|event| (event.words(), event.names())).collect();
        assert_eq!(words, [("3", vec!["call"]), ("4", vec!["call"])]);
    });
}

#[test]
fn only_the_subscriber_of_the_caller_receives_events() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let (mine, other) = (Collector::default(), Collector::default());
        let subscriber = |collector: &Collector| tracing_subscriber::registry().with(collector.clone());
        let handle = tracing::subscriber::with_default(subscriber(&mine), || pool.submit(delayed!(say(1))));
        tracing::subscriber::with_default(subscriber(&other), || handle.join().unwrap());
        assert_eq!((mine.take().len(), other.take().len()), (1, 0));
    });
}

#[test]
fn events_of_several_threads_and_long_ones_arrive_whole() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let collector = collect(LevelFilter::INFO);
        pool.submit(delayed!(from_threads(4, 200))).join().unwrap();
        let seen = collector.take();
        assert_eq!(seen.len(), 800);
        for thread in 0..4 {
            let of_thread = seen.iter().filter(|event| event.fields.get("thread") == format!("u64 {thread}"));
            let numbers = of_thread.map(|event| event.fields.get("n").to_owned());
            assert!(numbers.eq((0..200).map(|n| format!("u64 {n}"))), "each thread's own come in order");
        }
        for bytes in [5, 60_000, 3_000_000] {
            pool.submit(delayed!(long(bytes))).join().unwrap();
            assert_eq!(collector.take()[0].words().len(), bytes);
        }
    });
}

#[test]
fn a_pool_in_process_uses_the_same_subscriber() {
    alone(|| {
        let collector = collect(LevelFilter::INFO);
        tracing::info_span!("here").in_scope(|| Pool::in_process().submit(delayed!(say(5)))).join().unwrap();
        let seen = collector.take();
        assert_eq!((seen.len(), seen[0].names()), (1, vec!["here"]));
    });
}
