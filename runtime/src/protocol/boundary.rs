//! The marks that separate the output of one task from that of the next. A worker writes one into each of its streams at the end of
//! a task, before the task's reply.
//!
//! The token is part of the mark, so a task cannot forge one by accident.

/// A zero byte, three letters, the connection's token, and the task's sequence number. It is short enough to be written in one
/// piece even if others write to the pipe.
const MARK_BYTES: usize = HEAD_BYTES + 4;
const HEAD_BYTES: usize = 4 + 8;
const MAGIC: &[u8; 4] = b"\0prc";

/// Returns the mark at the end of task `seq`.
pub(crate) fn encode_boundary(token: u64, seq: u32) -> [u8; MARK_BYTES] {
    let mut mark = [0; MARK_BYTES];
    mark[..HEAD_BYTES].copy_from_slice(&head(token));
    mark[HEAD_BYTES..].copy_from_slice(&seq.to_le_bytes());
    mark
}

fn head(token: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(MAGIC);
    head[4..].copy_from_slice(&token.to_le_bytes());
    head
}

/// The first mark in some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Boundary<'a> {
    /// The end of task `seq`, with what was written before it and after it.
    Whole {
        before: &'a [u8],
        seq: u32,
        after: &'a [u8],
    },
    /// There is no mark, but the last bytes may be the beginning of one.
    Begun {
        before: &'a [u8],
        rest: &'a [u8],
    },
    None,
}

/// Looks for a mark with this token.
pub(crate) fn find_boundary(bytes: &[u8], token: u64) -> Boundary<'_> {
    let head = head(token);
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|&byte| byte == MAGIC[0]) {
        let (before, rest) = bytes.split_at(from + at);
        let n = rest.len().min(HEAD_BYTES);
        if rest[..n] == head[..n] {
            return match rest.split_at_checked(HEAD_BYTES).and_then(|(_, rest)| rest.split_first_chunk()) {
                Some((seq, after)) => Boundary::Whole { before, seq: u32::from_le_bytes(*seq), after },
                None => Boundary::Begun { before, rest },
            };
        }
        from += at + 1;
    }
    Boundary::None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_at_every_position_and_in_every_number_of_pieces() {
        let mark = encode_boundary(7, 9);
        for text in [&b""[..], b"words\n", b"\0", b"\0prc", b"\0prc\x07\0\0\0\0\0"] {
            let bytes = [text, &mark, b"more"].concat();
            let whole = Boundary::Whole { before: text, seq: 9, after: b"more" };
            assert_eq!(find_boundary(&bytes, 7), whole);
            for n in 0..MARK_BYTES {
                let part = &bytes[..text.len() + n];
                match find_boundary(part, 7) {
                    Boundary::Begun { before, rest } => assert_eq!([before, rest].concat(), part),
                    Boundary::None => assert!(!part.contains(&0)),
                    found => panic!("{found:?} in {part:?}"),
                }
            }
        }
    }

    #[test]
    fn a_mark_with_another_token_is_text() {
        let bytes = encode_boundary(8, 9);
        match find_boundary(&bytes, 7) {
            Boundary::None => {}
            // The number itself ends in zeros.
            Boundary::Begun { rest, .. } => assert_eq!(rest, [0]),
            found => panic!("{found:?}"),
        }
    }
}
