//! Displays text from workers and users on a terminal or in a file of ours, without control characters and without lines that could
//! be taken for ours.
//!
//! Text is stored unchanged and escaped where it is displayed. [`Escaped`] is for text that must stay on one line (names, titles,
//! fields), and [`Lines`] is for text that may have several lines.

use std::fmt::{self, Write};

/// Displays a value on one line. Its control characters, including line breaks, are escaped.
#[derive(Clone, Copy)]
pub(crate) struct Escaped<T>(pub(crate) T);

/// Displays a value with its control characters escaped. Line breaks are kept, and all lines but the first are indented by four
/// spaces, deeper than any line of ours.
#[derive(Clone, Copy)]
pub(crate) struct Lines<T>(pub(crate) T);

/// The line break of [`Lines`].
const NEXT_LINE: &str = "\n    ";

/// Returns whether a terminal acts on this character: a control character (C0, DEL, C1), a line separator, or one that changes the
/// direction of writing.
pub(crate) fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Writer { to: f, next_line: "\\n" }, "{}", self.0)
    }
}

impl<T: fmt::Display> fmt::Display for Lines<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Writer { to: f, next_line: NEXT_LINE }, "{}", self.0)
    }
}

/// Returns output of a task with its lines and tabs, and with all other control characters escaped.
pub(crate) fn output(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for part in text.split_inclusive(['\n', '\t']) {
        let (words, end) = match part.strip_suffix(['\n', '\t']) {
            Some(words) => (
                words.strip_suffix('\r').filter(|_| part.ends_with('\n')).unwrap_or(words),
                &part[part.len() - 1..],
            ),
            None => (part, ""),
        };
        let _ = write!(shown, "{}", Escaped(words));
        shown.push_str(end);
    }
    shown
}

struct Writer<'a, W> {
    to: &'a mut W,
    next_line: &'static str,
}

impl<W: fmt::Write> fmt::Write for Writer<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_control) {
            let (before, from) = rest.split_at(at);
            self.to.write_str(before)?;
            let mut chars = from.chars();
            match chars.next() {
                Some('\n') => self.to.write_str(self.next_line)?,
                // `escape_debug` escapes all of these.
                Some(c) => write!(self.to, "{}", c.escape_debug())?,
                None => {}
            }
            rest = chars.as_str();
        }
        self.to.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns every character up to the last one that is escaped, and some beyond.
    fn all() -> impl Iterator<Item = char> {
        ('\0'..='\u{3000}').chain(['\u{feff}', '\u{fffd}', '\u{10ffff}'])
    }

    #[test]
    fn no_text_is_shown_with_a_control_character() {
        for c in all() {
            let text = format!("a{c}b{c}");
            let (one_line, lines, shown) =
                (Escaped(&text).to_string(), Lines(&text).to_string(), output(&text));
            assert!(!one_line.contains(is_control), "{c:?}: {one_line:?}");
            assert!(!lines.replace(NEXT_LINE, "").contains(is_control), "{c:?}: {lines:?}");
            assert!(!shown.replace(['\n', '\t'], "").contains(is_control), "{c:?}: {shown:?}");
            if !is_control(c) {
                assert_eq!([&one_line, &lines, &shown], [&text; 3]);
            } else if c != '\n' {
                assert_eq!(one_line, lines);
            }
        }
    }

    #[test]
    fn control_characters_are_shown_as_rust_escapes() {
        assert_eq!(
            Escaped("a\x1b[2J\x07\r\n\u{9b}\u{202e}").to_string(),
            r"a\u{1b}[2J\u{7}\r\n\u{9b}\u{202e}"
        );
        assert_eq!(Lines("a\r\n\ntask 1").to_string(), "a\\r\n    \n    task 1");
        assert_eq!(output("a\r\nb\tc\x1b\rd"), "a\nb\tc\\u{1b}\\rd");
        assert_eq!(Escaped("żółw \\ \" '").to_string(), "żółw \\ \" '", "what is harmless stays");
    }
}
