//! Values that do not cross, and values that are large.

use std::{
    error::Error,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
};

use procession::{Pool, RemoteError, TaskError, delayed, is_worker, worker};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};

use crate::alone::alone;

/// Refuses to cross at one of four places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Picky(Refusal);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Refusal {
    Nowhere,
    EncodeInHost,
    DecodeInWorker,
    EncodeInWorker,
    DecodeInHost,
}

impl Serialize for Picky {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Refusal::EncodeInHost if !is_worker() => Err(S::Error::custom("not here")),
            Refusal::EncodeInWorker if is_worker() => {
                // Part of it is written already when it refuses.
                let _ = serializer.collect_seq([Refusal::Nowhere; 10]);
                Err(S::Error::custom("not here"))
            }
            refusal => refusal.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Refusal::deserialize(deserializer)? {
            Refusal::DecodeInWorker if is_worker() => Err(D::Error::custom("not here")),
            Refusal::DecodeInHost if !is_worker() => Err(D::Error::custom("not here")),
            refusal => Ok(Self(refusal)),
        }
    }
}

#[worker]
fn back(picky: Picky) -> Picky {
    picky
}

#[worker]
fn pid() -> u32 {
    std::process::id()
}

/// Writes two numbers and reads one.
#[derive(Debug)]
struct Talkative;

impl Serialize for Talkative {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (1u8, 2u8).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Talkative {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u8::deserialize(deserializer).map(|_| Self)
    }
}

#[worker]
fn listen(_talkative: Talkative, last: u8) -> u8 {
    last
}

#[worker]
fn listen_alone(_talkative: Talkative) {}

#[worker]
fn talk() -> Talkative {
    Talkative
}

/// The faults, in a row on one pool of one worker, which all of them must leave as it is.
fn check_faults_keep_the_worker(faults: impl FnOnce(&Pool)) {
    let pool = Pool::new(1).unwrap();
    let before = pool.submit(delayed!(pid())).join().unwrap();
    faults(&pool);
    assert_eq!(pool.submit(delayed!(pid())).join().unwrap(), before, "a fault of a value costs no process");
}

#[track_caller]
fn assert_codec(error: &TaskError, words: &str) {
    assert!(error.is_codec(), "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert!(!error.is_crash() && !error.is_panic());
}

#[test]
fn a_value_that_refuses_fails_its_task_alone_wherever_it_refuses() {
    alone(|| {
        check_faults_keep_the_worker(|pool| {
            for (refusal, words) in [
                (Refusal::EncodeInHost, "argument `picky`"),
                (Refusal::DecodeInWorker, "argument `picky`"),
                (Refusal::EncodeInWorker, "the result"),
                (Refusal::DecodeInHost, "the result"),
            ] {
                let error = pool.submit(delayed!(back(Picky(refusal)))).join().unwrap_err();
                assert_codec(&error, words);
                assert_codec(&error, "Picky");
                let fine = pool.submit(delayed!(back(Picky(Refusal::Nowhere)))).join().unwrap();
                assert_eq!(fine, Picky(Refusal::Nowhere));
            }
        });
    });
}

#[test]
fn faults_amid_a_batch_leave_the_others_in_step() {
    alone(|| {
        use Refusal::{DecodeInHost, DecodeInWorker, EncodeInHost, EncodeInWorker, Nowhere};
        let pool = Pool::builder().jobs(2).chunk_size(16).build().unwrap();
        let refusals =
            [Nowhere, EncodeInHost, DecodeInWorker, Nowhere, EncodeInWorker, DecodeInHost, Nowhere];
        let input = (0..200).map(|n| refusals[n % refusals.len()]);
        let results: Vec<_> =
            pool.imap(input.clone().map(|refusal| delayed!(back(Picky(refusal))))).collect();
        assert_eq!(results.len(), 200);
        for (n, (refusal, result)) in input.zip(results).enumerate() {
            match result {
                Ok(picky) => assert_eq!((refusal, picky.0), (Nowhere, Nowhere), "task {n}"),
                Err(error) => {
                    assert_ne!(refusal, Nowhere, "task {n}: {error}");
                    assert!(error.is_codec(), "task {n}: {error}");
                    assert_eq!(error.task_index(), Some(n));
                }
            }
        }
    });
}

#[test]
fn bytes_left_unread_are_an_error_of_the_task() {
    alone(|| {
        check_faults_keep_the_worker(|pool| {
            let error = pool.submit(delayed!(listen(Talkative, 3))).join().unwrap_err();
            assert_codec(&error, "unread");
            let error = pool.submit(delayed!(listen_alone(Talkative))).join().unwrap_err();
            assert_codec(&error, "unread");
            let error = pool.submit(delayed!(talk())).join().unwrap_err();
            assert_codec(&error, "unread");
        });
    });
}

/// Asks the decoder what it is, which a compact encoding does not know.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u64),
    Word(String),
}

#[worker]
fn untagged(value: Untagged) -> String {
    format!("{value:?}")
}

#[test]
fn a_type_that_the_encoding_cannot_carry_is_named() {
    alone(|| {
        check_faults_keep_the_worker(|pool| {
            let error = pool.submit(delayed!(untagged(Untagged::Number(1)))).join().unwrap_err();
            assert_codec(&error, "Untagged");
            assert_codec(&error, "untagged enums");
            let error = pool.submit(delayed!(untagged(Untagged::Word(String::new())))).join().unwrap_err();
            assert_codec(&error, "Untagged");
        });
    });
}

const LARGE_BYTES: usize = 100 << 20;

#[worker]
fn sum_up(bytes: &[u8]) -> u64 {
    bytes.iter().map(|&b| u64::from(b)).sum()
}

#[worker]
fn make(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

#[worker]
fn forth_and_back(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

#[worker]
fn text_back(text: String) -> String {
    text
}

#[test]
fn a_hundred_mebibytes_cross_each_way() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let bytes = make(LARGE_BYTES);
        assert_eq!(pool.submit(delayed!(sum_up(&bytes))).join().unwrap(), sum_up(&bytes));
        assert!(pool.submit(delayed!(make(LARGE_BYTES))).join().unwrap() == bytes);
        assert!(pool.submit(delayed!(forth_and_back(bytes.clone()))).join().unwrap() == bytes);
        let text = "é".repeat(LARGE_BYTES / 2);
        assert!(pool.submit(delayed!(text_back(text.clone()))).join().unwrap() == text);
    });
}

#[test]
fn large_values_both_ways_at_once_never_wait_for_each_other() {
    alone(|| {
        let pool = Pool::builder().jobs(2).chunk_size(4).build().unwrap();
        let lens = [3 << 20, 1, 5 << 20, 70_000, 0, 64 << 10, (64 << 10) + 1, 2 << 20];
        let back = pool
            .map(lens.iter().cycle().take(32).map(|&len| delayed!(forth_and_back(vec![7; len]))))
            .unwrap();
        assert!(back.iter().map(Vec::len).eq(lens.iter().cycle().take(32).copied()));
        assert!(back.iter().flatten().all(|&b| b == 7));
    });
}

#[test]
fn byte_vectors_of_every_awkward_length_come_back() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let lens = [
            0, 1, 2, 126, 127, 128, 129, 16_383, 16_384, 32_767, 32_768, 32_769, 65_522, 65_536, 65_537,
            200_000,
        ];
        let back = pool.map(lens.iter().map(|&len| delayed!(forth_and_back(make(len))))).unwrap();
        for (bytes, len) in back.into_iter().zip(lens) {
            assert!(bytes == make(len), "{len}");
        }
    });
}

/// A path that is not valid UTF-8.
fn strange() -> PathBuf {
    OsStr::from_bytes(b"/tmp/\xff\xfe").into()
}

#[worker]
fn alone_path(path: PathBuf) -> PathBuf {
    path
}

#[worker]
fn maybe_path(path: PathBuf, give: bool) -> Option<PathBuf> {
    give.then_some(path)
}

#[worker]
fn paths(path: PathBuf) -> Vec<PathBuf> {
    vec![path, "/plain".into()]
}

#[worker]
fn tried_path(path: PathBuf, fail: bool) -> Result<PathBuf, RemoteError> {
    if fail { Err("no path")? } else { Ok(path) }
}

#[worker]
fn tried_paths(path: PathBuf) -> Result<Vec<PathBuf>, RemoteError> {
    Ok(vec![path; 2])
}

#[worker]
fn os_strings(name: OsString) -> (OsString, Vec<OsString>) {
    (name.clone(), vec![name])
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Found {
    #[serde(with = "procession::path")]
    file: PathBuf,
    #[serde(with = "procession::path")]
    links: Vec<Option<PathBuf>>,
    #[serde(with = "procession::path")]
    tried: Result<PathBuf, String>,
}

#[worker]
fn found(found: Found) -> Found {
    found
}

#[worker]
fn path_in_a_tuple(path: PathBuf) -> (PathBuf, u32) {
    (path, 1)
}

#[test]
fn a_path_that_is_not_utf8_comes_back_alone_and_inside_other_values() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let path = strange();
        assert_eq!(pool.submit(delayed!(alone_path(path.clone()))).join().unwrap(), path);
        assert_eq!(pool.submit(delayed!(maybe_path(path.clone(), true))).join().unwrap(), Some(path.clone()));
        assert_eq!(pool.submit(delayed!(maybe_path(path.clone(), false))).join().unwrap(), None);
        let two = vec![path.clone(), "/plain".into()];
        assert_eq!(pool.submit(delayed!(paths(path.clone()))).join().unwrap(), two);
        assert_eq!(pool.submit(delayed!(tried_path(path.clone(), false))).join().unwrap(), Ok(path.clone()));
        let error = pool.submit(delayed!(tried_path(path.clone(), true))).join().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "no path");
        let twice = vec![path.clone(); 2];
        assert_eq!(pool.submit(delayed!(tried_paths(path.clone()))).join().unwrap(), Ok(twice));
        let name = path.clone().into_os_string();
        let names = (name.clone(), vec![name.clone()]);
        assert_eq!(pool.submit(delayed!(os_strings(name))).join().unwrap(), names);
        let value =
            || Found { file: path.clone(), links: vec![None, Some(path.clone())], tried: Ok(path.clone()) };
        assert_eq!(pool.submit(delayed!(found(value()))).join().unwrap(), value());
        // A large one, for these go another way.
        let long = PathBuf::from(OsStr::from_bytes(&[0xff; 100_000]));
        assert_eq!(pool.submit(delayed!(alone_path(long.clone()))).join().unwrap(), long);
    });
}

#[test]
fn a_path_that_cannot_cross_is_an_error_that_says_what_to_write() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let error = pool.submit(delayed!(path_in_a_tuple(strange()))).join().unwrap_err();
        assert!(error.is_codec(), "{error}");
        assert!(error.to_string().contains("#[serde(with = \"procession::path\")]"), "{error}");
        assert_eq!(pool.submit(delayed!(path_in_a_tuple("/x".into()))).join().unwrap(), ("/x".into(), 1));
    });
}

fn boxed(text: &str) -> Result<u32, Box<dyn Error + Send + Sync>> {
    Ok(text.parse()?)
}

fn boxed_here(text: &str) -> Result<u32, Box<dyn Error>> {
    Ok(text.parse()?)
}

fn any(text: &str) -> anyhow::Result<u32> {
    use anyhow::Context as _;
    text.parse().with_context(|| format!("{text} is no number"))
}

#[worker]
fn parse(text: &str, how: u32) -> Result<u32, RemoteError> {
    match how {
        0 => Ok(text.parse::<u32>()?),
        1 => Ok(boxed(text)?),
        2 => Ok(any(text)?),
        3 => boxed_here(text).map_err(RemoteError::msg),
        4 => any(text).map_err(RemoteError::msg),
        _ => Err(format!("{how} is unknown"))?,
    }
}

#[test]
fn a_question_mark_converts_boxed_errors_and_those_of_anyhow_with_their_sources() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let plain = "invalid digit found in string";
        let in_context = "x is no number: invalid digit found in string";
        for (how, wanted) in
            [(0, plain), (1, plain), (2, in_context), (3, plain), (4, in_context), (5, "5 is unknown")]
        {
            assert_eq!(pool.submit(delayed!(parse("7", how))).join().unwrap().unwrap_or(7), 7);
            let error = pool.submit(delayed!(parse("x", how))).join().unwrap().unwrap_err();
            assert_eq!(format!("{error:#}"), wanted, "{how}");
        }
    });
}
