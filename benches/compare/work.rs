//! The functions and the inputs of real work, and the four ways in which this process has them done.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use procession::{Pool, Task, delayed, worker};
use procession_benches::{rounds_of, spin};
use procession_examples::{content::Content, walk::Files};
use rayon::{ThreadPool, prelude::*};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::timing::Size;

#[worker]
fn hash(block: &[u8]) -> [u8; 32] {
    Sha256::digest(block).into()
}

/// Parses a document and returns the number of its values.
#[worker]
fn json(document: &str) -> u64 {
    fn count(value: &Value) -> u64 {
        1 + match value {
            Value::Array(values) => values.iter().map(count).sum(),
            Value::Object(values) => values.values().map(count).sum(),
            _ => 0,
        }
    }
    count(&serde_json::from_str(document).expect("the document is well formed"))
}

/// Counts each word.
#[worker]
fn words(text: &str) -> HashMap<String, u32> {
    let mut counts: HashMap<&str, u32> = HashMap::new();
    for word in text.split_ascii_whitespace() {
        *counts.entry(word).or_default() += 1;
    }
    counts.into_iter().map(|(word, count)| (word.to_owned(), count)).collect()
}

/// The same of a part of a file.
#[worker]
fn words_in(path: &Path, from: u64, len: usize) -> HashMap<String, u32> {
    let mut text = vec![0; len];
    let file = File::open(path).expect("the text can be opened");
    file.read_exact_at(&mut text, from).expect("the part can be read");
    words(std::str::from_utf8(&text).expect("it is text"))
}

#[worker]
fn compress(block: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(block).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}

/// The length and width of an image in pixels of a byte.
const SIDE: usize = 256;

/// Makes each pixel a mean of its neighbourhood, the nearer the heavier.
#[worker]
fn blur(image: &[u8]) -> Vec<u8> {
    let mut blurred = image.to_vec();
    for y in 1..SIDE - 1 {
        for x in 1..SIDE - 1 {
            let row = |y: usize| {
                let [left, middle, right] = [x - 1, x, x + 1].map(|x| u32::from(image[y * SIDE + x]));
                left + 2 * middle + right
            };
            blurred[y * SIDE + x] = ((row(y - 1) + 2 * row(y) + row(y + 1)) / 16) as u8;
        }
    }
    blurred
}

/// Reads and classifies a file. A file that cannot be read has no content.
#[worker]
fn examine(path: &Path) -> Option<Content> {
    fs::read(path).ok().map(|bytes| Content::of(&bytes))
}

/// Tasks of one function: how each is called here and how it is sent, and a number to check all results by.
struct Tasks<A, R> {
    inputs: Vec<A>,
    call: fn(&A) -> R,
    task: fn(&A) -> Task<R>,
    check: fn(&R) -> u64,
}

/// What a run takes, and the sum of what its results are checked by.
pub(crate) type Run = (Duration, u64);

/// A way to have all tasks done and their results gathered in order.
pub(crate) trait Work {
    fn tasks(&self) -> usize;
    /// On this thread.
    fn alone(&self) -> Run;
    /// On two plain threads, each of which takes this many tasks at a time.
    fn threads(&self, some: usize) -> Run;
    fn rayon(&self, pool: &ThreadPool) -> Run;
    fn ours(&self, pool: &Pool) -> Run;
}

impl<A, R> Tasks<A, R> {
    /// Results are checked and dropped off the clock.
    fn timed(&self, run: impl FnOnce() -> Vec<R>) -> Run {
        let start = Instant::now();
        let results = run();
        let took = start.elapsed();
        assert_eq!(results.len(), self.inputs.len());
        (took, results.iter().map(self.check).fold(0, u64::wrapping_add))
    }
}

impl<A: Sync, R: Send + DeserializeOwned + 'static> Work for Tasks<A, R> {
    fn tasks(&self) -> usize {
        self.inputs.len()
    }

    fn alone(&self) -> Run {
        self.timed(|| self.inputs.iter().map(self.call).collect())
    }

    fn threads(&self, some: usize) -> Run {
        let next = AtomicUsize::new(0);
        let run = || {
            let mut parts = Vec::new();
            loop {
                let first = next.fetch_add(some, Ordering::Relaxed);
                let Some(rest) = self.inputs.get(first..).filter(|rest| !rest.is_empty()) else {
                    return parts;
                };
                parts.push((first, rest.iter().take(some).map(self.call).collect::<Vec<R>>()));
            }
        };
        self.timed(|| {
            let mut parts = std::thread::scope(|scope| {
                let other = scope.spawn(run);
                let mut parts = run();
                parts.append(&mut other.join().expect("it does not panic"));
                parts
            });
            parts.sort_unstable_by_key(|&(first, _)| first);
            parts.into_iter().flat_map(|(_, results)| results).collect()
        })
    }

    fn rayon(&self, pool: &ThreadPool) -> Run {
        self.timed(|| pool.install(|| self.inputs.par_iter().map(self.call).collect()))
    }

    fn ours(&self, pool: &Pool) -> Run {
        self.timed(|| pool.map(self.inputs.iter().map(self.task)).expect("every task succeeds"))
    }
}

/// One kind of work.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// Why Python has no row.
    pub(crate) no_python: Option<&'static str>,
    pub(crate) work: fn(&Inputs) -> Box<dyn Work>,
}

/// Every row. Python's functions for the same work are in `peers.py`, by the same names.
pub(crate) const ROWS: &[Row] = &[
    row("spin_1us", "computing for 1 µs", |inputs| inputs.spins(200_000, |_| 1.0)),
    row("spin_10us", "computing for 10 µs", |inputs| inputs.spins(40_000, |_| 10.0)),
    row("spin_100us", "computing for 100 µs", |inputs| inputs.spins(4_000, |_| 100.0)),
    row("spin_1ms", "computing for 1 ms", |inputs| inputs.spins(400, |_| 1e3)),
    row("spin_10ms", "computing for 10 ms", |inputs| inputs.spins(60, |_| 1e4)),
    row("spin_100ms", "computing for 100 ms", |inputs| inputs.spins(8, |_| 1e5)),
    row("uneven_short", "computing for 1 µs to 1 ms", |inputs| inputs.spins(3_000, |x| 1e3_f64.powf(x))),
    row("uneven_long", "computing for 100 µs to 100 ms", |inputs| {
        inputs.spins(60, |x| 1e2 * 1e3_f64.powf(x))
    }),
    row("hash", "SHA-256 of 4 KiB", |inputs| {
        let block = |n| inputs.part(n, 4 << 10).as_bytes();
        inputs.tasks(40_000, block, |block| hash(block), |block| delayed!(hash(block)), |hash| hash[0].into())
    }),
    row("json", "parsing 6 to 10 KB of JSON", |inputs| {
        let text = |n: usize| inputs.documents[n % inputs.documents.len()];
        inputs.tasks(8_000, text, |text| json(text), |text| delayed!(json(text)), |&values| values)
    }),
    row("words_sent", "counting the words of 1 MiB, sent by the host", |inputs| {
        let text = |n| inputs.part(n, inputs.chunk());
        let check = |words: &HashMap<_, _>| words.len() as u64;
        inputs.tasks(200, text, |text| words(text), |text| delayed!(words(text)), check)
    }),
    row("words_read", "counting the words of 1 MiB, read from a file", |inputs| {
        let len = inputs.chunk();
        let part = |n| (inputs.folder.path().join(TEXT), (n * len % (inputs.text.len() - len)) as u64, len);
        let call = |(path, from, len): &(PathBuf, u64, usize)| words_in(path, *from, *len);
        let task = |(path, from, len): &(PathBuf, u64, usize)| delayed!(words_in(path, *from, *len));
        inputs.tasks(200, part, call, task, |words| words.len() as u64)
    }),
    row("compress", "compressing 64 KiB of text", |inputs| {
        let block = |n| inputs.part(n, 64 << 10).as_bytes();
        let check = |compressed: &Vec<u8>| compressed.len() as u64;
        inputs.tasks(200, block, |block| compress(block), |block| delayed!(compress(block)), check)
    }),
    Row {
        no_python: Some("not in its standard library"),
        ..row("blur", "blurring an image of 256 x 256 bytes", |inputs| {
            let image = |n| inputs.part(n, SIDE * SIDE).as_bytes();
            let check = |image: &Vec<u8>| image[SIDE + 1].into();
            inputs.tasks(2_000, image, |image| blur(image), |image| delayed!(blur(image)), check)
        })
    },
    Row {
        no_python: Some("not in its standard library"),
        ..row("census", "examining a file of /usr/bin", |inputs| {
            let is_wanted = |path: &PathBuf| {
                !inputs.size.test || path.metadata().is_ok_and(|metadata| metadata.len() < 100_000)
            };
            let files = Files::under(Path::new("/usr/bin")).into_iter().flatten().flatten();
            let paths: Vec<PathBuf> = files.filter(is_wanted).collect();
            let path = |n: usize| paths[n].clone();
            let check = |content: &Option<Content>| content.is_some().into();
            inputs.tasks(paths.len(), path, |path| examine(path), |path| delayed!(examine(path)), check)
        })
    },
];

impl Row {
    pub(crate) fn mentions(&self, word: &str) -> bool {
        self.name.contains(word) || self.what.contains(word)
    }
}

const fn row(name: &'static str, what: &'static str, work: fn(&Inputs) -> Box<dyn Work>) -> Row {
    Row { name, what, no_python: None, work }
}

/// The files that Python's peers read.
const TEXT: &str = "text";
const DOCUMENTS: &str = "documents";
const LENGTHS: &str = "lengths";

/// What the functions are given.
pub(crate) struct Inputs {
    size: Size,
    pub(crate) folder: Folder,
    /// Words of a language: a few are frequent, and most are rare. In a file as well.
    text: &'static str,
    documents: Vec<&'static str>,
    rounds_per_microsecond: f64,
}

impl Inputs {
    pub(crate) fn new(size: Size) -> io::Result<Self> {
        let folder = Folder::new()?;
        let mut random = Random(1);
        let text: &str = random.text(size.bytes(16 << 20)).leak();
        fs::write(folder.path().join(TEXT), text)?;
        let documents: &str = random.documents(256).leak();
        fs::write(folder.path().join(DOCUMENTS), documents)?;
        let rounds_per_microsecond = rounds_of(1e6) as f64 / 1e3;
        Ok(Self { size, folder, text, documents: documents.lines().collect(), rounds_per_microsecond })
    }

    fn part(&self, n: usize, len: usize) -> &'static str {
        let from = n * len % (self.text.len() - len);
        &self.text[from..from + len]
    }

    /// The length of a text whose words are counted.
    fn chunk(&self) -> usize {
        self.size.bytes(1 << 20)
    }

    fn tasks<A: Sync + 'static, R: Send + DeserializeOwned + 'static>(
        &self,
        tasks: usize,
        input: impl Fn(usize) -> A,
        call: fn(&A) -> R,
        task: fn(&A) -> Task<R>,
        check: fn(&R) -> u64,
    ) -> Box<dyn Work> {
        // Enough for both threads and workers.
        let tasks = if self.size.test { tasks.min(4) } else { tasks };
        Box::new(Tasks { inputs: (0..tasks).map(input).collect(), call, task, check })
    }

    /// Computations of a length in microseconds, of a number from 0 to 1. Any run of neighbouring tasks has all lengths.
    fn spins(&self, tasks: usize, microseconds: fn(f64) -> f64) -> Box<dyn Work> {
        let most = if self.size.test { 100.0 } else { f64::INFINITY };
        let length = |n: usize| microseconds((n as f64 * 0.618_033_988_75).fract()).min(most);
        let lengths: String = (0..tasks).map(|n| format!("{}\n", length(n))).collect();
        fs::write(self.folder.path().join(LENGTHS), lengths).expect("the file can be written");
        let rounds = |n| (length(n) * self.rounds_per_microsecond) as u64;
        self.tasks(tasks, rounds, |&rounds| spin(rounds), |&rounds| delayed!(spin(rounds)), |&x| x)
    }
}

/// A folder that is removed.
pub(crate) struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("procession-compare-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The same numbers in each run (xorshift).
struct Random(u64);

impl Random {
    /// From 0 up to 1.
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn text(&mut self, len: usize) -> String {
        let vocabulary: Vec<String> = (0..20_000)
            .map(|_| {
                let letters = 2 + (self.next() * 9.0) as usize;
                (0..letters).map(|_| char::from(b'a' + (self.next() * 26.0) as u8)).collect()
            })
            .collect();
        let mut text = String::with_capacity(len + 16);
        while text.len() < len {
            // The number of times that a word occurs is inverse to its place.
            text += &vocabulary[(vocabulary.len() as f64).powf(self.next()) as usize - 1];
            text.push(' ');
        }
        text.truncate(len);
        text
    }

    /// Documents of one line each.
    fn documents(&mut self, count: usize) -> String {
        let mut documents = String::new();
        for _ in 0..count {
            let orders: Vec<Value> = (0..35 + (self.next() * 24.0) as usize)
                .map(|id| {
                    let (price, number) = (self.next() * 1e3, (self.next() * 9.0) as u64);
                    serde_json::json!({
                        "id": id, "price": price, "number": number, "paid": number > 4, "customer": "Ada \"Countess\" Lovelace",
                        "tags": ["new", "\u{e4}ltere", null], "place": {"x": price / 7.0, "y": -price},
                    })
                })
                .collect();
            documents += &Value::from(orders).to_string();
            documents.push('\n');
        }
        documents
    }
}
