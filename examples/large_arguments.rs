//! Sends a value of several gigabytes to a worker and gets one of the same size back, through a ring of a quarter of a megabyte.
//!
//! `large_arguments [--gib N | --mib N]`, by default 3 GiB. Prints the rate and the peak memory of parent and worker.
#![expect(clippy::print_stdout, reason = "it is a command line program")]

use std::{sync::OnceLock, time::Instant};

use procession::{Pool, RemoteError, delayed, worker};

/// The memory that may be needed in addition to the values, whatever their size.
const OVERHEAD_BYTES: usize = 32 << 20;

/// The hash of the value that this worker received.
static SEEN: OnceLock<u64> = OnceLock::new();

/// Computes a quick hash that depends on every byte and its position.
fn hash(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let hash = words.iter().fold(bytes.len() as u64, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    rest.iter().fold(hash, |hash, byte| mix(hash, u64::from(*byte)))
}

/// Inverts every bit of the value in place, and remembers its hash.
#[worker]
fn invert(mut bytes: Vec<u8>) -> Vec<u8> {
    let _ = SEEN.set(hash(&bytes));
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    bytes
}

/// Returns the hash of the value that the worker received, and its peak memory in KiB.
#[worker]
fn report() -> Result<(Option<u64>, u64), RemoteError> {
    Ok((SEEN.get().copied(), peak_kib()?))
}

fn peak_kib() -> Result<u64, RemoteError> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    Ok(peak.trim().trim_end_matches(" kB").parse()?)
}

fn size() -> Result<usize, RemoteError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Ok(3 << 30),
        ["--gib", n] => Ok(n.parse::<usize>()? << 30),
        ["--mib", n] => Ok(n.parse::<usize>()? << 20),
        _ => Err(RemoteError::msg("usage: large_arguments [--gib N | --mib N]")),
    }
}

fn main() -> Result<(), RemoteError> {
    let len = size()?;
    let mut state = 1u64;
    let mut bytes = vec![0; len];
    for word in bytes.as_chunks_mut::<8>().0 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *word = state.to_le_bytes();
    }
    let sent = hash(&bytes);

    let pool = Pool::new(1)?;
    pool.submit(delayed!(report())).join()??;
    let start = Instant::now();
    // The value is moved, and not copied on its way.
    let back = pool.submit(delayed!(invert(bytes))).join()?;
    let took = start.elapsed();

    let (seen, worker_kib) = pool.submit(delayed!(report())).join()??;
    assert_eq!(seen, Some(sent), "the worker has what was sent");
    assert_eq!(back.len(), len);
    let back = back.into_iter().map(|byte| !byte).collect::<Vec<u8>>();
    assert_eq!(hash(&back), sent, "what came back is what was sent, inverted");
    let gib = len as f64 / f64::from(1 << 30);
    println!("{gib:.3} GiB there and back in {took:.2?}: {:.2} GiB/s", 2.0 * gib / took.as_secs_f64());
    // The parent has the value that it sends and the one that it receives. The worker has one value that is both.
    for (who, kib, values) in [("parent", peak_kib()?, 2), ("worker", worker_kib, 1)] {
        let most_kib = (values * len + OVERHEAD_BYTES) as u64 >> 10;
        assert!(kib <= most_kib, "{who}: {kib} KiB at most, and {most_kib} are enough");
        let gib_at_most = kib as f64 / f64::from(1 << 20);
        println!("{who}: {gib_at_most:.3} GiB at most, {:.2} x the value", gib_at_most / gib);
    }
    Ok(())
}
