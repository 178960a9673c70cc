//! Code of users that the library calls: a logger, a subscriber, a waker.

use std::{
    sync::Arc,
    task::{RawWaker, RawWakerVTable, Wake, Waker},
};

use log::{LevelFilter, Log, Metadata, Record};
use tracing::{Event, Subscriber, span};
use tracing_subscriber::{Layer, layer::Context as LayerContext};

use super::copy::{Code, user_code};

pub(super) struct Logger;

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &Record<'_>) {
        user_code(Code::Logger);
    }

    fn flush(&self) {}
}

pub(super) fn set_logger() {
    log::set_logger(&Logger).unwrap();
    log::set_max_level(LevelFilter::Info);
}

pub(super) struct Listening;

impl<S: Subscriber> Layer<S> for Listening {
    fn on_new_span(&self, _: &span::Attributes<'_>, _: &span::Id, _: LayerContext<'_, S>) {
        user_code(Code::Subscriber);
    }

    fn on_event(&self, _: &Event<'_>, _: LayerContext<'_, S>) {
        user_code(Code::Subscriber);
    }

    fn on_close(&self, _: span::Id, _: LayerContext<'_, S>) {
        user_code(Code::Subscriber);
    }
}

pub(super) struct Waking;

impl Wake for Waking {
    fn wake(self: Arc<Self>) {
        user_code(Code::Waker);
    }
}

const FORKING: RawWakerVTable = RawWakerVTable::new(
    |data| {
        user_code(Code::WakerClone);
        RawWaker::new(data, &FORKING)
    },
    |_| {},
    |_| {},
    |_| user_code(Code::WakerDrop),
);

pub(super) fn forking_waker() -> Waker {
    // SAFETY: the functions of the table take no notice of the data, and may be called from any thread.
    unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &FORKING)) }
}
