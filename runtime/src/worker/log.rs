//! Sends records of the `log` facade to the host. Installed as the worker's logger before any task runs.

use std::sync::atomic::Ordering;

use log::{
    LevelFilter, Metadata, Record,
    kv::{Error, Key, Value, VisitSource},
};

use super::host_link;
use crate::{
    context::RUNNING,
    protocol::{self, LogRecord, Notice},
};

struct LogForwarder;

/// Installs the forwarding logger. A function that sets its own logger gets an error from `log`, as in any program that sets two.
pub(super) fn install(level: u8) {
    if log::set_logger(&LogForwarder).is_ok() {
        set_level(level);
    }
}

/// Sets the most verbose level to forward. More verbose records cost only a comparison.
pub(super) fn set_level(level: u8) {
    let level = LevelFilter::iter().nth(usize::from(level)).unwrap_or(LevelFilter::Off);
    if log::max_level() != level {
        log::set_max_level(level);
    }
}

impl log::Log for LogForwarder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut fields = Fields(Vec::new());
        // A field that cannot be read is left out, because the record matters more.
        let _ = record.key_values().visit(&mut fields);
        let record = LogRecord {
            level: record.level() as u8,
            target: record.target().to_owned(),
            message: record.args().to_string(),
            module: record.module_path().map(str::to_owned),
            file: record.file().map(str::to_owned),
            line: record.line(),
            task: RUNNING.load(Ordering::Relaxed).checked_sub(1),
            fields: fields.0,
        };
        host_link::send(&Notice::Said(protocol::Record::Log(record)));
    }

    fn flush(&self) {}
}

struct Fields(Vec<(String, String)>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.0.push((key.to_string(), value.to_string()));
        Ok(())
    }
}
