//! Numbers and names as the census prints them.

use std::fmt::{self, Write as _};

/// The number of files named under each heading.
pub(crate) const MOST_NAMED: usize = 10;
/// The width of the output in columns.
pub(crate) const WIDTH: usize = 98;

/// Formats a number of bytes with four digits and a unit.
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut size = self.0 as f64;
        for unit in ["B", "KiB", "MiB", "GiB"] {
            if size < 1023.5 {
                let places = usize::from(size < 9.95 && unit != "B");
                return write!(f, "{size:.places$} {unit}");
            }
            size /= 1024.0;
        }
        write!(f, "{size:.1} TiB")
    }
}

/// Formats a whole number in groups of three digits.
pub(crate) struct Count(pub(crate) u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                f.write_char(',')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

/// Returns text that is safe to print on one line. Names of files and errors may contain anything.
fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_debug().collect() } else { vec![c] }).collect()
}

/// Returns at most `width` columns of a text, without its end.
pub(crate) fn beginning(text: &str, width: usize) -> String {
    let text = printable(text);
    if text.chars().count() <= width {
        return text;
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

/// Returns at most `width` columns of a path, without its beginning, because the name identifies the file.
pub(crate) fn ending(path: &str, width: usize) -> String {
    let path = printable(path);
    let len = path.chars().count();
    if len <= width {
        return path;
    }
    ['…'].into_iter().chain(path.chars().skip(len - (width - 1))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_to_be_read() {
        let sizes =
            [0, 9, 1023, 1024, 10_239, 10_240, 1 << 20, (1 << 30) - 1, u64::MAX].map(|n| Size(n).to_string());
        assert_eq!(
            sizes,
            ["0 B", "9 B", "1023 B", "1.0 KiB", "10 KiB", "10 KiB", "1.0 MiB", "1.0 GiB", "16777216.0 TiB"]
        );
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(|n| Count(n).to_string()),
            ["0", "999", "1,000", "1,234,567"]
        );
    }

    #[test]
    fn hostile_names_are_printed_in_one_line() {
        assert_eq!(beginning("a\nb\u{1b}[2J", 20), "a\\nb\\u{1b}[2J");
        assert_eq!(beginning("abcdef", 4), "abc…");
        assert_eq!(ending("abcdef", 4), "…def");
        assert_eq!(ending("abcd", 4), "abcd");
    }
}
