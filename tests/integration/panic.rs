//! A panic fails only its own task, is reported with message and place, and costs no process.

use procession::{Builder, Pool, Process, RemoteError, TaskError, delayed, parallel, worker};

use crate::alone::alone;

/// The line of the panic in `third`.
const LINE: u32 = line!() + 4;

#[worker]
fn third(v: Vec<u32>) -> u32 {
    v[2]
}

#[worker]
fn odd_payload() {
    std::panic::panic_any(42u64)
}

#[worker]
fn formatted(n: u32) {
    panic!("number {n}")
}

#[worker]
fn twice(first: &str) {
    /// Panics when the first panic unwinds, and catches that.
    struct Again;
    impl Drop for Again {
        fn drop(&mut self) {
            let _ = std::panic::catch_unwind(|| panic!("the second"));
        }
    }
    let _again = Again;
    panic!("{first}")
}

#[worker]
fn caught() -> u32 {
    std::panic::catch_unwind(|| panic!("nobody needs to know")).map_or(1, |()| 0)
}

#[worker]
fn payload_that_panics() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("when it is dropped")
        }
    }
    std::panic::panic_any(Bomb)
}

#[worker]
fn in_a_thread_of_its_own() -> bool {
    std::thread::spawn(|| panic!("in a thread, and joined")).join().is_err()
}

#[worker]
fn with_a_hook_of_its_own() {
    std::panic::set_hook(Box::new(|_| {}));
    panic!("unseen by our hook")
}

#[worker]
fn caught_and_aborted() {
    let _ = std::panic::catch_unwind(|| panic!("nobody needs to know"));
    std::process::abort()
}

#[worker]
fn through_a_foreign_frame() {
    extern "C" fn foreign() {
        panic!("in a callback of a C library")
    }
    foreign()
}

#[worker]
fn raised_again() {
    let payload = std::panic::catch_unwind(|| panic!("raised again")).expect_err("it panics");
    let _ = std::panic::catch_unwind(|| panic!("in between"));
    std::panic::resume_unwind(payload)
}

#[worker]
fn pid() -> u32 {
    std::process::id()
}

#[worker]
fn fine(n: u32) -> Result<u32, RemoteError> {
    if n == 7 { panic!("seven") } else { Ok(n) }
}

fn panicked(
    pool: &Pool,
    task: procession::Task<impl serde::de::DeserializeOwned + std::fmt::Debug + 'static>,
) -> TaskError {
    let before = pool.submit(delayed!(pid())).join().expect("the pool serves");
    let error = pool.submit(task).join().expect_err("it panics");
    assert!(error.is_panic() && !error.is_crash() && error.exit().is_none(), "{error:?}");
    assert_eq!(error.worker_pid(), Some(before));
    assert_eq!(
        pool.submit(delayed!(pid())).join().expect("the pool serves on"),
        before,
        "no process was lost"
    );
    error
}

#[test]
fn a_panic_is_reported_with_its_message_and_place() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let error = panicked(&pool, delayed!(third(vec![1])));
        let panic = error.panic().unwrap();
        assert_eq!(panic.message(), "index out of bounds: the len is 1 but the index is 2");
        assert!(panic.file().ends_with("integration/panic.rs"), "{}", panic.file());
        assert_eq!((panic.line(), panic.column()), (LINE, 6));
        let words = error.to_string();
        assert!(
            words.starts_with("a task of `integration::panic::third` panicked in worker 0 (pid "),
            "{words}"
        );
        assert!(words.ends_with(&format!("integration/panic.rs:{LINE}:6")), "{words}");
    });
}

#[test]
fn a_backtrace_is_captured_if_and_only_if_it_is_requested() {
    alone(|| {
        let of = |builder: Builder| {
            let pool = builder.jobs(1).build().unwrap();
            let error = panicked(&pool, delayed!(third(vec![1])));
            error.panic().unwrap().backtrace().to_owned()
        };
        let builder = Pool::builder;
        let unset = || builder().env_remove("RUST_BACKTRACE").env_remove("RUST_LIB_BACKTRACE");
        for (asked, builder) in [
            (false, unset()),
            (false, unset().env("RUST_BACKTRACE", "0")),
            (true, unset().env("RUST_BACKTRACE", "1")),
            (true, unset().env("RUST_BACKTRACE", "full")),
            (true, unset().env("RUST_BACKTRACE", "1").env("RUST_LIB_BACKTRACE", "0")),
            (false, unset().env("RUST_LIB_BACKTRACE", "1")),
            (true, builder().backtrace(true)),
            (false, builder().backtrace(false)),
        ] {
            let words = format!("{builder:?}");
            let backtrace = of(builder);
            assert_eq!(backtrace.contains("third"), asked, "{words}: {backtrace}");
            assert_eq!(backtrace.is_empty(), !asked, "{words}: {backtrace}");
        }
    });
}

#[test]
fn a_process_has_a_backtrace_if_it_is_requested() {
    alone(|| {
        for asked in [true, false] {
            let mut process = Process::builder().backtrace(asked).spawn(delayed!(third(vec![1]))).unwrap();
            let error = process.join().unwrap_err();
            assert_eq!(error.panic().unwrap().backtrace().contains("third"), asked, "{error}");
        }
    });
}

#[test]
fn the_panic_of_a_call_names_its_task() {
    alone(|| {
        let pool = Pool::new(2).unwrap();
        let error = parallel!(pool = &pool; formatted(n) for n in [3]).unwrap_err();
        let error = error.into_task_error().unwrap();
        assert_eq!(error.task_index(), Some(0));
        assert!(
            error.to_string().starts_with("task 0 of `integration::panic::formatted` panicked"),
            "{error}"
        );
        assert!(error.to_string().contains("number 3"));
        let error: RemoteError = parallel!(pool = &pool; fine(n)? for n in 0..10).unwrap_err();
        assert!(error.to_string().contains("task 7 of"), "{error}");
        let results: Vec<_> = pool.imap((0..10).map(|n| delayed!(fine(n)))).collect();
        assert!(results.iter().enumerate().all(|(n, result)| result.is_err() == (n == 7)));
    });
}

#[test]
fn odd_panics_are_panics_like_any_other() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let message = |error: TaskError| error.panic().unwrap().message().to_owned();
        assert_eq!(
            message(panicked(&pool, delayed!(odd_payload()))),
            "a panic whose payload is not a string"
        );
        assert_eq!(message(panicked(&pool, delayed!(formatted(5)))), "number 5");
        assert_eq!(
            message(panicked(&pool, delayed!(payload_that_panics()))),
            "a panic whose payload is not a string"
        );
        assert_eq!(pool.submit(delayed!(caught())).join().unwrap(), 1);
        assert!(pool.submit(delayed!(in_a_thread_of_its_own())).join().unwrap());
    });
}

#[test]
fn the_panic_that_ends_the_task_is_the_one_that_is_reported() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let error = panicked(&pool, delayed!(twice("the first")));
        assert_eq!(error.panic().unwrap().message(), "the first");
        let error = panicked(&pool, delayed!(raised_again()));
        assert_eq!(error.panic().unwrap().message(), "raised again");
        assert_ne!(error.panic().unwrap().line(), 0);
    });
}

#[test]
fn an_abort_after_a_panic_that_was_caught_is_a_crash() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let error = pool.submit(delayed!(caught_and_aborted())).join().unwrap_err();
        assert!(error.is_crash() && !error.is_panic(), "{error}");
    });
}

#[test]
fn a_panic_that_cannot_unwind_is_reported_although_it_ends_the_process() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let error = pool.submit(delayed!(through_a_foreign_frame())).join().unwrap_err();
        assert!(error.is_panic(), "{error}");
        assert_eq!(error.panic().unwrap().message(), "in a callback of a C library");
        assert_eq!(error.exit().and_then(|exit| exit.signal()), Some(6), "{error}");
        assert!(pool.submit(delayed!(pid())).join().is_ok());
    });
}

#[test]
fn a_function_with_a_hook_of_its_own_still_panics_for_its_caller() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let error = panicked(&pool, delayed!(with_a_hook_of_its_own()));
        assert_eq!(error.panic().unwrap().message(), "unseen by our hook");
        assert_eq!(error.panic().unwrap().line(), 0);
    });
}

#[test]
fn a_panic_can_be_raised_again_in_the_caller() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let error = panicked(&pool, delayed!(formatted(9)));
        let payload = std::panic::catch_unwind(|| error.resume_panic()).unwrap_err();
        assert_eq!(payload.downcast_ref::<String>().unwrap(), "number 9");
    });
}

#[test]
fn a_thousand_panics_cost_no_process() {
    alone(|| {
        let pool = Pool::new(1).unwrap();
        let before = pool.submit(delayed!(pid())).join().unwrap();
        let failed = pool
            .imap((0..1000).map(|n| delayed!(formatted(n))))
            .filter(|result| result.as_ref().is_err_and(TaskError::is_panic));
        assert_eq!(failed.count(), 1000);
        assert_eq!(pool.submit(delayed!(pid())).join().unwrap(), before);
    });
}
