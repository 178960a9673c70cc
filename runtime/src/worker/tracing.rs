//! Sends the `tracing` spans and events of functions to the host. Installed as the worker's subscriber before the first task, if
//! the host has one.

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use tracing_core::{
    Dispatch, Event, Field, LevelFilter, Metadata, Subscriber,
    callsite::rebuild_interest_cache,
    dispatcher,
    field::Visit,
    span::{Attributes, Current, Id, Record},
    subscriber::Interest,
};

use super::host_link;
use crate::{
    context::RUNNING,
    protocol::{self, FieldValue, Notice, Parent, Said, SourceLocation, TraceRecord, level_number},
    sync::ignore_poison,
};

/// The most verbose level that the host wants. 0 is none, 5 is all.
static LEVEL: AtomicU8 = AtomicU8::new(0);

/// Sets the most verbose level to forward. More verbose spans and events cost only a comparison.
pub(super) fn set_level(level: u8) {
    if LEVEL.load(Ordering::Relaxed) == level {
        return;
    }
    LEVEL.store(level, Ordering::Relaxed);
    if !is_installed() {
        // A function that has set its own subscriber keeps it.
        let _ = dispatcher::set_global_default(Dispatch::new(TracingForwarder::default()));
    }
    rebuild_interest_cache();
}

fn is_installed() -> bool {
    dispatcher::get_default(|dispatch| dispatch.is::<TracingForwarder>())
}

fn level() -> LevelFilter {
    match LEVEL.load(Ordering::Relaxed) {
        0 => LevelFilter::OFF,
        1 => LevelFilter::ERROR,
        2 => LevelFilter::WARN,
        3 => LevelFilter::INFO,
        4 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    }
}

#[derive(Default)]
struct TracingForwarder {
    next: AtomicU64,
    spans: Mutex<HashMap<u64, WorkerSpan>>,
}

struct WorkerSpan {
    metadata: &'static Metadata<'static>,
    holders: usize,
}

thread_local! {
    /// The spans that this thread has entered, innermost last.
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

impl TracingForwarder {
    fn spans(&self) -> MutexGuard<'_, HashMap<u64, WorkerSpan>> {
        ignore_poison(self.spans.lock())
    }
}

fn current() -> Option<u64> {
    ENTERED.try_with(|entered| entered.borrow().last().copied()).ok().flatten()
}

fn parent(is_root: bool, explicit: Option<&Id>) -> Parent {
    match (is_root, explicit) {
        (true, _) => Parent::Root,
        (false, Some(id)) => Parent::Span(id.into_u64()),
        (false, None) => current().map_or(Parent::Call, Parent::Span),
    }
}

fn place(metadata: &Metadata<'_>) -> SourceLocation {
    SourceLocation {
        name: metadata.name().to_owned(),
        target: metadata.target().to_owned(),
        level: level_number(LevelFilter::from_level(*metadata.level())),
        module: metadata.module_path().map(str::to_owned),
        file: metadata.file().map(str::to_owned),
        line: metadata.line(),
        fields: metadata.fields().iter().map(|field| field.name().to_owned()).collect(),
    }
}

fn send(record: TraceRecord) {
    let task = RUNNING.load(Ordering::Relaxed).checked_sub(1);
    host_link::send(&Notice::Said(protocol::Record::Trace(Said { task, record })));
}

impl Subscriber for TracingForwarder {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= level()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(level())
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let metadata = span.metadata();
        self.spans().insert(number, WorkerSpan { metadata, holders: 1 });
        let mut values = FieldValues::default();
        span.record(&mut values);
        send(TraceRecord::NewSpan {
            span: number,
            parent: parent(span.is_root(), span.parent()),
            place: place(metadata),
            values: values.0,
        });
        Id::from_u64(number)
    }

    fn record(&self, span: &Id, record: &Record<'_>) {
        let mut values = FieldValues::default();
        record.record(&mut values);
        send(TraceRecord::Values { span: span.into_u64(), values: values.0 });
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        send(TraceRecord::Follows { span: span.into_u64(), follows: follows.into_u64() });
    }

    fn event(&self, event: &Event<'_>) {
        let mut values = FieldValues::default();
        event.record(&mut values);
        send(TraceRecord::Event {
            parent: parent(event.is_root(), event.parent()),
            place: place(event.metadata()),
            values: values.0,
        });
    }

    fn enter(&self, span: &Id) {
        let _ = ENTERED.try_with(|entered| entered.borrow_mut().push(span.into_u64()));
    }

    fn exit(&self, span: &Id) {
        let _ = ENTERED.try_with(|entered| {
            let mut entered = entered.borrow_mut();
            // Futures leave their spans in any order.
            if let Some(at) = entered.iter().rposition(|number| *number == span.into_u64()) {
                entered.remove(at);
            }
        });
    }

    fn clone_span(&self, id: &Id) -> Id {
        if let Some(span) = self.spans().get_mut(&id.into_u64()) {
            span.holders += 1;
        }
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let number = id.into_u64();
        {
            let mut spans = self.spans();
            let Some(span) = spans.get_mut(&number) else { return false };
            span.holders -= 1;
            if span.holders > 0 {
                return false;
            }
            spans.remove(&number);
        }
        send(TraceRecord::Close { span: number });
        true
    }

    fn current_span(&self) -> Current {
        let current = current().and_then(|number| Some((number, self.spans().get(&number)?.metadata)));
        current.map_or_else(Current::none, |(number, metadata)| Current::new(Id::from_u64(number), metadata))
    }
}

/// Values, each with the index of its field.
#[derive(Default)]
struct FieldValues(Vec<(u32, FieldValue)>);

impl FieldValues {
    fn put(&mut self, field: &Field, value: FieldValue) {
        self.0.extend(u32::try_from(field.index()).map(|index| (index, value)));
    }
}

impl Visit for FieldValues {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, FieldValue::F64(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, FieldValue::I64(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, FieldValue::U64(value));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.put(field, FieldValue::I128(value));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.put(field, FieldValue::U128(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, FieldValue::Bool(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, FieldValue::Str(value.to_owned()));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, FieldValue::Text(value.to_string()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, FieldValue::Text(format!("{value:?}")));
    }
}
