//! Passes the `tracing` spans and events of workers to this process's subscriber.
//!
//! A subscriber needs callsites that live forever. One is created and kept for each place in a worker's program that has sent
//! something. There are as many as the program has. A limit applies in case a worker invents them.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicU8, Ordering},
    },
};

use tracing_core::{
    Callsite, Dispatch, Event, Field, Kind, Level, LevelFilter, Metadata,
    callsite::register,
    dispatcher,
    field::{self, FieldSet, Value, ValueSet},
    identify_callsite,
    span::{Attributes, Id, Record},
    subscriber::Interest,
};

use crate::{
    caller::{Caller, Entered, close},
    escape::{Escaped, Lines},
    id::WorkerId,
    protocol::{FieldValue, Parent, Said, SourceLocation, TraceRecord, level_number},
    sync::ignore_poison,
    sys::per_process::PerProcess,
};

/// The maximum number of places that are distinguished. Spans and events from others belong to no place.
const MOST_PLACES: usize = 4096;
/// The maximum length of the description of a place.
const MOST_PLACE_BYTES: usize = 4096;
/// The maximum depth of a worker's spans. What is in deeper spans belongs to the deepest span that is known.
const MOST_DEPTH: usize = 64;
/// The maximum number of open spans of a worker that are distinguished.
const MOST_SPANS: usize = 1 << 16;
/// The fields that `tracing` supports, and those that are added here.
const MOST_FIELDS: usize = 32 + OWN.len();
/// The fields that are added to each event.
const OWN: [&str; 3] = ["worker", "pid", "task"];

/// A span of a worker.
struct HostSpan {
    dispatch: Dispatch,
    /// `None` if the subscriber does not want it.
    id: Option<Id>,
    site: &'static ForwardedCallsite,
    parent: Option<Arc<HostSpan>>,
    /// The number of spans above it.
    depth: usize,
    caller: Caller,
}

impl Drop for HostSpan {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            close(&self.dispatch, id);
        }
    }
}

/// The open spans of each worker, by its process and their numbers there. Another thread may have locked them when this process was
/// copied, so a copy has its own.
static SPANS: PerProcess<Mutex<Spans>> = PerProcess::new();

type Spans = HashMap<u32, HashMap<u64, Arc<HostSpan>>>;

fn spans() -> MutexGuard<'static, Spans> {
    ignore_poison(SPANS.get_or_init(Mutex::default).lock())
}

fn find(pid: u32, span: u64) -> Option<Arc<HostSpan>> {
    spans().get(&pid)?.get(&span).cloned()
}

/// Forgets the spans of a process that has ended.
pub(crate) fn forget(pid: u32) {
    let gone = spans().remove(&pid);
    drop(gone);
}

/// Returns the most verbose level that a subscriber of this process wants. 0 is none, 5 is all.
pub(crate) fn level() -> u8 {
    level_number(LevelFilter::current())
}

/// Passes a span or an event to the subscriber, as if it had been made here, under the span in which the task was submitted.
pub(crate) fn emit(said: &Said, worker: WorkerId, pid: u32, caller: &Caller) {
    match &said.record {
        TraceRecord::NewSpan { span, parent, place, values } => {
            if spans().get(&pid).is_some_and(|spans| spans.len() >= MOST_SPANS) {
                return;
            }
            let new = HostSpan::new(
                ForwardedCallsite::of(place, Kind::SPAN),
                &Under::new(*parent, pid, caller),
                values,
            );
            let before = spans().entry(pid).or_default().insert(*span, Arc::new(new));
            drop(before);
        }
        TraceRecord::Values { span, values } => {
            if let Some(span) = find(pid, *span)
                && let Some(id) = &span.id
            {
                with_values(span.site, values, &[], |values| span.dispatch.record(id, &Record::new(values)));
            }
        }
        TraceRecord::Follows { span, follows } => {
            if let (Some(span), Some(follows)) = (find(pid, *span), find(pid, *follows))
                && let (Some(id), Some(follows)) = (&span.id, &follows.id)
            {
                span.dispatch.record_follows_from(id, follows);
            }
        }
        TraceRecord::Close { span } => {
            let gone = spans().get_mut(&pid).and_then(|spans| spans.remove(span));
            drop(gone);
        }
        TraceRecord::Event { parent, place, values } => {
            let site = ForwardedCallsite::of(place, Kind::EVENT);
            if site.is_never() {
                return;
            }
            let task = said.task;
            let own: [(&str, Option<&dyn Value>); 3] = [
                ("worker", Some(&worker.0)),
                ("pid", Some(&pid)),
                ("task", task.as_ref().map(|task| task as &dyn Value)),
            ];
            Under::new(*parent, pid, caller).event(site, values, &own);
        }
    }
}

impl HostSpan {
    /// Makes the span here, if the subscriber wants it.
    fn new(site: &'static ForwardedCallsite, parent: &Under, values: &[(u32, FieldValue)]) -> Self {
        let depth = parent.span.as_ref().map_or(0, |span| span.depth + 1);
        parent.within(|| {
            let enabled = depth < MOST_DEPTH && site.is_enabled(&parent.dispatch);
            let id = enabled.then(|| {
                with_values(site, values, &[], |values| {
                    let metadata = site.metadata();
                    parent.dispatch.new_span(&match parent.id() {
                        Some(id) => Attributes::child_of(id.clone(), metadata, values),
                        None => Attributes::new_root(metadata, values),
                    })
                })
            });
            // A span that is too deep takes the place of its parent, so that a chain of spans cannot grow without end.
            let above = parent.span.as_ref().and_then(|span| match span.depth {
                ..MOST_DEPTH => Some(span.clone()),
                _ => span.parent.clone(),
            });
            Self {
                dispatch: parent.dispatch.clone(),
                id,
                site,
                parent: above,
                depth: depth.min(MOST_DEPTH),
                caller: parent.caller.clone(),
            }
        })
    }
}

/// The parent of a span or an event.
struct Under {
    dispatch: Dispatch,
    span: Option<Arc<HostSpan>>,
    caller: Caller,
}

impl Under {
    fn new(parent: Parent, pid: u32, caller: &Caller) -> Self {
        let (span, caller) = match parent {
            Parent::Root => (None, None),
            Parent::Call => (None, Some(caller)),
            Parent::Span(span) => match find(pid, span) {
                Some(span) => {
                    let (dispatch, caller) = (span.dispatch.clone(), span.caller.clone());
                    return Self { dispatch, span: Some(span), caller };
                }
                None => (None, Some(caller)),
            },
        };
        let dispatch = caller.and_then(Caller::dispatch).cloned();
        let dispatch = dispatch.unwrap_or_else(|| dispatcher::get_default(Dispatch::clone));
        Self { dispatch, span, caller: caller.cloned().unwrap_or_default() }
    }

    /// Returns the innermost span.
    fn id(&self) -> Option<&Id> {
        let mut span = self.span.as_deref();
        while let Some(this) = span {
            if this.id.is_some() {
                return this.id.as_ref();
            }
            span = this.parent.as_deref();
        }
        self.caller.span()
    }

    /// Makes an event here, if the subscriber wants it.
    fn event(
        &self,
        site: &'static ForwardedCallsite,
        values: &[(u32, FieldValue)],
        own: &[(&str, Option<&dyn Value>)],
    ) {
        self.within(|| {
            if site.is_enabled(&self.dispatch) {
                with_values(site, values, own, |values| {
                    self.dispatch.event(&Event::new_child_of(self.id().cloned(), site.metadata(), values));
                });
            }
        });
    }

    /// Runs `run` inside all of the spans, so that a subscriber that asks for the current span sees them.
    fn within<R>(&self, run: impl FnOnce() -> R) -> R {
        let mut inner_first = Vec::new();
        let mut span = self.span.as_deref();
        while let Some(this) = span {
            inner_first.push(this.id.as_ref());
            span = this.parent.as_deref();
        }
        inner_first.push(self.caller.span());
        // They are exited in reverse order. Dropping a vector would not do that.
        let mut entered = Vec::new();
        for span in inner_first.into_iter().rev() {
            entered.push(Entered::new(&self.dispatch, span));
        }
        let result = run();
        while entered.pop().is_some() {}
        result
    }
}

/// A place in the workers' program.
struct ForwardedCallsite {
    metadata: OnceLock<Metadata<'static>>,
    /// The answer of subscribers about it: 0 nothing yet, 1 never, 2 sometimes, 3 always.
    interest: AtomicU8,
    /// The number of the worker's fields, which come before ours.
    fields: usize,
}

impl Callsite for ForwardedCallsite {
    fn set_interest(&self, interest: Interest) {
        let interest = match () {
            () if interest.is_never() => 1,
            () if interest.is_always() => 3,
            () => 2,
        };
        self.interest.store(interest, Ordering::Relaxed);
    }

    fn metadata(&self) -> &Metadata<'_> {
        self.metadata.get().expect("a site is registered once it is whole")
    }
}

impl ForwardedCallsite {
    /// Returns the site of a place.
    fn of(place: &SourceLocation, kind: Kind) -> &'static Self {
        static SITES: PerProcess<Mutex<HashMap<(SourceLocation, bool), &'static ForwardedCallsite>>> =
            PerProcess::new();
        let is_span = kind == Kind::SPAN;
        let key = (place.clone(), is_span);
        let lock = || ignore_poison(SITES.get_or_init(Mutex::default).lock());
        let (known, many) = {
            let sites = lock();
            (sites.get(&key).copied(), sites.len())
        };
        if let Some(site) = known {
            return site;
        }
        let bytes = [&place.name, &place.target]
            .into_iter()
            .chain(&place.module)
            .chain(&place.file)
            .chain(&place.fields);
        let bytes: usize = bytes.map(String::len).sum();
        if many >= MOST_PLACES || bytes > MOST_PLACE_BYTES || place.fields.len() > MOST_FIELDS - OWN.len() {
            return Self::of_no_place(place.level, is_span);
        }
        let site = Self::new(place, kind);
        lock().entry(key).or_insert(site)
    }

    /// Returns the site for all places beyond the limit.
    fn of_no_place(level: u8, is_span: bool) -> &'static Self {
        static SITES: [OnceLock<&'static ForwardedCallsite>; 10] = [const { OnceLock::new() }; 10];
        let level = level.clamp(1, 5);
        SITES[usize::from(level - 1) + if is_span { 5 } else { 0 }].get_or_init(|| {
            let place = SourceLocation {
                name: "of no place".to_owned(),
                target: "procession".to_owned(),
                level,
                module: None,
                file: None,
                line: None,
                fields: vec!["message".to_owned()],
            };
            Self::new(&place, if is_span { Kind::SPAN } else { Kind::EVENT })
        })
    }

    fn new(place: &SourceLocation, kind: Kind) -> &'static Self {
        let is_event = kind == Kind::EVENT;
        let leak = |words: &str| -> &'static str { Box::leak(words.to_owned().into_boxed_str()) };
        let mut names: Vec<&'static str> = place.fields.iter().map(|name| leak(name)).collect();
        let fields = names.len();
        if is_event {
            // If an event has a field with the same name, its own is kept.
            names.extend(OWN.into_iter().filter(|own| !place.fields.iter().any(|name| name == own)));
        }
        let level = match place.level {
            0 | 1 => Level::ERROR,
            2 => Level::WARN,
            3 => Level::INFO,
            4 => Level::DEBUG,
            _ => Level::TRACE,
        };
        let site: &'static Self =
            Box::leak(Box::new(Self { metadata: OnceLock::new(), interest: AtomicU8::new(0), fields }));
        let _ = site.metadata.set(Metadata::new(
            leak(&Escaped(&place.name).to_string()),
            leak(&Escaped(&place.target).to_string()),
            level,
            place.file.as_deref().map(leak),
            place.line,
            place.module.as_deref().map(leak),
            FieldSet::new(Box::leak(names.into_boxed_slice()), identify_callsite!(site)),
            kind,
        ));
        register(site);
        site
    }

    /// Returns whether no subscriber wants it.
    fn is_never(&self) -> bool {
        self.interest.load(Ordering::Relaxed) == 1
    }

    fn is_enabled(&'static self, dispatch: &Dispatch) -> bool {
        !self.is_never() && dispatch.enabled(self.metadata())
    }
}

/// A string that is written without quotation marks.
struct Verbatim<'a>(&'a str);

impl fmt::Debug for Verbatim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Lines(self.0))
    }
}

/// Calls `then` with the values assigned to the site's fields, and with the fields that are added.
fn with_values<R>(
    site: &'static ForwardedCallsite,
    values: &[(u32, FieldValue)],
    own: &[(&str, Option<&dyn Value>)],
    then: impl FnOnce(&ValueSet<'_>) -> R,
) -> R {
    let metadata = site.metadata();
    let fields: Vec<Field> = metadata.fields().iter().collect();
    let Some(first) = fields.first() else { return then(&metadata.fields().value_set(&[])) };
    let is_message = |index: u32| fields.get(index as usize).is_some_and(|field| field.name() == "message");
    let words: Vec<_> = values
        .iter()
        .map(|(index, value)| match value {
            FieldValue::Text(words) => Some(field::debug(Verbatim(words))),
            // Subscribers print a message as it is, and other strings with quotation marks.
            FieldValue::Str(words) if is_message(*index) => Some(field::debug(Verbatim(words))),
            _ => None,
        })
        .collect();
    let mut set: [(&Field, Option<&dyn Value>); MOST_FIELDS] = [(first, None); MOST_FIELDS];
    let mut places = set.iter_mut();
    for ((index, value), words) in values.iter().zip(&words) {
        let field = fields[..site.fields].get(*index as usize);
        let (Some(field), Some(place)) = (field, places.next()) else { continue };
        let value: &dyn Value = match (words, value) {
            (Some(words), _) => words,
            (None, FieldValue::F64(value)) => value,
            (None, FieldValue::I64(value)) => value,
            (None, FieldValue::U64(value)) => value,
            (None, FieldValue::I128(value)) => value,
            (None, FieldValue::U128(value)) => value,
            (None, FieldValue::Bool(value)) => value,
            (None, FieldValue::Str(value) | FieldValue::Text(value)) => value,
        };
        *place = (field, Some(value));
    }
    for (name, value) in own {
        let field = fields[site.fields..].iter().find(|field| field.name() == *name);
        if let (Some(field), Some(place)) = (field, places.next()) {
            *place = (field, *value);
        }
    }
    then(&metadata.fields().value_set(&set))
}
