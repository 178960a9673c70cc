//! `#[worker] async fn`: it runs to its end on its worker's own runtime, and all else is as for any function.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use procession::{Pool, RemoteError, delayed, parallel, worker};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    alone::{alone, alone_with_warm_pool},
    end::End,
    event::block_on,
};

#[worker]
async fn slow_square(n: u64) -> u64 {
    tokio::time::sleep(Duration::from_millis(1)).await;
    n * n
}

/// Through a connection to itself: sockets, timers, and tasks of its own.
#[worker]
async fn talk(text: &str, times: usize) -> Result<String, RemoteError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await?;
        Ok::<_, std::io::Error>(said)
    });
    let mut stream = TcpStream::connect(address).await?;
    for _ in 0..times {
        stream.write_all(text.as_bytes()).await?;
    }
    drop(stream);
    Ok(server.await??)
}

#[worker]
async fn strike(end: End) {
    tokio::task::yield_now().await;
    end.strike()
}

/// The address of this runtime, as it were: its number, and how many times it has been used.
#[worker]
async fn runtime() -> (u32, String) {
    (std::process::id(), tokio::runtime::Handle::current().id().to_string())
}

static COUNT: AtomicU64 = AtomicU64::new(0);

/// Leaves a task behind, which adds to a count when it is let.
#[worker]
async fn leave_behind() {
    tokio::spawn(async {
        tokio::task::yield_now().await;
        COUNT.fetch_add(1, Ordering::Relaxed);
    });
}

/// Lets others on this runtime do something.
#[worker]
async fn count() -> u64 {
    for _ in 0..100 {
        if COUNT.load(Ordering::Relaxed) > 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    COUNT.load(Ordering::Relaxed)
}

#[worker]
async fn nested(n: u64) -> Result<Vec<u64>, procession::RemoteError> {
    Ok(parallel!(slow_square(n) for n in 0..n)?)
}

#[worker]
async fn say(n: u64) -> u64 {
    log::info!("{n}");
    n
}

#[worker(instances(<u32>, <String>))]
async fn longest<T: Ord + Clone>(values: &[T], #[default(1)] times: usize) -> Option<T> {
    tokio::task::yield_now().await;
    values.iter().cycle().take(values.len() * times).max().cloned()
}

#[worker]
async fn exists(path: &Path) -> bool {
    path.exists()
}

#[test]
fn an_async_function_runs_to_its_end_in_a_worker() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let squares = pool.map((0..100).map(|n| delayed!(slow_square(n)))).unwrap();
        assert!(squares.into_iter().eq((0..100).map(|n| n * n)));
        assert_eq!(pool.submit(delayed!(talk("ab", 3))).join().unwrap().unwrap(), "ababab");
        assert!(pool.submit(delayed!(exists(Path::new("/")))).join().unwrap());
        let longest = pool.submit(delayed!(longest(&["a".to_owned(), "b".to_owned()], times = 2)));
        assert_eq!(longest.join().unwrap().as_deref(), Some("b"));
        let all = pool.broadcast(delayed!(slow_square(4))).unwrap();
        assert_eq!(all, [16, 16]);
    });
}

#[test]
fn an_async_function_stays_one_in_the_parent() {
    alone(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(slow_square(5)), 25);
        assert_eq!(block_on(longest(&[3u32, 4], 1)), Some(4));
    });
}

#[test]
fn panics_and_crashes_of_async_functions_are_reported_like_any_others() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let runtime_before = pool.submit(delayed!(runtime())).join().unwrap();
        let error = pool.submit(delayed!(strike(End::Panic))).join().unwrap_err();
        let panic = error.panic().unwrap();
        assert_eq!(panic.message(), crate::end::PANIC_WORDS);
        assert!(panic.file().ends_with("end.rs"));
        assert_eq!(
            pool.submit(delayed!(runtime())).join().unwrap(),
            runtime_before,
            "a panic costs no runtime"
        );
        for end in [End::Abort, End::Exit, End::Segfault] {
            let error = pool.submit(delayed!(strike(end))).join().unwrap_err();
            assert!(error.is_crash() && error.to_string().contains(end.words()), "{error}");
        }
        assert_eq!(pool.submit(delayed!(slow_square(3))).join().unwrap(), 9);
    });
}

#[test]
fn a_worker_has_one_runtime_made_at_first_use() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let first = pool.submit(delayed!(runtime())).join().unwrap();
        for _ in 0..10 {
            assert_eq!(pool.submit(delayed!(runtime())).join().unwrap(), first);
        }
    });
}

#[test]
fn futures_that_an_async_function_spawned_continue_during_the_next() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        pool.submit(delayed!(leave_behind())).join().unwrap();
        assert_eq!(pool.submit(delayed!(count())).join().unwrap(), 1);
    });
}

#[test]
fn a_call_within_an_async_function_runs_there_beside_the_runtime() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        assert_eq!(pool.submit(delayed!(nested(4))).join().unwrap().unwrap(), [0, 1, 4, 9]);
    });
}

#[test]
fn async_functions_run_in_process_also_where_a_runtime_is_at_work() {
    // A thread keeps its runtime for the next call.
    alone(|| std::thread::spawn(run_in_process).join().unwrap());
}

fn run_in_process() {
    let pool = Pool::in_process();
    assert_eq!(pool.submit(delayed!(slow_square(3))).join().unwrap(), 9);
    assert_eq!(delayed!(slow_square(4)).call().unwrap(), 16);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        assert_eq!(pool.submit(delayed!(slow_square(5))).await.unwrap(), 25);
        assert_eq!(delayed!(slow_square(6)).call().unwrap(), 36);
        let error = pool.submit(delayed!(strike(End::Panic))).await.unwrap_err();
        let panic = error.panic().unwrap();
        assert_eq!((panic.message(), panic.line() > 0), (crate::end::PANIC_WORDS, true));
    });
}

#[test]
fn the_processes_own_pool_runs_async_functions() {
    alone_with_warm_pool(|| {
        let squares = parallel!(slow_square(n) for n in 1..=3).unwrap();
        assert_eq!(squares, [1, 4, 9]);
        assert_eq!(parallel!(say(3)).unwrap(), 3);
    });
}
