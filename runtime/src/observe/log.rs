//! Passes records that were made in a worker to this process's logger.
//!
//! Loggers print what they are given. Control characters in the message, the target and the fields are therefore escaped first, and
//! lines after the first are indented, as `env_logger` does. A record cannot affect the terminal or be taken for another one.

use std::borrow::Cow;

use log::{
    Level, RecordBuilder,
    kv::{Error, Key, Source, Value, VisitSource},
};

use crate::{
    escape::{Escaped, Lines, is_control},
    id::WorkerId,
    protocol::LogRecord,
};

/// Logs the record as if it had been made here. The worker's index, its pid and the task are added as fields.
pub(crate) fn emit(record: &LogRecord, worker: WorkerId, pid: u32) {
    let Some(level) = Level::iter().nth(usize::from(record.level).wrapping_sub(1)) else { return };
    if level > log::max_level() {
        return;
    }
    let logger = log::logger();
    let target = one_line(&record.target);
    if !logger.enabled(&log::Metadata::builder().level(level).target(&target).build()) {
        return;
    }
    let own = record.fields.iter().map(|(name, value)| (one_line(name), one_line(value))).collect();
    let fields = ForwardedFields { own, worker: worker.0, pid, task: record.task };
    let (module, file) = (record.module.as_deref().map(one_line), record.file.as_deref().map(one_line));
    let mut builder = RecordBuilder::new();
    builder
        .level(level)
        .target(&target)
        .module_path(module.as_deref())
        .file(file.as_deref())
        .line(record.line)
        .key_values(&fields);
    logger.log(&builder.args(format_args!("{}", Lines(&record.message))).build());
}

/// Escapes a text, which is copied only if it contains something to escape.
fn one_line(words: &str) -> Cow<'_, str> {
    if words.contains(is_control) { Escaped(words).to_string().into() } else { words.into() }
}

struct ForwardedFields<'a> {
    /// The record's own fields, escaped.
    own: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    worker: u32,
    pid: u32,
    task: Option<u64>,
}

impl Source for ForwardedFields<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), Error> {
        for (name, value) in &self.own {
            visitor.visit_pair(Key::from_str(name), Value::from(&**value))?;
        }
        if self.worker != WorkerId::ALONE.0 {
            visitor.visit_pair(Key::from_str("worker"), Value::from(self.worker))?;
        }
        visitor.visit_pair(Key::from_str("pid"), Value::from(self.pid))?;
        if let Some(task) = self.task {
            visitor.visit_pair(Key::from_str("task"), Value::from(task))?;
        }
        Ok(())
    }
}
