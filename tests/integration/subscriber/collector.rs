//! A subscriber that keeps what it receives.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

/// Fields as a subscriber sees them: each with its type.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fields(pub(super) BTreeMap<String, String>);

impl Fields {
    pub(super) fn put(&mut self, field: &Field, value: String) {
        assert_eq!(self.0.insert(field.name().to_owned(), value), None, "{field} comes twice");
    }

    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, format!("f64 {value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, format!("i64 {value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, format!("u64 {value}"));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.put(field, format!("i128 {value}"));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.put(field, format!("u128 {value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, format!("bool {value}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, format!("str {value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

/// An event, as the subscriber had it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) level: Level,
    pub(super) target: String,
    pub(super) module: Option<String>,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
    pub(super) fields: Fields,
    /// The spans that it is in by its parent, the outermost first.
    pub(super) scope: Vec<(String, Fields)>,
    /// The innermost span that the subscriber is in meanwhile.
    pub(super) current: Option<String>,
}

impl Seen {
    pub(super) fn names(&self) -> Vec<&str> {
        self.scope.iter().map(|(name, _)| name.as_str()).collect()
    }

    pub(super) fn words(&self) -> &str {
        self.fields.get("message")
    }
}

/// Gathers events, and counts spans.
#[derive(Clone, Default)]
pub(super) struct Collector {
    pub(super) seen: Arc<Mutex<Vec<Seen>>>,
    pub(super) opened: Arc<AtomicUsize>,
    pub(super) closed: Arc<AtomicUsize>,
}

impl Collector {
    pub(super) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn open_spans(&self) -> usize {
        self.opened.load(Ordering::SeqCst) - self.closed.load(Ordering::SeqCst)
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Collector {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.opened.fetch_add(1, Ordering::SeqCst);
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        context.span(id).expect("it is new").extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).expect("it is open");
        let mut extensions = span.extensions_mut();
        record.record(extensions.get_mut::<Fields>().expect("put there when it was new"));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let scope = context.event_scope(event).into_iter().flat_map(|scope| scope.from_root());
        let scope = scope.map(|span| {
            (span.name().to_owned(), span.extensions().get::<Fields>().cloned().unwrap_or_default())
        });
        let metadata = event.metadata();
        let seen = Seen {
            level: *metadata.level(),
            target: metadata.target().to_owned(),
            module: metadata.module_path().map(str::to_owned),
            file: metadata.file().map(str::to_owned),
            line: metadata.line(),
            fields,
            scope: scope.collect(),
            current: context.lookup_current().map(|span| span.name().to_owned()),
        };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    }

    fn on_close(&self, _: Id, _: Context<'_, S>) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

/// Listens in this test's process, from now on. Pools are built before: a worker that is a copy of a process that has a subscriber
/// keeps it.
pub(super) fn collect(filter: impl Into<LevelFilter>) -> Collector {
    let collector = Collector::default();
    let subscriber = tracing_subscriber::registry().with(filter.into()).with(collector.clone());
    tracing::subscriber::set_global_default(subscriber).expect("a process of our own");
    collector
}
