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
            Mutex, MutexGuard, PoisonError,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, WeakProgressBar};

    /// The bars of all calls on all threads.
    static SCREEN: Mutex<Screen> =
        Mutex::new(Screen { group: None, bars: Vec::new(), ended: Vec::new(), printing: 0 });
    /// The number of calls that have a bar. It is changed while `SCREEN` is locked.
    static COUNT: AtomicUsize = AtomicUsize::new(0);

    thread_local! {
        /// This thread is printing.
        static PRINTS: Cell<bool> = const { Cell::new(false) };
    }

    /// Locked while a bar changes, and never while something is printed. The printing code may be a user's logger and may wait for
    /// a thread that changes a bar.
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

    fn screen() -> MutexGuard<'static, Screen> {
        SCREEN.lock().unwrap_or_else(PoisonError::into_inner)
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

        /// Draws the bars again if no thread prints.
        fn show(&mut self) {
            self.printing -= 1;
            if let Some(group) = &self.group
                && self.printing == 0
            {
                group.set_draw_target(ProgressDrawTarget::stderr());
                self.bars.retain(|bar| bar.upgrade().inspect(ProgressBar::tick).is_some());
                self.ended.clear();
                self.forget();
            }
        }

        /// Forgets the bars once all of them have ended. They stay on the terminal, and the next bar starts afresh.
        fn forget(&mut self) {
            if COUNT.load(Ordering::Relaxed) == 0 && self.printing == 0 {
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
            let mut screen = screen();
            COUNT.fetch_add(1, Ordering::Relaxed);
            Some(Self(screen.add()))
        }

        /// Changes the bar. It is drawn unless something is being printed.
        pub(crate) fn change<R>(&self, change: impl FnOnce(&ProgressBar) -> R) -> R {
            let _unhidden = screen();
            change(&self.0)
        }
    }

    impl Drop for Drawn {
        fn drop(&mut self) {
            let mut screen = screen();
            COUNT.fetch_sub(1, Ordering::Relaxed);
            if screen.printing > 0 {
                screen.ended.push(self.0.clone());
            }
            screen.forget();
        }
    }

    /// Prints while no bar is drawn.
    pub(crate) fn aside<R>(print: impl FnOnce() -> R) -> R {
        if COUNT.load(Ordering::Relaxed) == 0 || PRINTS.get() {
            return print();
        }
        screen().hide();
        PRINTS.set(true);
        let printed = catch_unwind(AssertUnwindSafe(print));
        PRINTS.set(false);
        screen().show();
        printed.unwrap_or_else(|panic| resume_unwind(panic))
    }
}
