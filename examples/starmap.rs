//! Passes several arguments and returns several results, like Python's `pool.starmap(my_function, params)`. An error ends the call and is returned.
//!
//! Uses one worker less than there are CPUs, as is common in scripts that transform data.
#![expect(clippy::print_stdout, reason = "it is a command line program")]

use procession::{Jobs, Pool, RemoteError, delayed, parallel, worker};

/// Splits a line at `separator` into a name and a number.
#[worker]
fn parse(line: &str, separator: char) -> Result<(String, f64), RemoteError> {
    let (name, number) = line
        .split_once(separator)
        .ok_or_else(|| RemoteError::msg(format!("no {separator:?} in {line:?}")))?;
    Ok((name.trim().to_owned(), number.trim().parse()?))
}

fn main() -> Result<(), RemoteError> {
    let data = ["pear: 3.5", "apple: 12", "plum: 0.25", "quince: 7"];
    let separator = ':';
    let pool = Pool::builder().jobs(Jobs::AllBut(1)).build()?;

    // The other argument is written in the call, so no list of tuples is needed.
    let results: Vec<(String, f64)> = parallel!(pool = &pool; parse(line, separator)? for line in data)?;
    for (name, number) in &results {
        println!("{name:<8}{number:>8.2}");
    }
    let (names, numbers): (Vec<String>, Vec<f64>) = results.into_iter().unzip();
    assert_eq!(names, ["pear", "apple", "plum", "quince"]);
    assert!((numbers.iter().sum::<f64>() - 22.75).abs() < 1e-9);

    // Existing tuples are destructured in the loop, as in starmap.
    let params = [("1=2", '='), ("3=4", '=')];
    let pairs = pool.map(params.iter().map(|(line, separator)| delayed!(parse(line, *separator))))?;
    assert_eq!(
        pairs.into_iter().collect::<Result<Vec<_>, _>>()?,
        [("1".to_owned(), 2.0), ("3".to_owned(), 4.0)]
    );

    // An error in a worker is returned as the function's own error. It needs no wrapper, and nothing is lost.
    let broken: Result<Vec<(String, f64)>, RemoteError> =
        parallel!(pool = &pool; parse(line, separator)? for line in ["fig: 1", "date: many", "lime: 2"]);
    match broken {
        Ok(_) => unreachable!("\"many\" is no number"),
        Err(error) => {
            println!("\nand of a damaged list: {error}");
            assert!(error.to_string().contains("invalid float"), "{error}");
        }
    }
    Ok(())
}
