//! Remembers the `tracing` subscriber and span that were current when a task was submitted. The spans and events of the task are
//! delivered to that subscriber, under that span.
//!
//! Without the feature `tracing`, a [`Caller`] is empty.

use std::sync::Mutex;
#[cfg(feature = "tracing")]
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

#[cfg(feature = "tracing")]
use tracing_core::{Dispatch, LevelFilter, dispatcher, span::Id, subscriber::NoSubscriber};

use crate::sync::ignore_poison;

/// The subscriber and the span that were current.
#[cfg(not(feature = "tracing"))]
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller(());

/// The subscriber and the span that were current, or `None` if there was no subscriber.
#[cfg(feature = "tracing")]
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller(Option<Arc<Current>>);

#[cfg(feature = "tracing")]
#[derive(Debug)]
struct Current {
    dispatch: Dispatch,
    /// Kept open as long as this lives.
    span: Option<Id>,
}

/// Holds the caller of a task or a call until it is not needed any more. Locks nothing without the feature `tracing`.
#[derive(Debug, Default)]
pub(crate) struct CallerCell(Mutex<Caller>);

impl CallerCell {
    pub(crate) fn new(caller: Caller) -> Self {
        Self(Mutex::new(caller))
    }

    /// Returns the caller.
    pub(crate) fn get(&self) -> Caller {
        if cfg!(feature = "tracing") { ignore_poison(self.0.lock()).clone() } else { Caller::default() }
    }

    /// Removes and returns the caller. Dropping it may run code of a subscriber, so no lock may be held then.
    pub(crate) fn take(&self) -> Caller {
        if cfg!(feature = "tracing") {
            std::mem::take(&mut *ignore_poison(self.0.lock()))
        } else {
            Caller::default()
        }
    }
}

#[cfg(not(feature = "tracing"))]
impl Caller {
    pub(crate) fn current() -> Self {
        Self(())
    }

    /// Runs `run` as the caller would have.
    pub(crate) fn within<R>(&self, run: impl FnOnce() -> R) -> R {
        run()
    }
}

#[cfg(feature = "tracing")]
impl Caller {
    pub(crate) fn current() -> Self {
        if LevelFilter::current() == LevelFilter::OFF {
            return Self(None);
        }
        Self(dispatcher::get_default(|dispatch| {
            if dispatch.is::<NoSubscriber>() {
                return None;
            }
            let current = dispatch.current_span();
            let span = current.id().map(|id| dispatch.clone_span(id));
            Some(Arc::new(Current { dispatch: dispatch.clone(), span }))
        }))
    }

    /// Runs `run` as the caller would have, with its subscriber and in its span.
    pub(crate) fn within<R>(&self, run: impl FnOnce() -> R) -> R {
        let Some(current) = &self.0 else { return run() };
        dispatcher::with_default(&current.dispatch, || {
            let _entered = Entered::new(&current.dispatch, self.span());
            run()
        })
    }

    pub(crate) fn dispatch(&self) -> Option<&Dispatch> {
        self.0.as_ref().map(|current| &current.dispatch)
    }

    pub(crate) fn span(&self) -> Option<&Id> {
        self.0.as_ref()?.span.as_ref()
    }
}

#[cfg(feature = "tracing")]
impl Drop for Current {
    fn drop(&mut self) {
        if let Some(span) = self.span.take() {
            close(&self.dispatch, span);
        }
    }
}

/// Tells the subscriber that a span is not needed any more. A panic of the subscriber was reported by the panic hook. It must not
/// keep waiters from being woken, and several spans may be closed by one drop, where a second panic would end this process.
#[cfg(feature = "tracing")]
pub(crate) fn close(dispatch: &Dispatch, span: Id) {
    let _ = catch_unwind(AssertUnwindSafe(|| dispatch.try_close(span)));
}

/// A span that is exited on drop, even if a user's subscriber panics.
#[cfg(feature = "tracing")]
pub(crate) struct Entered<'a> {
    dispatch: &'a Dispatch,
    span: Option<&'a Id>,
}

#[cfg(feature = "tracing")]
impl<'a> Entered<'a> {
    pub(crate) fn new(dispatch: &'a Dispatch, span: Option<&'a Id>) -> Self {
        if let Some(span) = span {
            dispatch.enter(span);
        }
        Self { dispatch, span }
    }
}

#[cfg(feature = "tracing")]
impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if let Some(span) = self.span {
            // Like `close`, this must not panic.
            let _ = catch_unwind(AssertUnwindSafe(|| self.dispatch.exit(span)));
        }
    }
}
