//! Each line of Rust in `docs/from-python.md`, compiled and run.
//!
//! The first test reads that page and fails on a line of its tables that is not written here.

use std::{collections::BTreeSet, os::fd::AsFd, time::Duration};

use pollster::block_on;
use procession::{
    Handle, Manager, Pool, Process, RemoteError, Shared, SharedAtomicU64, SharedBarrier, SharedCondvar,
    SharedEvent, SharedMutex, SharedSemaphore, SharedSlice, SharedSliceMut, StartMethod, TaskError, channel,
    delayed, parallel, pipe, worker,
};

const PAGE: &str = include_str!("../docs/from-python.md");
const LINES: &str = include_str!("from_python.rs");

#[worker]
fn f(x: u64) -> u64 {
    x * x
}

#[worker]
fn g(x: u64, #[default(10)] by: u64) -> u64 {
    x * by
}

#[worker]
fn hang() {
    loop {
        std::thread::park();
    }
}

#[worker]
fn place() -> Option<usize> {
    assert!(procession::is_worker());
    procession::worker_index()
}

type Outcome = Result<(), RemoteError>;

/// Without its spaces, so that it does not matter how a line is broken.
fn squeezed(code: &str) -> String {
    code.chars().filter(|c| !c.is_whitespace()).collect()
}

#[test]
fn every_line_of_the_page_is_in_this_file() {
    let lines = squeezed(LINES);
    let mut rows = 0;
    let mut missing = Vec::new();
    let tables = PAGE.split("## Pitfalls").next().unwrap();
    for row in tables.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Python")) {
        let row = row.replace("\\|", "\u{1}");
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert!(cells.len() == 4 && cells[1].starts_with('`'), "a row has two cells: {row}");
        rows += 1;
        if cells[2].starts_with('–') {
            assert!(cells[2].chars().count() > 10, "it says why: {row}");
            continue;
        }
        let mut spans = cells[2].split('`').skip(1).step_by(2).peekable();
        assert!(spans.peek().is_some(), "it says what to write, or begins with a dash: {row}");
        for span in spans {
            let code = squeezed(&span.replace('\u{1}', "|"));
            // The last letters of a line that stands here as a statement of its own may differ: `;`.
            if !lines.contains(&code) {
                missing.push(span.to_owned());
            }
        }
    }
    assert!(rows > 100, "{rows} rows");
    assert!(missing.is_empty(), "these are not compiled: {missing:#?}");
}

/// Returns the largest of these.
#[worker]
fn largest(of: &[i32]) -> Option<i32> {
    of.iter().copied().max()
}

/// Returns the number of words.
#[worker]
fn words(of: &BTreeSet<String>) -> usize {
    of.len()
}

#[test]
fn what_they_call_shared_memory() -> Outcome {
    let v = [3, 7, 5];
    let s = SharedSlice::from_slice(&v)?;
    assert_eq!(Process::spawn(delayed!(largest(&s)))?.join()?, Some(7));

    let value = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
    let s = Shared::new(&value)?;
    assert_eq!(Process::spawn(delayed!(words(&s)))?.join()?, 2);
    Ok(())
}

#[worker]
fn fill(part: &mut [f64]) {
    part.fill(0.5);
}

#[test]
fn what_they_call_array() -> Outcome {
    let n = 5;
    let mut out = SharedSliceMut::<f64>::zeroed(n)?;
    parallel!(fill(part) for part in out.chunks_mut(2))?;
    assert_eq!(*out, [0.5; 5]);
    let sums = SharedMutex::new([0f64; 4])?;
    sums.lock()?[2] = 1.0;
    assert_eq!(*sums.lock()?, [0.0, 0.0, 1.0, 0.0]);
    Ok(())
}

#[test]
fn what_they_call_queue() -> Outcome {
    let secs = Duration::from_secs;
    let (tx, rx) = channel::<u64>(16)?;
    tx.send(1)?;
    assert_eq!(rx.recv()?, 1);
    tx.try_send(1)?;
    tx.send_timeout(1, secs(1))?;
    let mut sum = rx.try_recv()?;
    sum += rx.recv_timeout(secs(1))?;
    tx.send(40)?;
    drop(tx);
    for x in &rx {
        sum += x;
    }
    assert_eq!(sum, 42);

    let (here, there) = pipe::<u64, String>()?;
    here.send(1)?;
    there.send(there.recv()?.to_string())?;
    assert_eq!(here.recv()?, "1");
    Ok(())
}

#[worker]
fn count(n: SharedAtomicU64, total: SharedMutex<u64>) -> Outcome {
    n.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    *total.lock()? += 1;
    Ok(())
}

#[test]
fn what_they_call_value_and_lock() -> Outcome {
    let n = SharedAtomicU64::new(0)?;
    let total = SharedMutex::new(0u64)?;
    Process::spawn(delayed!(count(n.clone(), total.clone())))?.join()??;
    assert_eq!((n.load(std::sync::atomic::Ordering::Relaxed), *total.lock()?), (1, 1));
    let lock = SharedMutex::new(())?;
    drop(lock.lock()?);
    let semaphore = SharedSemaphore::new(3)?;
    drop(semaphore.acquire());
    let condition = SharedCondvar::new()?;
    condition.notify_one();
    let event = SharedEvent::new()?;
    event.set();
    event.wait();
    let barrier = SharedBarrier::new(3)?;
    assert!(barrier.wait_timeout(Duration::ZERO).is_none());
    Ok(())
}

#[worker]
fn add(age: u64, years: u64) -> u64 {
    age + years
}

#[test]
fn what_they_call_manager() -> Outcome {
    let manager = Manager::start()?;
    let ages = manager.dict::<String, u64>()?;
    let log = manager.list::<String>()?;
    let key = "Ada".to_owned();
    ages.insert(key.clone(), 1)?;
    assert_eq!(ages.get(&key)?, Some(1));
    ages.update(&key, delayed!(add(_, 1)))?;
    assert_eq!(ages.remove(&key)?, Some(2));
    log.push("born".to_owned())?;
    assert!(ages.snapshot()?.is_empty());
    assert_eq!(log.snapshot()?, ["born"]);
    assert_eq!(manager.counter(0)?.get()?, 0);
    assert!(manager.namespace()?.names()?.is_empty());
    assert!(manager.queue::<u64>(16)?.is_empty()?);
    drop(manager.mutex(0u64)?.lock()?);
    drop(manager.semaphore(3)?.acquire()?);
    assert!(!manager.event()?.is_set()?);
    assert_eq!(manager.barrier(3)?.wait_timeout(Duration::ZERO)?, None);
    manager.condvar()?.notify_all()?;
    Ok(())
}

#[test]
fn what_they_call_process() -> Outcome {
    let mut p = Process::spawn(delayed!(f(1)))?;
    assert_ne!(p.id(), std::process::id());
    assert_eq!(p.join()?, 1);
    assert!(!p.is_alive());
    let exit = p.exit_status().unwrap();
    assert_eq!((exit.code(), exit.signal()), (Some(0), None));

    assert_eq!(Process::spawn(delayed!(g(1, by = 3)))?.join()?, 3);
    assert_eq!(Process::builder().name("server").spawn(delayed!(f(1)))?.join()?, 1);

    let mut p = Process::spawn(delayed!(hang()))?;
    assert!(p.join_timeout(Duration::from_millis(1)).is_none());
    assert!(p.is_alive());
    p.terminate()?;
    p.kill()?;
    assert!(p.join_timeout(Duration::from_secs(20)).unwrap().is_err());
    let mut ends = [nix::poll::PollFd::new(p.as_fd(), nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut ends, 20_000u16)?, 1);

    let p = Process::spawn(delayed!(hang()))?;
    drop(p);
    let mut p = Process::spawn(delayed!(f(1)))?;
    assert!(p.join_timeout(Duration::from_secs(1)).is_none_or(|outcome| outcome.is_ok()));
    Process::spawn(delayed!(f(1)))?.detach();
    Ok(())
}

#[test]
fn what_they_call_pools() -> Outcome {
    let xs = [1, 2, 3];
    let pairs = [(1, 2), (3, 4)];
    let squares = [1, 4, 9];
    let pools = [
        Pool::builder().build()?,
        Pool::new(5)?,
        Pool::builder().initializer(delayed!(f(1))).build()?,
        Pool::builder().max_tasks_per_worker(100).build()?,
        Pool::builder().start_method(StartMethod::ForkServer).build()?,
        Pool::builder().start_method(StartMethod::Spawn).build()?,
        Pool::builder().start_method(StartMethod::ForkServer).preload(delayed!(f(1))).build()?,
        Pool::builder().inner_threads(1).build()?,
        Pool::builder().pin_cpus(true).build()?,
        Pool::builder().initializer(delayed!(f(1))).start_timeout(Duration::from_secs(60)).build()?,
        Pool::builder().finalizer(delayed!(f(1))).build()?,
        Pool::builder().task_timeout(Duration::from_secs(5)).build()?,
    ];
    for pool in pools {
        assert_eq!(parallel!(pool = &pool; f(x) for x in xs)?, squares);
        pool.join()?;
    }
    assert!(Pool::builder().build()?.jobs() >= 1);

    let pool = Pool::new(2)?;
    assert_eq!(pool.submit(delayed!(f(1))).join()?, 1);
    assert_eq!(pool.map(xs.iter().map(|&x| delayed!(f(x))))?, squares);
    assert_eq!(parallel!(pool = &pool, batch = 64; f(x) for x in xs)?, squares);
    assert_eq!(parallel!(pool = &pool; g(a, b) for (a, b) in pairs)?, [2, 12]);
    assert_eq!(parallel!(pool = &pool; g(x, y) for (x, y) in xs.into_iter().zip(4..))?, [4, 10, 18]);
    let ys = vec![4, 5, 6];
    assert_eq!(parallel!(pool = &pool; g(x, y) for (x, y) in xs.into_iter().zip(ys))?, [4, 10, 18]);
    assert_eq!(parallel!(pool = &pool, timeout = secs(60); f(x) for x in xs)?, squares);
    assert_eq!(parallel!(pool = &pool, timeout = secs(60); f(x) for x in xs)?, squares);
    assert_eq!(parallel!(pool = &pool, progress = "scoring"; f(x) for x in xs)?, squares);

    let results = pool.imap(xs.iter().map(|&x| delayed!(f(x))));
    assert_eq!(results.collect::<Result<Vec<_>, _>>()?, squares);
    let results = pool.imap(xs.iter().map(|&x| delayed!(f(x)))).chunk_size(64);
    assert_eq!(results.collect::<Result<Vec<_>, _>>()?, squares);
    let results = pool.imap_unordered(xs.iter().map(|&x| delayed!(f(x))));
    let mut results = results.map(|(_, result)| result).collect::<Result<Vec<_>, _>>()?;
    results.sort_unstable();
    assert_eq!(results, squares);
    assert_eq!(pool.broadcast(delayed!(place()))?, [Some(0), Some(1)]);
    assert_eq!(parallel!(pool = &pool, on_error = collect; f(x) for x in xs)?.len(), 3);
    let mut results = parallel!(pool = &pool, order = unordered; f(x) for x in xs)?;
    results.sort_unstable();
    assert_eq!(results, squares);
    println!("{}", pool.stats());
    pool.terminate();
    let pool = Pool::builder().jobs(1).finalizer(delayed!(f(3))).build()?;
    assert_eq!(pool.submit(delayed!(f(1))).join()?, 1);
    assert_eq!(pool.join_with_exit_results::<u64>()?, [9]);
    assert_eq!(Pool::in_process().map(xs.iter().map(|&x| delayed!(f(x))))?, squares);
    Ok(())
}

#[test]
fn what_they_call_managers() -> Outcome {
    let manager = Manager::start()?;
    let counts = manager.dict::<String, u64>()?;
    assert_eq!(counts.get("a")?, None);
    assert_eq!(counts.insert("a".to_owned(), 1)?, None);
    assert_eq!(counts.entry("a".to_owned()).or_insert(1)?, 1);
    assert_eq!(counts.update("a", delayed!(g(_, 2)))?, 2);
    assert_eq!(counts.snapshot()?.len(), 1);
    assert_eq!(counts.remove("a")?, Some(2));
    assert!(!counts.contains("a")? && counts.len()? == 0);
    counts.clear()?;
    let log = manager.list::<String>()?;
    log.push("a".to_owned())?;
    log.extend(["b".to_owned()])?;
    assert_eq!(log.get(0)?.as_deref(), Some("a"));
    assert_eq!(log.set(0, "c".to_owned())?, "a");
    assert_eq!(log.snapshot()?, ["c", "b"]);
    assert_eq!(log.pop()?.as_deref(), Some("b"));
    assert_eq!(log.len()?, 1);
    let counter = manager.counter(0)?;
    counter.add(1)?;
    assert_eq!(counter.get()?, 1);
    let ns = manager.namespace()?;
    ns.set("x", 1)?;
    assert_eq!(ns.get::<i32>("x")?, Some(1));
    let queue = manager.queue::<u32>(2)?;
    queue.put(1)?;
    assert!(queue.put_timeout(1, Duration::from_secs(1))?);
    assert!(!queue.try_put(1)?);
    assert_eq!(queue.get()?, 1);
    assert_eq!(queue.get_timeout(Duration::from_secs(1))?, Some(1));
    assert_eq!(queue.try_get()?, None);
    let total = manager.mutex(0)?;
    *total.lock()? += 1;
    let changed = manager.condvar()?;
    changed.notify_all()?;
    assert_eq!(*changed.wait_while(total.lock()?, |total| *total == 0)?, 1);
    let semaphore = manager.semaphore(2)?;
    let permit = semaphore.acquire()?;
    drop(permit);
    let event = manager.event()?;
    event.set()?;
    event.wait()?;
    let barrier = manager.barrier(1)?;
    assert!(barrier.wait()?);
    drop(manager);
    let _ = Manager::in_process();
    Ok(())
}

#[test]
fn what_they_call_futures() -> Outcome {
    let xs = [1, 2, 3];
    let pool = Pool::new(2)?;
    let handle = pool.submit(delayed!(f(1)));
    assert_eq!(handle.join()?, 1);
    let handle = pool.submit(delayed!(f(1)));
    assert!(handle.join().is_ok());
    let handle = pool.submit(delayed!(g(1, by = 3)));
    let product = block_on(async { Ok::<_, RemoteError>(handle.await? + 1) })?;
    assert_eq!(product, 4);

    let mut handle = pool.submit(delayed!(hang()));
    assert!(!handle.is_finished());
    assert!(handle.join_timeout(Duration::from_millis(1)).is_none());
    handle.cancel();
    // Longer than any test waits.
    let _ = |handle: &mut Handle<()>| handle.join_timeout(Duration::from_secs(1));
    let error = handle.join().unwrap_err();
    assert!(error.is_cancelled() && !error.is_timeout());

    let handles: Vec<Handle<u64>> = xs.iter().map(|&x| pool.submit(delayed!(f(x)))).collect();
    let results = handles.into_iter().map(Handle::join).collect::<Result<Vec<_>, TaskError>>()?;
    assert_eq!(results, [1, 4, 9]);
    Ok(())
}

#[test]
fn what_joblib_calls_parallel() -> Outcome {
    let xs = [1, 2, 3];
    let squares = [1, 4, 9];
    assert_eq!(parallel!(f(x) for x in xs)?, squares);
    assert_eq!(delayed!(g(1, by = 3)).call()?, 3);
    assert_eq!(parallel!(jobs = 2; f(x) for x in xs)?, squares);
    assert_eq!(parallel!(jobs = -2; f(x) for x in xs)?, squares);
    assert_eq!(parallel!(verbose = 10; f(x) for x in xs)?, squares);
    assert_eq!(parallel!(timeout = secs(60); f(x) for x in xs)?, squares);
    assert_eq!(parallel!(batch = 64; f(x) for x in xs)?, squares);
    assert_eq!(parallel!(progress = "scoring"; f(x) for x in xs)?, squares);
    assert!(std::thread::available_parallelism()?.get() >= 1);
    Ok(())
}
