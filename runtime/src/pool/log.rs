//! Gives records that were made in a worker to this process's logger.

use log::{
    Level, RecordBuilder,
    kv::{Error, Key, Source, Value, VisitSource},
};

use crate::{id::WorkerId, protocol::LogRecord};

/// Logs the record as if it had been made here, with the worker's place, its process and the task as fields.
pub(crate) fn emit(record: &LogRecord, worker: WorkerId, pid: u32) {
    let Some(level) = Level::iter().nth(usize::from(record.level).wrapping_sub(1)) else { return };
    if level > log::max_level() {
        return;
    }
    let fields = Fields { record, worker: worker.0, pid };
    let logger = log::logger();
    let mut builder = RecordBuilder::new();
    builder
        .level(level)
        .target(&record.target)
        .module_path(record.module.as_deref())
        .file(record.file.as_deref())
        .line(record.line)
        .key_values(&fields);
    if logger.enabled(&log::Metadata::builder().level(level).target(&record.target).build()) {
        logger.log(&builder.args(format_args!("{}", record.message)).build());
    }
}

struct Fields<'a> {
    record: &'a LogRecord,
    worker: u32,
    pid: u32,
}

impl Source for Fields<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), Error> {
        for (name, value) in &self.record.fields {
            visitor.visit_pair(Key::from_str(name), Value::from(value.as_str()))?;
        }
        if self.worker != WorkerId::ALONE.0 {
            visitor.visit_pair(Key::from_str("worker"), Value::from(self.worker))?;
        }
        visitor.visit_pair(Key::from_str("pid"), Value::from(self.pid))?;
        if let Some(task) = self.record.task {
            visitor.visit_pair(Key::from_str("task"), Value::from(task))?;
        }
        Ok(())
    }
}
