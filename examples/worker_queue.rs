//! Shows a queue of jobs that carry the address for their answer, and a worker that dies.
//!
//! Services in processes of their own receive jobs from one channel. Each job contains the sending end of the channel to which its result
//! goes. One of the services is killed in the middle of a job: it is gone, and the job is received again by another one.
#![expect(clippy::print_stdout, reason = "it is a command line program")]

use std::{fs, path::PathBuf, process};

use procession::{Process, Receiver, RemoteError, Sender, channel, delayed, is_worker, worker};
use serde::{Deserialize, Deserializer, Serialize};

#[derive(Serialize, Deserialize)]
struct Job {
    word: Poison,
    answer: Sender<(String, usize)>,
}

/// A word that kills the first process that receives it, if it is poisoned: while the job is being received.
#[derive(Serialize)]
struct Poison(String, Option<PathBuf>);

impl<'de> Deserialize<'de> for Poison {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (word, mark) = <(String, Option<PathBuf>)>::deserialize(deserializer)?;
        if let Some(mark) = mark.as_ref().filter(|mark| is_worker() && !mark.exists()) {
            fs::write(mark, "").map_err(serde::de::Error::custom)?;
            process::abort();
        }
        Ok(Self(word, mark))
    }
}

/// Answers jobs until there are no more.
#[worker]
fn serve(jobs: Receiver<Job>) -> Result<u32, RemoteError> {
    let mut done = 0;
    for job in jobs {
        let Poison(word, _) = job.word;
        let len = word.chars().count();
        job.answer.send((word, len))?;
        done += 1;
    }
    Ok(done)
}

fn main() -> Result<(), RemoteError> {
    let mark = std::env::temp_dir().join(format!("procession-worker-queue-{}", process::id()));
    let (queue, jobs) = channel(16)?;
    let mut services: Vec<Process<_>> = Vec::new();
    for _ in 0..3 {
        services.push(Process::spawn(delayed!(serve(jobs.clone())))?);
    }
    drop(jobs);
    let (answer, answers) = channel(100)?;
    for n in 1..=50 {
        let poison = (n == 25).then(|| mark.clone());
        queue.send(Job { word: Poison("x".repeat(n), poison), answer: answer.clone() })?;
    }
    drop((queue, answer));

    let mut lens: Vec<usize> = answers.iter().map(|(_, len)| len).collect();
    lens.sort_unstable();
    assert!(lens.into_iter().eq(1..=50), "every job was done once");
    let ended: Vec<_> = services.iter_mut().map(Process::join).collect();
    let died = ended.iter().filter(|outcome| outcome.is_err()).count();
    println!("50 jobs were done, and {died} of 3 services has died");
    assert_eq!(died, 1);
    fs::remove_file(mark)?;
    Ok(())
}
