//! What processes share: memory, files and state.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
};

use procession::{
    Error, Fd, Manager, Pool, RemoteError, Sender, Shared, SharedMutex, SharedSlice, SharedSliceMut, channel,
    delayed, parallel, worker,
};

use crate::{START_TIMEOUT, tell};

/// The length of what is shared: more than fits into the slot of a channel.
const LEN: u64 = 1000;
/// The sum of the numbers below.
const SUM: &str = "499500";

#[worker]
fn sum(numbers: &BTreeSet<u64>) -> u64 {
    numbers.iter().sum()
}

#[worker]
fn sum_slice(numbers: &[u64]) -> u64 {
    numbers.iter().sum()
}

#[worker]
fn fill(part: &mut [u64]) {
    part.fill(2);
}

#[worker]
fn send_all(to: Sender<Vec<u64>>) -> Result<(), RemoteError> {
    to.send((0..LEN / 2).collect())?;
    to.send((LEN / 2..LEN).collect())?;
    Ok(())
}

#[worker]
fn add(total: &SharedMutex<u64>) -> Result<(), RemoteError> {
    *total.lock()? += 1;
    Ok(())
}

#[worker]
fn greet(to: Fd<std::os::unix::net::UnixStream>) -> Result<(), RemoteError> {
    Ok(to.into_inner().write_all(b"good morning")?)
}

#[worker]
fn double(value: u64) -> u64 {
    2 * value
}

/// Shares each sort of thing with a worker, and prints what came of it.
pub(crate) fn try_shared() -> u32 {
    let part = "shared";
    let pool = match Pool::builder().jobs(1).name(part).start_timeout(START_TIMEOUT).build() {
        Ok(pool) => pool,
        Err(error) => return tell(part, "pool", &format!("error: {error}"), ""),
    };
    let mut failed = 0;
    let mut check = |step, wanted: &str, run: &dyn Fn() -> Result<String, Error>| {
        let found = run().unwrap_or_else(|error| format!("error: {error}"));
        failed += tell(part, step, &found, wanted);
    };
    check("value", SUM, &|| {
        let numbers = Shared::new(&(0..LEN).collect())?;
        Ok(pool.submit(delayed!(sum(&numbers))).join()?.to_string())
    });
    check("slice", SUM, &|| {
        let numbers = SharedSlice::from_iter(LEN as usize, 0..)?;
        Ok(pool.submit(delayed!(sum_slice(&numbers))).join()?.to_string())
    });
    check("channel", SUM, &|| {
        let (to, from) = channel(1)?;
        let sending = pool.submit(delayed!(send_all(to)));
        let total: u64 = from.iter().flatten().sum();
        sending.join()??;
        Ok(total.to_string())
    });
    check("file", "good morning", &|| {
        let (mut here, there) = std::os::unix::net::UnixStream::pair().map_err(RemoteError::from)?;
        pool.submit(delayed!(greet(Fd::new(there)))).join()??;
        let mut words = String::new();
        here.read_to_string(&mut words).map_err(RemoteError::from)?;
        Ok(words)
    });
    check("parts", "2000", &|| {
        let mut numbers = SharedSliceMut::zeroed(LEN as usize)?;
        parallel!(pool = &pool; fill(part) for part in numbers.chunks_mut(300))?;
        Ok(numbers.iter().sum::<u64>().to_string())
    });
    check("lock", "3", &|| {
        let total = SharedMutex::new(2)?;
        pool.submit(delayed!(add(&total))).join()??;
        Ok(total.lock()?.to_string())
    });
    check("manager", "14", &|| {
        let manager = Manager::start()?;
        let values = manager.dict()?;
        values.insert("seven".to_owned(), 7)?;
        Ok(values.update("seven", delayed!(double(_)))?.to_string())
    });
    failed
}
