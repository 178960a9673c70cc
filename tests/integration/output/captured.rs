//! Output that is kept with the outcome of the task.

use log::LevelFilter;
use procession::{Output, TaskError, delayed, worker};

use super::{KEPT_BYTES, by_stream, flood, nothing, pool, speak, speak_and_end, trail_off};
use crate::{
    alone::alone,
    end::End,
    logs::{COLLECTOR, collect},
};

#[test]
fn each_handle_has_what_its_own_task_wrote() {
    alone(|| {
        let pool = pool(2, Output::Capture);
        let handles: Vec<_> = (0..1000).map(|n| (n, pool.submit(delayed!(speak(n))))).collect();
        for (n, handle) in handles {
            let (result, wrote) = handle.join_captured();
            assert_eq!(result.unwrap(), n);
            assert_eq!(wrote.stdout(), format!("{n} begins\n{n} ends\n"));
            assert_eq!(wrote.stderr(), format!("{n} warns\n"));
            assert!(!wrote.is_cut());
        }
        let (result, wrote) = pool.submit(delayed!(nothing())).join_captured();
        result.unwrap();
        assert_eq!((wrote.stdout(), wrote.stderr()), ("", ""));
        let (result, wrote) = pool.submit(delayed!(trail_off(7))).join_captured();
        assert_eq!(result.unwrap(), 7);
        assert_eq!((wrote.stdout(), wrote.stderr()), ("7 says", "7 warns"));
    });
}

#[test]
fn a_large_result_comes_with_what_its_task_wrote() {
    #[worker]
    fn large(n: usize) -> Vec<u8> {
        println!("{n} large");
        vec![7; n]
    }
    alone(|| {
        let captures = pool(1, Output::Capture);
        let logs = pool(1, Output::Log);
        collect(LevelFilter::Info);
        for n in [100_000, 3_000_000] {
            let (result, wrote) = captures.submit(delayed!(large(n))).join_captured();
            assert_eq!(result.unwrap().len(), n);
            assert_eq!(wrote.stdout(), format!("{n} large\n"));
            assert_eq!(logs.submit(delayed!(large(n))).join().unwrap().len(), n);
            let words: Vec<String> = COLLECTOR.take().into_iter().map(|record| record.words).collect();
            assert_eq!(words, [format!("{n} large")]);
        }
    });
}

/// Checks what is promised about the error of a task that ended in this way.
pub(super) fn check_tails(error: &TaskError, end: End) {
    assert_eq!(error.stdout_tail(), Some("the last words\n"), "{end:?}");
    let stderr = error.stderr_tail().unwrap_or_default();
    assert!(stderr.starts_with("the first of the last words\nthe very last"), "{end:?}: {stderr}");
    if end == End::StackOverflow {
        assert!(stderr.contains("overflow"), "what the runtime says of it is there, too: {stderr}");
    }
}

const ENDS: [End; 6] = [End::Panic, End::Exit, End::Abort, End::Segfault, End::Kill, End::StackOverflow];

#[test]
fn the_error_of_a_task_that_failed_has_its_last_lines() {
    alone(|| {
        for output in [Output::Capture, Output::Log] {
            let pool = pool(1, output);
            for end in ENDS {
                let handle = pool.submit(delayed!(speak_and_end(end)));
                check_tails(&handle.join().unwrap_err(), end);
                let error = pool.map([delayed!(speak_and_end(end))]).unwrap_err();
                check_tails(&error.into_task_error().unwrap(), end);
                // What the next task writes is the next task's.
                let (result, wrote) = pool.submit(delayed!(speak(1))).join_captured();
                assert_eq!(result.unwrap(), 1);
                assert_eq!(wrote.stdout(), "1 begins\n1 ends\n");
            }
        }
        for output in [Output::Inherit, Output::Null] {
            let pool = pool(1, output);
            let error = pool.submit(delayed!(speak_and_end(End::Abort))).join().unwrap_err();
            assert_eq!((error.stdout_tail(), error.stderr_tail()), (None, None));
        }
    });
}

#[test]
fn the_last_lines_of_a_crash_are_records_before_its_error() {
    alone(|| {
        let pool = pool(1, Output::Log);
        collect(LevelFilter::Info);
        for end in [End::Exit, End::Abort, End::Segfault, End::Kill] {
            pool.submit(delayed!(speak_and_end(end))).join().unwrap_err();
            let seen = COLLECTOR.take();
            let streams = by_stream(&seen);
            assert_eq!(streams["stdout"], ["the last words"], "{end:?}");
            assert_eq!(streams["stderr"], ["the first of the last words", "the very last"], "{end:?}");
            assert!(seen.iter().all(|record| !record.field("task").is_empty()), "{seen:?}");
        }
    });
}

#[test]
fn much_output_neither_blocks_the_task_nor_stays_in_memory() {
    fn resident_bytes() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }
    alone(|| {
        let pool = pool(1, Output::Capture);
        let before = resident_bytes();
        // 100 MiB by both streams.
        let lines = (50 << 20) / 100;
        let (result, wrote) = pool.submit(delayed!(flood(lines))).join_captured();
        result.unwrap();
        assert!(wrote.is_cut());
        for kept in [wrote.stdout(), wrote.stderr()] {
            assert!(kept.len() <= KEPT_BYTES && kept.len() > KEPT_BYTES - 100);
            let numbers: Vec<u64> = kept.lines().map(|line| line.parse().unwrap()).collect();
            let first = lines - numbers.len() as u64;
            assert!(numbers.into_iter().eq(first..lines), "whole lines, up to the last");
        }
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 16 << 20, "{grown} bytes more than before");
    });
}
