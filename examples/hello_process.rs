//! Runs five processes with one function call each: joined one by one, all at once, and not at all. Shows how they end, and a tree of seven.
//!
//! `hello_process [--processes 5] [--millis 100]`
#![expect(clippy::print_stdout, reason = "it is a command line program")]

use std::time::{Duration, Instant};

use procession::{Process, RemoteError, delayed, worker};

/// Prints a greeting, works for a while, and adds two numbers.
#[worker]
fn hello(num: u32, num2: u32, millis: u64) -> u32 {
    println!("  spawn # {num} {num2}, in process {}", std::process::id());
    std::thread::sleep(Duration::from_millis(millis));
    num + num2
}

/// Serves until it is terminated.
#[worker]
fn serve() {
    loop {
        std::thread::park();
    }
}

#[worker]
fn overreach(v: Vec<u32>, index: usize) -> u32 {
    v[index]
}

/// Runs one process of a tree: starts its two children, waits for both, and returns the processes that have ended, itself last.
#[worker]
fn family(name: &str, levels: u32) -> Result<Vec<String>, RemoteError> {
    let mut ended = Vec::new();
    if levels > 1 {
        let children =
            ["a", "b"].map(|child| Process::spawn(delayed!(family(&format!("{name}.{child}"), levels - 1))));
        for child in children {
            ended.extend(child?.join()??);
        }
    }
    ended.push(name.to_owned());
    Ok(ended)
}

fn options() -> Result<(u32, u64), RemoteError> {
    let (mut processes, mut millis) = (5, 100);
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        match (name.as_str(), args.next()) {
            ("--processes", Some(n)) => processes = n.parse()?,
            ("--millis", Some(n)) => millis = n.parse()?,
            _ => return Err(RemoteError::msg("usage: hello_process [--processes N] [--millis N]")),
        }
    }
    Ok((processes, millis))
}

fn main() -> Result<(), RemoteError> {
    let (processes, millis) = options()?;
    let work = Duration::from_millis(millis) * processes;

    println!("each joined before the next is started: one after the other, in order");
    let start = Instant::now();
    for i in 0..processes {
        let mut process = Process::spawn(delayed!(hello(i, i + 1, millis)))?;
        assert_eq!(process.join()?, 2 * i + 1);
        assert_eq!(process.exit_status().and_then(|exit| exit.code()), Some(0));
    }
    println!("  {:.0?} for {work:?} of work", start.elapsed());
    assert!(start.elapsed() >= work);

    println!(
        "all started, then joined: at the same time, in any order; the results are in the order of the joins"
    );
    let start = Instant::now();
    let mut all = Vec::new();
    for i in 0..processes {
        all.push(Process::spawn(delayed!(hello(i, i + 1, millis)))?);
    }
    for (i, process) in (0..).zip(&mut all) {
        assert_eq!(process.join()?, 2 * i + 1);
    }
    println!("  {:.0?} for {work:?} of work", start.elapsed());

    println!("never joined: the caller decides what happens to it");
    // A dropped process is killed, because no one waits for it. A detached process runs until it ends or this program ends.
    let left = Process::spawn(delayed!(hello(1, 2, 1_000_000)))?;
    println!("  {left:?}");
    drop(left);
    Process::spawn(delayed!(hello(3, 4, 0)))?.detach();

    println!("how a process ends");
    let mut server = Process::builder().name("server").spawn(delayed!(serve()))?;
    assert!(server.is_alive() && server.join_timeout(Duration::from_millis(10)).is_none());
    server.terminate()?;
    let error = server.join().expect_err("it was terminated");
    println!("  {error}");
    assert!(error.is_crash() && !server.is_alive());
    let mut process = Process::spawn(delayed!(overreach(vec![1, 2, 3], 9)))?;
    let error = process.join().expect_err("there is no tenth");
    println!("  {}", error.to_string().replace('\n', "\n  "));
    assert!(error.is_panic());
    println!("  {} and {}", server.exit_status().expect("it has"), process.exit_status().expect("it has"));

    println!("a process may have processes: seven, of which each ends after those that it has joined");
    let ended = Process::spawn(delayed!(family("root", 3)))?.join()??;
    println!("  {}", ended.join(", "));
    assert_eq!(ended, ["root.a.a", "root.a.b", "root.a", "root.b.a", "root.b.b", "root.b", "root"]);
    Ok(())
}
