//! Reads what a worker writes to stdout and stderr, divides it by task, and keeps it or delivers it line by line.
//!
//! The supervisor owns it, and settles no reply before the task's output was read. It never waits for more output.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    captured::{Captured, Text},
    id::has_begun,
    launch::{
        Streams, Watched,
        output::{StreamEnd, StreamName},
    },
    protocol::{Boundary, find_boundary},
};

/// The number of bytes that are kept of what a task writes to one stream.
const TAIL_BYTES: usize = 64 << 10;
/// Longer lines are delivered in parts.
const MOST_LINE_BYTES: usize = 64 << 10;
/// The number of bytes that are read at a time.
const PIECE_BYTES: usize = 16 << 10;

/// One line, or the incomplete line with which a task ended.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) stream: StreamName,
    pub(crate) words: String,
    /// The last task that had ended before it was written.
    pub(crate) after_seq: u32,
}

/// The captured output of one worker.
#[derive(Debug)]
pub(crate) struct Transcript {
    /// The token in its marks.
    token: u64,
    streams: Vec<Stream>,
}

#[derive(Debug)]
struct Stream {
    end: StreamEnd,
    /// The stream has ended.
    ended: bool,
    /// The sequence number of the last mark.
    marked: u32,
    /// Bytes that may be the beginning of a mark.
    begun: Vec<u8>,
    /// The incomplete line.
    line: Vec<u8>,
    /// The output of the running task.
    tail: Tail,
    /// The output of ended tasks whose replies have not been settled.
    finished: VecDeque<(u32, Tail)>,
}

/// The end of an output.
#[derive(Debug, Default)]
struct Tail {
    /// At most twice as many bytes as are kept.
    bytes: Vec<u8>,
    lost_bytes: u64,
}

impl Transcript {
    pub(crate) fn new(Streams { token, ends }: Streams) -> Self {
        let streams = ends.into_iter().map(|end| Stream {
            end,
            ended: false,
            marked: 0,
            begun: Vec::new(),
            line: Vec::new(),
            tail: Tail::default(),
            finished: VecDeque::new(),
        });
        Self { token, streams: streams.collect() }
    }

    /// Returns whether everything that task `seq` and earlier tasks wrote has been read.
    pub(crate) fn has_all_of(&self, seq: u32) -> bool {
        self.streams.iter().all(|stream| stream.ended || has_begun(seq, stream.marked))
    }

    /// Reads what has been written until now, and no more, however fast more arrives. Streams that have ended are not watched any
    /// more. `next_seq` is the first sequence number that was not given to a task.
    pub(crate) fn read(&mut self, next_seq: u32, watched: &Watched, mut say: impl FnMut(Line)) {
        let token = self.token;
        for stream in self.streams.iter_mut().filter(|stream| !stream.ended) {
            stream.read(token, next_seq, &mut say);
            if let (true, Some(fd)) = (stream.ended, stream.end.source.poll_fd()) {
                watched.remove(fd);
            }
        }
    }

    /// Reads the rest after the worker has ended, and delivers incomplete lines, too. Other processes that have the streams open
    /// are not waited for.
    pub(crate) fn end(&mut self, next_seq: u32, watched: &Watched, mut say: impl FnMut(Line)) {
        self.read(next_seq, watched, &mut say);
        for stream in &mut self.streams {
            stream.ended = true;
            let rest = std::mem::take(&mut stream.begun);
            stream.take(&rest, &mut say);
            stream.end_line(&mut say);
        }
    }

    /// Removes and returns the output of task `seq`, if there is any. The output of earlier tasks is dropped.
    pub(crate) fn take(&mut self, seq: u32) -> Option<Arc<Captured>> {
        let mut captured = Captured::default();
        for stream in &mut self.streams {
            while stream.finished.front().is_some_and(|(of, _)| *of != seq && has_begun(*of, seq)) {
                stream.finished.pop_front();
            }
            // The output of later tasks stays.
            let is_next = stream.finished.front().is_some_and(|(of, _)| *of == seq);
            let tail = match is_next.then(|| stream.finished.pop_front()).flatten() {
                Some((_, tail)) => tail,
                None if has_begun(seq, stream.marked) => continue,
                // The task has ended without a mark.
                None => std::mem::take(&mut stream.tail),
            };
            let text = match stream.end.name {
                StreamName::Stdout => &mut captured.stdout,
                StreamName::Stderr => &mut captured.stderr,
            };
            *text = tail.into_text(!stream.end.by_line);
        }
        (captured != Captured::default()).then(|| Arc::new(captured))
    }
}

impl Stream {
    fn read(&mut self, token: u64, next_seq: u32, say: &mut impl FnMut(Line)) {
        // If nothing is there, one attempt tells whether this is the end.
        let mut left = self.end.source.pending_bytes().max(1);
        let mut piece = Vec::with_capacity(PIECE_BYTES + self.begun.len());
        while left > 0 {
            piece.clear();
            piece.append(&mut self.begun);
            match self.end.source.read(&mut piece, left.min(PIECE_BYTES)) {
                Ok(Some(0)) | Err(_) => {
                    self.ended = true;
                    self.begun.append(&mut piece);
                    return;
                }
                Ok(None) => {
                    self.begun.append(&mut piece);
                    return;
                }
                Ok(Some(n)) => left -= n,
            }
            self.split(&piece, token, next_seq, say);
        }
    }

    /// Takes text, up to what may be the beginning of a mark.
    fn split(&mut self, bytes: &[u8], token: u64, next_seq: u32, say: &mut impl FnMut(Line)) {
        let mut rest = bytes;
        loop {
            match find_boundary(rest, token) {
                Boundary::Whole { before, seq, after } => {
                    self.take(before, say);
                    self.mark(seq, next_seq, say);
                    rest = after;
                }
                Boundary::Begun { before, rest } => {
                    self.take(before, say);
                    self.begun.extend_from_slice(rest);
                    return;
                }
                Boundary::None => return self.take(rest, say),
            }
        }
    }

    /// Ends the output of a task. A number that no task in flight can have was not written by the worker's runtime.
    fn mark(&mut self, seq: u32, next_seq: u32, say: &mut impl FnMut(Line)) {
        if has_begun(seq, self.marked) || has_begun(next_seq, seq) {
            return;
        }
        self.end_line(say);
        self.marked = seq;
        if !self.tail.bytes.is_empty() {
            self.finished.push_back((seq, std::mem::take(&mut self.tail)));
        }
    }

    fn take(&mut self, text: &[u8], say: &mut impl FnMut(Line)) {
        self.tail.push(text);
        if !self.end.by_line {
            return;
        }
        for part in text.split_inclusive(|&byte| byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.line.len() >= MOST_LINE_BYTES {
                self.say_line(say);
            }
        }
    }

    fn end_line(&mut self, say: &mut impl FnMut(Line)) {
        if !self.line.is_empty() {
            self.say_line(say);
        }
    }

    fn say_line(&mut self, say: &mut impl FnMut(Line)) {
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let words = String::from_utf8_lossy(line).into_owned();
        say(Line { stream: self.end.name, words, after_seq: self.marked });
        self.line.clear();
    }
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > 2 * TAIL_BYTES {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let beyond = self.bytes.len().saturating_sub(TAIL_BYTES);
        self.bytes.drain(..beyond);
        self.lost_bytes += beyond as u64;
    }

    fn into_text(mut self, to_show: bool) -> Text {
        self.cut();
        if self.lost_bytes > 0
            && let Some(end) = self.bytes.iter().position(|&byte| byte == b'\n')
            && end + 1 < self.bytes.len()
        {
            // Only whole lines are kept.
            self.bytes.drain(..=end);
            self.lost_bytes += end as u64 + 1;
        }
        let to_show = to_show && !self.bytes.is_empty();
        let words = String::from_utf8(self.bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        Text { words, lost_bytes: self.lost_bytes, to_show }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write, os::fd::AsFd};

    use super::*;
    use crate::{
        protocol::encode_boundary,
        sys::{
            fd::{pipe, set_nonblocking},
            identified::Identified,
        },
    };

    const TOKEN: u64 = 7;

    /// Returns the transcript of a worker whose tasks, from the first on, have written this to stdout.
    fn transcript(written: &[&str]) -> Transcript {
        let (pipe, worker) = pipe().unwrap();
        set_nonblocking(pipe.as_fd()).unwrap();
        let mut worker = File::from(worker);
        for (seq, words) in (1..).zip(written) {
            worker.write_all(words.as_bytes()).unwrap();
            worker.write_all(&encode_boundary(TOKEN, seq)).unwrap();
        }
        let end =
            StreamEnd { name: StreamName::Stdout, source: Box::new(Identified::new(pipe)), by_line: false };
        let mut transcript = Transcript::new(Streams { token: TOKEN, ends: vec![end] });
        transcript.read(written.len() as u32 + 1, &Watched::default(), |_| {});
        transcript
    }

    #[test]
    fn each_task_gets_its_own_output_even_if_others_write_nothing() {
        let check = |written: &[&str]| {
            let mut transcript = transcript(written);
            for (seq, words) in (1..).zip(written) {
                let wrote = transcript.take(seq).map_or_else(String::new, |wrote| wrote.stdout().to_owned());
                assert_eq!(wrote, *words, "task {seq} of {written:?}");
            }
        };
        check(&["one", "two", "three"]);
        check(&["", "two", "three"]);
        check(&["", "", "three", "", "five", "six", ""]);
    }
}
