//! Formats times and sizes in suitable units, for the table of statistics and for its hint.

use std::{fmt, time::Duration};

/// A duration in a suitable unit.
pub(super) struct ShortDuration(pub(crate) Duration);

impl fmt::Display for ShortDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos() as f64;
        let (number, unit) = match nanos {
            n if n < 1e3 => (n, "ns"),
            n if n < 1e6 => (n / 1e3, "µs"),
            n if n < 1e9 => (n / 1e6, "ms"),
            n => (n / 1e9, "s"),
        };
        let places = usize::from(number < 100.0 && nanos >= 1e3) + usize::from(number < 10.0 && nanos >= 1e3);
        f.pad(&format!("{number:.places$} {unit}"))
    }
}

/// A number of bytes in a suitable unit.
pub(super) struct ByteCount(pub(crate) u64);

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut number, mut unit) = (self.0 as f64, "B");
        for next in ["KiB", "MiB", "GiB", "TiB"] {
            if number < 1024.0 {
                break;
            }
            (number, unit) = (number / 1024.0, next);
        }
        let places = usize::from(unit != "B" && number < 100.0);
        f.pad(&format!("{number:.places$} {unit}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_short() {
        let check =
            |nanos, words: &str| assert_eq!(ShortDuration(Duration::from_nanos(nanos)).to_string(), words);
        check(7, "7 ns");
        check(1_500, "1.50 µs");
        check(25_000_000, "25.0 ms");
        check(250_000_000_000, "250 s");
        assert_eq!(ByteCount(17).to_string(), "17 B");
        assert_eq!(ByteCount(3 << 20).to_string(), "3.0 MiB");
    }
}
