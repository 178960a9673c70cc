//! Tests workers in unit tests: by a plain call, by [`Task::call`](procession::Task::call) through the encoding, and in a pool without processes.
//!
//! ```text
//! cargo test --example in_process_tests
//! ```
//!
//! Code that takes `&Pool` is tested with [`Pool::in_process`], in which breakpoints and coverage work, and runs with a real pool.
#![expect(clippy::print_stdout, reason = "it is a command line program")]

use procession::{Pool, delayed, worker};

/// Returns the longest word of a text, or the first of several.
#[worker]
fn longest_word(text: &str) -> Option<String> {
    text.split_whitespace().rev().max_by_key(|word| word.chars().count()).map(str::to_owned)
}

/// Returns the longest word of all texts.
fn longest_of_all(pool: &Pool, texts: &[&str]) -> procession::Result<Option<String>> {
    let words = pool.map(texts.iter().map(|text| delayed!(longest_word(text))))?;
    Ok(words.into_iter().flatten().max_by_key(|word| word.chars().count()))
}

fn main() -> procession::Result<()> {
    const TEXTS: [&str; 3] = ["to be or not to be", "that is the question", ""];

    let inside = longest_of_all(&Pool::in_process(), &TEXTS)?;
    let outside = longest_of_all(&Pool::builder().build()?, &TEXTS)?;
    assert_eq!(inside.as_deref(), Some("question"));
    assert_eq!(inside, outside);
    println!("in this process: {inside:?}");
    println!("in workers:      {outside:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use procession::Task;

    use super::*;

    #[test]
    fn a_worker_is_a_plain_function() {
        assert_eq!(longest_word("a bc d").as_deref(), Some("bc"));
        assert_eq!(longest_word("one two six").as_deref(), Some("one"));
        assert_eq!(longest_word(" \n"), None);
    }

    #[test]
    fn a_task_can_be_called_through_its_encoding() -> Result<(), procession::TaskError> {
        let task: Task<Option<String>> = delayed!(longest_word("über alles"));
        assert_eq!(task.call()?.as_deref(), Some("alles"));
        Ok(())
    }

    #[test]
    fn a_pool_in_process_stands_in_for_a_real_one() -> procession::Result<()> {
        let pool = Pool::in_process();
        assert_eq!(longest_of_all(&pool, &["a", "bcd", "ef"])?.as_deref(), Some("bcd"));
        assert_eq!(longest_of_all(&pool, &[])?, None);
        Ok(())
    }
}
