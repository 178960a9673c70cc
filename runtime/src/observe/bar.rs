//! The progress bar of a call, drawn by `indicatif` on stderr if that is a terminal.
//!
//! Only `report` uses it. Without the feature `indicatif` there is no bar, and a message at a terminal says so once.

#[cfg(feature = "indicatif")]
pub(crate) use with::Bar;
#[cfg(not(feature = "indicatif"))]
pub(crate) use without::Bar;

/// Returns whether a bar would be seen: stderr is a terminal and this is not a worker, because several bars would overwrite each
/// other.
fn is_seen() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr()) && !crate::context::is_worker()
}

#[cfg(feature = "indicatif")]
mod with {
    use std::{collections::BTreeMap, fmt::Write, ops::Range};

    use indicatif::{ProgressState, ProgressStyle};

    use crate::{escape::Escaped, terminal::Drawn};

    /// The number of tasks that are shown with their progress. A longer list would be hard to read.
    const MOST_SHOWN: usize = 4;

    /// The bar if the number of tasks is known.
    const MEASURED: &str =
        "{prefix}{wide_bar} {percent:>3}% {pos}/{len} [{elapsed_precise}, {eta_precise} left, {rate}]{msg}";
    /// The bar if it is not known.
    const COUNTED: &str = "{prefix}{spinner} {pos} [{elapsed_precise}, {rate}]{msg}";

    #[derive(Debug)]
    pub(crate) struct Bar {
        bar: Drawn,
        failed: usize,
        /// The progress of running tasks that report it.
        running: BTreeMap<usize, f64>,
    }

    impl Bar {
        pub(crate) fn new(label: &str) -> Option<Self> {
            if !super::is_seen() {
                return None;
            }
            let bar = Drawn::new()?;
            bar.change(|bar| {
                bar.set_style(style(COUNTED));
                if !label.is_empty() {
                    bar.set_prefix(format!("{} ", Escaped(label)));
                }
                bar.tick();
            });
            Some(Self { bar, failed: 0, running: BTreeMap::new() })
        }

        pub(crate) fn expect(&mut self, total: usize) {
            self.bar.change(|bar| {
                if bar.length().is_none() {
                    bar.set_style(style(MEASURED));
                }
                bar.set_length(total as u64);
            });
        }

        /// Updates the bar: `done` tasks have ended, including these.
        pub(crate) fn set(&mut self, done: usize, failed: usize, ended: &[Range<usize>]) {
            self.failed = failed;
            if !self.running.is_empty() || failed > 0 {
                self.running.retain(|index, _| !ended.iter().any(|range| range.contains(index)));
                self.bar.change(|bar| bar.set_message(self.message()));
            }
            self.bar.change(|bar| bar.set_position(done as u64));
        }

        pub(crate) fn progress(&mut self, said: Vec<(usize, f64)>) {
            if !said.is_empty() {
                self.running.extend(said);
                self.bar.change(|bar| bar.set_message(self.message()));
            }
        }

        fn message(&self) -> String {
            let mut words = String::new();
            if self.failed > 0 {
                words = format!(" {} failed", self.failed);
            }
            for (index, fraction) in self.running.iter().take(MOST_SHOWN) {
                words.push_str(&format!(" #{index} {:.0}%", fraction * 100.0));
            }
            words
        }

        /// All tasks have ended. The bar stays, with the counts.
        pub(crate) fn finish(mut self) {
            self.running.clear();
            self.bar.change(|bar| {
                bar.set_message(self.message());
                bar.finish();
            });
        }

        /// The call ended early. The bar stays as it is.
        pub(crate) fn stop(mut self) {
            self.running.clear();
            self.bar.change(|bar| bar.abandon_with_message(format!("{} stopped", self.message())));
        }
    }

    fn style(template: &str) -> ProgressStyle {
        let rate = |state: &ProgressState, words: &mut dyn Write| {
            let _ = write!(words, "{:.1}/s", state.per_sec());
        };
        let style = ProgressStyle::with_template(template);
        style.unwrap_or_else(|_| ProgressStyle::default_bar()).with_key("rate", rate)
    }
}

#[cfg(not(feature = "indicatif"))]
mod without {
    use std::{io::Write, ops::Range, sync::Once};

    /// There is no bar.
    #[derive(Debug)]
    pub(crate) enum Bar {}

    impl Bar {
        pub(crate) fn new(_label: &str) -> Option<Self> {
            static ONCE: Once = Once::new();
            if super::is_seen() {
                ONCE.call_once(|| {
                    let words =
                        "procession: `progress` draws a bar only with the feature `indicatif`, which is not enabled\n";
                    let _ = std::io::stderr().lock().write_all(words.as_bytes());
                });
            }
            None
        }

        pub(crate) fn expect(&mut self, _total: usize) {}

        pub(crate) fn set(&mut self, _done: usize, _failed: usize, _ended: &[Range<usize>]) {}

        pub(crate) fn progress(&mut self, _said: Vec<(usize, f64)>) {}

        pub(crate) fn finish(self) {}

        pub(crate) fn stop(self) {}
    }
}
