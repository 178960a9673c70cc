//! Coordinates what this process writes to its terminal: progress bars, and text that is printed while they are drawn.
//!
//! All code that prints calls [`aside`], so that no line appears in the middle of a bar. It never holds its lock while user code
//! prints.

#[cfg(feature = "indicatif")]
pub(crate) use bars::{Drawn, aside};

/// Prints while no bar is drawn.
#[cfg(not(feature = "indicatif"))]
pub(crate) fn aside<R>(print: impl FnOnce() -> R) -> R {
    print()
}

#[cfg(feature = "indicatif")]
mod bars {
    use std::{
        cell::Cell,
        panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
        sync::{
            Mutex, MutexGuard,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, WeakProgressBar};

    use crate::{sync::ignore_poison, sys::per_process::PerProcess};

    /// The bars of all calls on all threads of this process. A forked copy has none: those that it has inherited are its parent's.
    static BARS: PerProcess<Bars> = PerProcess::new();

    #[derive(Default)]
    struct Bars {
        screen: Mutex<Screen>,
        /// The number of calls that have a bar. It is changed while `screen` is locked.
        count: AtomicUsize,
    }

    thread_local! {
        /// This thread is printing.
        static PRINTS: Cell<bool> = const { Cell::new(false) };
    }

    /// Locked while a bar changes, and never while something is printed. The printing code may be a user's logger and may wait for
    /// a thread that changes a bar.
    #[derive(Default)]
    struct Screen {
        /// All bars, one below the other. Hidden while something is printed.
        group: Option<MultiProgress>,
        /// The bars in it.
        bars: Vec<WeakProgressBar>,
        /// Bars that ended while they were hidden. They still have to be drawn.
        ended: Vec<ProgressBar>,
        /// The number of threads that print.
        printing: usize,
    }

    impl Bars {
        fn of_this_process() -> &'static Self {
            BARS.get_or_init(Self::default)
        }

        fn lock(&self) -> MutexGuard<'_, Screen> {
            ignore_poison(self.screen.lock())
        }
    }

    impl Screen {
        /// Adds a bar below the others.
        fn add(&mut self) -> ProgressBar {
            let group = self.group.get_or_insert_with(|| {
                let is_hidden = self.printing > 0;
                MultiProgress::with_draw_target(if is_hidden {
                    ProgressDrawTarget::hidden()
                } else {
                    ProgressDrawTarget::stderr()
                })
            });
            let bar = group.add(ProgressBar::no_length());
            self.bars.push(bar.downgrade());
            bar
        }

        /// Removes the bars from the terminal until [`show`](Self::show).
        fn hide(&mut self) {
            self.printing += 1;
            if let Some(group) = &self.group
                && self.printing == 1
            {
                // An error of the terminal cannot be reported on it.
                let _ = group.clear();
                group.set_draw_target(ProgressDrawTarget::hidden());
            }
        }

        /// Draws the bars again if no thread prints. `count` is the number of calls that have one.
        fn show(&mut self, count: &AtomicUsize) {
            self.printing -= 1;
            if let Some(group) = &self.group
                && self.printing == 0
            {
                group.set_draw_target(ProgressDrawTarget::stderr());
                self.bars.retain(|bar| bar.upgrade().inspect(ProgressBar::tick).is_some());
                self.ended.clear();
                self.forget(count);
            }
        }

        /// Forgets the bars once all of them have ended. They stay on the terminal, and the next bar starts afresh.
        fn forget(&mut self, count: &AtomicUsize) {
            if count.load(Ordering::Relaxed) == 0 && self.printing == 0 {
                self.group = None;
                self.bars.clear();
            }
        }
    }

    /// A bar, until it is dropped.
    #[derive(Debug)]
    pub(crate) struct Drawn(ProgressBar);

    impl Drawn {
        /// Draws a bar below the others. Returns `None` to a logger that is printing.
        pub(crate) fn new() -> Option<Self> {
            if PRINTS.get() {
                return None;
            }
            let bars = Bars::of_this_process();
            let mut screen = bars.lock();
            bars.count.fetch_add(1, Ordering::Relaxed);
            Some(Self(screen.add()))
        }

        /// Changes the bar. It is drawn unless something is being printed.
        pub(crate) fn change<R>(&self, change: impl FnOnce(&ProgressBar) -> R) -> R {
            let _unhidden = Bars::of_this_process().lock();
            change(&self.0)
        }
    }

    impl Drop for Drawn {
        fn drop(&mut self) {
            // A forked copy leaks what it has inherited, so this bar is counted here.
            let bars = Bars::of_this_process();
            let mut screen = bars.lock();
            bars.count.fetch_sub(1, Ordering::Relaxed);
            if screen.printing > 0 {
                screen.ended.push(self.0.clone());
            }
            screen.forget(&bars.count);
        }
    }

    /// Prints while no bar is drawn.
    pub(crate) fn aside<R>(print: impl FnOnce() -> R) -> R {
        let Some(bars) = BARS.get().filter(|bars| bars.count.load(Ordering::Relaxed) > 0 && !PRINTS.get())
        else {
            return print();
        };
        bars.lock().hide();
        PRINTS.set(true);
        let printed = catch_unwind(AssertUnwindSafe(print));
        PRINTS.set(false);
        // What prints may have forked, and the bars are not the copy's.
        if BARS.get().is_some_and(|own| std::ptr::eq(own, bars)) {
            bars.lock().show(&bars.count);
        }
        printed.unwrap_or_else(|panic| resume_unwind(panic))
    }
}
