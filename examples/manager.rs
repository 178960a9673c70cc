//! Counts words in several processes, in a dictionary that all of them change.
#![expect(clippy::print_stdout, reason = "it is a command line program")]

use std::collections::BTreeMap;

use procession::{Counter, Dict, Manager, RemoteError, delayed, parallel, worker};

const TEXTS: [&str; 4] = [
    "it was the best of times it was the worst of times",
    "it was the age of wisdom it was the age of foolishness",
    "it was the epoch of belief it was the epoch of incredulity",
    "it was the season of light it was the season of darkness",
];

#[worker]
fn add(a: u64, b: u64) -> u64 {
    a + b
}

/// Counts the words of a text. Other processes count at the same time.
#[worker]
fn count(text: &str, words: &Dict<String, u64>, done: &Counter) -> Result<(), RemoteError> {
    for word in text.split(' ') {
        // One request: the function runs in the manager, so no count of another process is lost.
        words.entry(word.to_owned()).and_modify(delayed!(add(_, 1))).or_insert(1)?;
    }
    done.add(1)?;
    Ok(())
}

fn main() -> Result<(), RemoteError> {
    let manager = Manager::start()?;
    let (words, done) = (manager.dict()?, manager.counter(0)?);
    let _: Vec<()> = parallel!(count(text, &words, &done)? for text in TEXTS)?;

    let counts: BTreeMap<String, u64> = words.snapshot()?.into_iter().collect();
    assert_eq!(done.get()?, 4);
    assert_eq!((counts["it"], counts["age"], counts["light"]), (8, 2, 1));
    assert_eq!(counts.values().sum::<u64>(), 48);
    println!("{counts:?}");
    Ok(())
}
