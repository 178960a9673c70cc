//! What this process writes to its terminal: bars, and what is printed while they are drawn.
//!
//! Call [`aside`] to print, so that no line comes to stand in a bar.

#[cfg(feature = "indicatif")]
pub(crate) use bars::{Drawn, aside};

/// Prints, while no bar is drawn.
#[cfg(not(feature = "indicatif"))]
pub(crate) fn aside<R>(print: impl FnOnce() -> R) -> R {
    print()
}

#[cfg(feature = "indicatif")]
mod bars {
    use std::{
        cell::Cell,
        ops::Deref,
        panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
        sync::{
            Mutex, MutexGuard, PoisonError,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use indicatif::{MultiProgress, ProgressBar};

    /// All bars that are drawn now, those of calls on other threads too, one below the other.
    static BARS: Mutex<Option<MultiProgress>> = Mutex::new(None);
    /// How many they are. It is changed while `BARS` is locked.
    static COUNT: AtomicUsize = AtomicUsize::new(0);

    thread_local! {
        /// This thread is printing.
        static PRINTS: Cell<bool> = const { Cell::new(false) };
    }

    fn bars() -> MutexGuard<'static, Option<MultiProgress>> {
        BARS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A bar, until it is dropped.
    #[derive(Debug)]
    pub(crate) struct Drawn(ProgressBar);

    impl Drawn {
        /// Draws one below those that are there. A logger that is printing gets none.
        pub(crate) fn new() -> Option<Self> {
            if PRINTS.get() {
                return None;
            }
            let mut bars = bars();
            COUNT.fetch_add(1, Ordering::Relaxed);
            Some(Self(bars.get_or_insert_default().add(ProgressBar::no_length())))
        }
    }

    impl Deref for Drawn {
        type Target = ProgressBar;

        fn deref(&self) -> &ProgressBar {
            &self.0
        }
    }

    impl Drop for Drawn {
        fn drop(&mut self) {
            let mut bars = bars();
            if COUNT.fetch_sub(1, Ordering::Relaxed) == 1 {
                // What has ended stays on the screen, and the next bar knows nothing of it.
                *bars = None;
            }
        }
    }

    /// Prints, while no bar is drawn.
    pub(crate) fn aside<R>(print: impl FnOnce() -> R) -> R {
        if COUNT.load(Ordering::Relaxed) == 0 || PRINTS.get() {
            return print();
        }
        let Some(bars) = bars().clone() else { return print() };
        PRINTS.set(true);
        // A panic must not come by while the bars are locked.
        let printed = bars.suspend(|| catch_unwind(AssertUnwindSafe(print)));
        PRINTS.set(false);
        printed.unwrap_or_else(|panic| resume_unwind(panic))
    }
}
