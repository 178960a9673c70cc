//! Shows producers and consumers in different processes that share one channel, with back-pressure.
//!
//! Three producers send temperatures, two consumers add them up. The channel has room for 64 messages, so producers wait for consumers. Everything ends by
//! itself: consumers receive until the last producer has dropped its end.
#![expect(clippy::print_stdout, reason = "it is a command line program")]

use procession::{Pool, Receiver, RemoteError, Sender, channel, delayed, worker};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Reading {
    sensor: u32,
    tenths: i64,
}

/// Reads a sensor this many times. (It is made up.)
#[worker]
fn produce(sensor: u32, times: i64, to: Sender<Reading>) -> Result<(), RemoteError> {
    for n in 0..times {
        to.send(Reading { sensor, tenths: 200 + n % 10 })?;
    }
    Ok(())
}

/// Adds up what it receives. Returns the number of readings and the sum, by sensor.
#[worker]
fn consume(from: Receiver<Reading>) -> Vec<(i64, i64)> {
    let mut sums = vec![(0, 0); 3];
    for reading in from {
        let (count, sum) = &mut sums[reading.sensor as usize];
        *count += 1;
        *sum += reading.tenths;
    }
    sums
}

fn main() -> Result<(), RemoteError> {
    const TIMES: i64 = 20_000;
    let pool = Pool::new(5)?;
    let (tx, rx) = channel(64)?;
    let consumers = [0, 1].map(|_| pool.submit(delayed!(consume(rx.clone()))));
    let producers = [0, 1, 2].map(|sensor| pool.submit(delayed!(produce(sensor, TIMES, tx.clone()))));
    // Ends in this process would keep the channel open.
    drop((tx, rx));
    for producer in producers {
        producer.join()??;
    }
    let mut sums = vec![(0, 0); 3];
    for (n, consumer) in consumers.into_iter().enumerate() {
        let theirs = consumer.join()?;
        println!("consumer {n} received {} readings", theirs.iter().map(|(count, _)| count).sum::<i64>());
        for ((count, sum), (more, tenths)) in sums.iter_mut().zip(theirs) {
            *count += more;
            *sum += tenths;
        }
    }
    for (sensor, (count, sum)) in sums.into_iter().enumerate() {
        println!("sensor {sensor}: {:.2} degrees on average", sum as f64 / count as f64 / 10.0);
        assert_eq!((count, sum), (TIMES, TIMES / 10 * (2000 + 45)));
    }
    Ok(())
}
