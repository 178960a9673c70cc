//! Shows joblib's features: `Parallel(n_jobs=..., verbose=..., batch_size=...)(delayed(f)(arg, kwarg=...) for ... in ...)`.
//!
//! `joblib_tour [--jobs 2] [--verbose 10]`
//!
//! The lines of `verbose` go to stderr. `--verbose 50` prints one for each task, `--verbose 1` one now and then.
#![expect(clippy::print_stdout, reason = "it is a command line program")]

use procession::{RemoteError, TaskError, parallel, rng_seed, worker};

/// Estimates the integral of `x^power` from 0 to 1 with that many points. `scale` and `offset` are optional.
#[worker]
fn integral(power: i32, points: u32, #[default(1.0)] scale: f64, #[default(0.0)] offset: f64) -> f64 {
    let step = 1.0 / f64::from(points);
    let sum: f64 = (0..points).map(|i| (f64::from(i) + 0.5) * step).map(|x| x.powi(power)).sum();
    scale * sum * step + offset
}

/// Counts how many of that many random points of the unit square lie in the circle.
#[worker]
fn hits(points: u32) -> u32 {
    let mut state = rng_seed();
    let mut random = || {
        // A step of a random number generator. The generators of any crate can be seeded in the same way.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / (1u64 << 31) as f64
    };
    (0..points).filter(|_| random().powi(2) + random().powi(2) < 1.0).count() as u32
}

/// Returns the square root of the number in the text.
#[worker]
fn root_of(text: &str) -> Result<f64, RemoteError> {
    let number: f64 = text.trim().parse()?;
    if number < 0.0 { Err(RemoteError::msg(format!("{number} has no root"))) } else { Ok(number.sqrt()) }
}

fn options() -> Result<(i32, u32), RemoteError> {
    let (mut jobs, mut verbose) = (2, 10);
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        match (name.as_str(), args.next()) {
            ("--jobs", Some(n)) => jobs = n.parse()?,
            ("--verbose", Some(n)) => verbose = n.parse()?,
            _ => return Err(RemoteError::msg("usage: joblib_tour [--jobs N] [--verbose N]")),
        }
    }
    Ok((jobs, verbose))
}

fn main() -> Result<(), RemoteError> {
    // As in joblib, -1 means all CPUs and -2 all but one.
    let (jobs, verbose) = options()?;

    // Parallel(n_jobs=2, verbose=10)(delayed(integral)(power, 200_000) for power in range(1, 9))
    let areas = parallel!(jobs = jobs, verbose = verbose; integral(power, 200_000) for power in 1..9)?;
    for (power, area) in (1..).zip(&areas) {
        println!("the integral of x^{power} from 0 to 1 is {area:.6}");
        assert!((area - 1.0 / f64::from(power + 1)).abs() < 1e-6);
    }

    // Keyword arguments in any order. Those with a default may be omitted.
    let (powers, scale) = ([1, 2, 3], 6.0);
    let scaled =
        parallel!(jobs = jobs; integral(*power, 1000, offset = 1.0, scale = scale) for power in &powers)?;
    println!("six times as much, and one: {scaled:.3?}");
    assert!((scaled[0] - 4.0).abs() < 1e-3);

    // Two loops and a condition. Eight tasks travel together, so `verbose = 10` prints a line every eight tasks.
    let table = parallel!(
        jobs = jobs, batch = 8, verbose = verbose;
        integral(power, 10 * points) for power in 1..=4 for points in 1..=8 if points != 5
    )?;
    println!("a table of {} values", table.len());
    assert_eq!(table.len(), 4 * 7);

    // Random numbers, which are the same for any number of jobs.
    let total: u32 = parallel!(jobs = jobs, seed = 42; hits(100_000) for _ in 0..8)?.iter().sum();
    let again: u32 = parallel!(jobs = 1, seed = 42; hits(100_000) for _ in 0..8)?.iter().sum();
    assert_eq!(total, again);
    println!("pi is about {:.3}", 4.0 * f64::from(total) / 800_000.0);

    // Not in joblib: one failure does not discard the other results.
    let texts = ["4", "nine", "-1", "16"];
    let roots: Vec<Result<f64, RemoteError>> =
        parallel!(jobs = jobs, on_error = collect; root_of(text)? for text in texts)?;
    for (text, root) in texts.iter().zip(&roots) {
        match root {
            Ok(root) => println!("the root of {text} is {root}"),
            Err(error) => println!("the root of {text}: {error}"),
        }
    }
    assert_eq!(roots.iter().filter(|root| root.is_ok()).count(), 2);

    // Different functions side by side, and results in order of completion.
    let (area, hit) = parallel!(jobs = jobs; integral(2, 100), hits(100))?;
    assert!(area < 1.0 && hit <= 100);
    let quick_first: Vec<Result<f64, TaskError>> = parallel!(jobs = jobs, order = unordered, on_error = collect, timeout = mins(1), retries = 1;
            integral(1, points) for points in [1_000_000, 10, 10, 10])?;
    assert_eq!(quick_first.len(), 4);
    Ok(())
}
