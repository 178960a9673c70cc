//! Messages for which there is little room.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use procession::{Pool, Receiver, RemoteError, channel, delayed, worker};
use serde::{Deserialize, Deserializer, Serialize};

use crate::alone::alone;

/// Receives while this process can open no more descriptors, and again when it can.
#[worker]
fn receive_with_few_descriptors(from: Receiver<Vec<u8>>) -> Result<(String, Vec<usize>), RemoteError> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // All of this library's own are below it.
    setrlimit(Resource::RLIMIT_NOFILE, 300, hard)?;
    let mut taken = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        taken.push(file);
    }
    let refused = from.recv().err().map(|error| error.to_string());
    let made = channel::<u64>(1).err().map(|error| error.to_string());
    drop(taken);
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let lengths = from.iter().map(|message| message.len()).collect();
    Ok((format!("{}\n{}", refused.unwrap_or_default(), made.unwrap_or_default()), lengths))
}

#[test]
fn a_message_for_which_its_receiver_has_no_descriptor_stays_and_the_error_names_the_limit() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let (tx, rx) = channel(4).unwrap();
        for len in [100_000, 200_000] {
            tx.send(vec![7; len]).unwrap();
        }
        let task = pool.submit(delayed!(receive_with_few_descriptors(rx)));
        drop(tx);
        let (errors, lengths) = task.join().unwrap().unwrap();
        assert_eq!(lengths, [100_000, 200_000]);
        for (line, begin) in errors.lines().zip(["a message cannot be received now", "memory for a channel"])
        {
            assert!(line.starts_with(begin) && line.contains("`ulimit -n`"), "{line}");
        }
        assert_eq!(errors.lines().count(), 2, "{errors}");
    });
}

/// A plain type whose encoding is text, like those of dates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Date(u32);

impl Serialize for Date {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:010}", self.0))
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// A plain type whose encoding is much longer than the type.
#[derive(Clone, Copy, Debug)]
struct Long;

impl Serialize for Long {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&"long".repeat(100))
    }
}

impl<'de> Deserialize<'de> for Long {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|_| Self)
    }
}

#[test]
fn plain_types_may_be_encoded_as_text_and_what_is_too_long_is_an_error_that_says_what_to_do() {
    alone(|| {
        let dates = [Date(20_261_130); 30];
        let (tx, rx) = channel(2).unwrap();
        tx.send(dates).unwrap();
        assert_eq!(rx.recv().unwrap(), dates);
        let (tx, _rx) = channel(2).unwrap();
        let error = tx.send(Long).unwrap_err().to_string();
        assert!(error.contains("send it in a `Box`"), "{error}");
        let (tx, rx) = channel(2).unwrap();
        tx.send(Box::new(Long)).unwrap();
        rx.recv().unwrap();
    });
}
