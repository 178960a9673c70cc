//! Writes a timeline of every task on every worker with `PROCESSION_TRACE=run.json` and no change of code. Perfetto (ui.perfetto.dev) and
//! chrome://tracing open the file.
//!
//! ```sh
//! cargo run --release --example trace            # writes trace.json among the system's temporary files
//! PROCESSION_TRACE=run.json cargo run --release --example trace
//! ```
#![expect(clippy::print_stdout, reason = "the example prints what it has found")]

use std::{path::PathBuf, process::Command, time::Duration};

use procession::{Pool, RemoteError, delayed, worker};

/// Sleeps as if it waited for a disk, and then computes.
#[worker]
fn load(n: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(n % 5));
    n
}

#[worker]
fn score(n: u64) -> u64 {
    (0..n * 20_000).fold(n, |sum, i| sum.wrapping_mul(31).wrapping_add(i))
}

/// Ends its process at the first attempt.
#[worker]
fn fragile(mark: PathBuf) -> Result<(), RemoteError> {
    if !mark.exists() {
        std::fs::write(mark, "")?;
        std::process::abort();
    }
    Ok(std::fs::remove_file(mark)?)
}

fn main() -> Result<(), RemoteError> {
    if std::env::var_os("PROCESSION_TRACE").is_none() {
        return show();
    }
    let pool = Pool::builder().jobs(2).retries(1).name("scoring").build()?;
    let loaded = pool.map((0..40).map(|n| delayed!(load(n))))?;
    pool.map(loaded.into_iter().map(|n| delayed!(score(n))))?;
    let mark = std::env::temp_dir().join(format!("procession-example-trace-{}", std::process::id()));
    pool.submit(delayed!(fragile(mark))).join()??;
    println!("{}", pool.stats());
    Ok(())
}

/// Runs this program with the variable, and checks what it has written.
fn show() -> Result<(), RemoteError> {
    let file = std::env::temp_dir().join(format!("trace-{}.json", std::process::id()));
    let status = Command::new(std::env::current_exe()?).env("PROCESSION_TRACE", &file).status()?;
    assert!(status.success());
    let text = std::fs::read_to_string(&file)?;
    let count = |what: &str| text.matches(what).count();
    let (slices, instants, rows) = (count(r#""ph":"X""#), count(r#""ph":"i""#), count("thread_name"));
    println!(
        "{}: {slices} tasks on {rows} processes, {instants} starts, crashes and retries",
        file.display()
    );
    assert!(text.starts_with('[') && text.trim_end().ends_with(']'));
    assert_eq!(slices, 40 + 40 + 1);
    assert_eq!((count(r#""name":"crash""#), count(r#""name":"retry""#)), (1, 1));
    Ok(())
}
