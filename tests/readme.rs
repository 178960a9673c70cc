//! The README and the pages that it leads to are true: their programs compile and print what they say, the tests, files and figures that
//! they name exist. (The README's program is also a doc test of this package's library.)

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{fs, path::Path, time::Duration};

use procession::{Pool, Process, SharedSlice, SharedSliceMut, TaskError, delayed, parallel, worker};

const README: &str = include_str!("../README.md");
const PROMISES: &str = include_str!("../docs/promises.md");
const PERFORMANCE: &str = include_str!("../docs/performance.md");
const FRONT_PAGE: &str = include_str!("../runtime/src/lib.rs");
const MANIFEST: &str = include_str!("../runtime/Cargo.toml");
const THIS_FILE: &str = include_str!("readme.rs");
const TESTS: &str = env!("CARGO_MANIFEST_DIR");

/// Counts the steps that the Collatz sequence takes from `n` to 1.
#[worker]
fn collatz(n: u64) -> u32 {
    match n {
        1 => 0,
        n if n % 2 == 0 => 1 + collatz(n / 2),
        n => 1 + collatz(3 * n + 1),
    }
}

#[worker]
fn score(path: &str, k: u32) -> f64 {
    path.len() as f64 * f64::from(k)
}

#[worker]
fn blur(source: &[f32], target: &mut [f32]) {
    target.fill(source.iter().sum::<f32>() / source.len() as f32);
}

/// Returns every part of `text` that stands between `open` and `close`.
fn between<'t>(text: &'t str, open: &str, close: &str) -> Vec<&'t str> {
    text.split(open).skip(1).filter_map(|rest| rest.split(close).next()).collect()
}

/// Removes all whitespace, so that it does not matter how a line is broken.
fn squeezed(code: &str) -> String {
    code.chars().filter(|c| !c.is_whitespace()).collect()
}

/// Returns the cells of each row of the tables in `text`.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .filter(|line| {
            line.starts_with("| ") && !line.starts_with("| what ") && !line.starts_with("| promise ")
        })
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
}

/// Returns the figures of a cell, each with its unit: `17.1 M tasks/s`.
fn figures(cell: &str) -> Vec<String> {
    const UNITS: [&str; 11] = ["M", "k", "tasks/s", "µs", "ms", "GB/s", "MB/s", "KiB", "MiB", "×", "x"];
    let words: Vec<&str> = cell.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let mut figures = Vec::new();
    for (i, word) in words.iter().enumerate() {
        let number = word.trim_end_matches("µs").trim_end_matches("ms");
        let unit: Vec<&str> =
            words[i + 1..].iter().take_while(|word| UNITS.contains(word)).copied().collect();
        if number.parse::<f64>().is_ok() && (number != *word || !unit.is_empty()) {
            figures.push([&[*word], &unit[..]].concat().join(" "));
        }
    }
    figures
}

#[test]
fn the_readme_has_at_most_150_lines() {
    assert!(README.lines().count() <= 150);
}

#[test]
fn the_program_of_the_readme_prints_what_the_readme_says() {
    let steps: Vec<u32> = parallel!(collatz(n) for n in 1..100_000).unwrap();
    let printed = format!("the longest sequence takes {} steps", steps.iter().max().unwrap());
    assert!(README.contains(&format!("```text\n{printed}\n```")), "{printed}");
    let function =
        &THIS_FILE[THIS_FILE.find("/// Counts").unwrap()..THIS_FILE.find("#[worker]\nfn score").unwrap()];
    assert!(README.contains(function.trim_end()), "the README has this function:\n{function}");
}

#[test]
fn the_recipes_of_the_readme_compile_and_run() {
    fn run() -> procession::Result<()> {
        let (paths, ks) = (["a.txt", "bc.txt"], [1, 3, 4]);

        let scores =
            parallel!(jobs = 4, retries = 1; score(path, *k) for path in &paths for k in &ks if *k > 2)?;
        assert_eq!(scores, [15.0, 20.0, 18.0, 24.0]);

        for (path, result) in
            paths.iter().zip(parallel!(on_error = collect; score(path, 3) for path in &paths)?)
        {
            match result {
                Ok(score) => println!("{path}: {score}"),
                Err(error) if error.is_crash() => println!("{path}: crashed ({})", error.exit().unwrap()),
                Err(error) => println!("{path}: {error}"),
            }
        }

        let pool =
            Pool::builder().jobs(2).task_timeout(Duration::from_secs(5)).memory_limit(2 << 30).build()?;

        for score in pool.imap(paths.iter().map(|path| delayed!(score(path, 3)))) {
            println!("{}", score?);
        }

        let (a, b) = (pool.submit(delayed!(score("a.txt", 1))), pool.submit(delayed!(score("b.txt", 2))));
        let sum = async { Ok::<f64, TaskError>(a.await? + b.await?) };
        assert_eq!(pollster::block_on(sum)?, 15.0);

        let mut process = Process::spawn(delayed!(score("a.txt", 3)))?;
        let Some(result) = process.join_timeout(Duration::from_secs(60)) else { return process.kill() };
        assert_eq!(result?, 15.0);

        let pixels = SharedSlice::from_slice(&[0.0, 1.0, 2.0])?;
        let mut out = SharedSliceMut::zeroed(pixels.len())?;
        parallel!(blur(&pixels, part) for part in out.chunks_mut(4096))?;
        assert_eq!(*out, [1.0; 3]);
        Ok(())
    }

    let compiled = squeezed(THIS_FILE);
    let recipes = between(README, "```rs\n", "```");
    assert_eq!(recipes.len(), 7);
    for recipe in recipes {
        assert!(compiled.contains(&squeezed(recipe)), "this recipe is not compiled here:\n{recipe}");
    }
    run().unwrap();
}

#[test]
fn each_page_that_is_named_exists() {
    for (text, folder) in [(README, ".."), (PROMISES, "../docs"), (PERFORMANCE, "../docs")] {
        let pages: Vec<&str> =
            between(text, "](", ")").into_iter().filter(|page| !page.contains("://")).collect();
        assert!(!pages.is_empty());
        for page in pages {
            assert!(Path::new(TESTS).join(folder).join(page).exists(), "{page}");
        }
    }
}

#[test]
fn each_test_that_holds_a_promise_exists() {
    let mut promises = 0;
    for row in rows(PROMISES) {
        let [promise, tests] = row[..] else { panic!("a row has two cells: {row:?}") };
        promises += 1;
        let mut text = None;
        for name in between(tests, "`", "`").into_iter().step_by(2) {
            if name.ends_with(".rs") {
                let file = fs::read_to_string(Path::new(TESTS).join(name));
                text = Some(file.unwrap_or_else(|error| panic!("{promise}: {name}: {error}")));
            } else {
                let text =
                    text.as_ref().unwrap_or_else(|| panic!("{promise}: `{name}` comes after its file"));
                assert!(text.contains(&format!("fn {name}(")), "{promise}: there is no test `{name}`");
            }
        }
        assert!(text.is_some(), "{promise}: no test");
    }
    assert!(promises > 30, "{promises}");
}

#[test]
fn each_figure_is_in_the_record_that_its_page_names() {
    for section in PERFORMANCE.split("\n## ").skip(1) {
        let [record] = between(section, "](", ")")[..] else { panic!("a section has one record: {section}") };
        let record_text = fs::read_to_string(Path::new(TESTS).join("../docs").join(record)).unwrap();
        let [command] = between(section, "```sh\n", "```")[..] else {
            panic!("a section has one command: {section}")
        };
        assert!(record_text.contains(command), "{record} says that it was made by {command}");
        let mut count = 0;
        for row in rows(section) {
            let [_, ours, theirs] = row[..] else { panic!("a row has three cells: {row:?}") };
            for figure in figures(ours).into_iter().chain(figures(theirs)) {
                count += 1;
                assert!(record_text.contains(&figure), "{record} has no `{figure}`: {row:?}");
            }
        }
        assert!(count > 5, "{count}");
    }
    let mut count = 0;
    for row in rows(README.split("## Figures").nth(1).unwrap().split("\n## ").next().unwrap()) {
        for figure in row[1..].iter().flat_map(|cell| figures(cell)) {
            count += 1;
            assert!(PERFORMANCE.contains(&figure), "docs/performance.md has no `{figure}`: {row:?}");
        }
    }
    assert!(count > 12, "{count}");
}

/// Returns the text of every file of the library.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &fs::read_to_string(&path).unwrap();
        }
    }
    text
}

#[test]
fn the_front_page_of_the_crate_has_each_variable_and_each_feature() {
    let page: String = FRONT_PAGE.lines().filter(|line| line.starts_with("//!")).collect();
    let sources = sources(&Path::new(TESTS).join("../runtime/src"));
    let is_name = |c: char| c.is_ascii_uppercase() || c == '_';
    let variables: Vec<&str> = between(&sources, "\"PROCESSION_", "\"")
        .into_iter()
        .filter(|name| !name.is_empty() && name.chars().all(is_name) && !name.starts_with("TESTS_"))
        .collect();
    assert!(variables.len() >= 7, "{variables:?}");
    for variable in variables {
        assert!(page.contains(&format!("`PROCESSION_{variable}`")), "PROCESSION_{variable} is not there");
    }
    let features = MANIFEST.split("[features]").nth(1).unwrap().split("\n[").next().unwrap();
    for feature in features
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name)
    {
        assert!(page.contains(&format!("- `{feature}`: ")), "the feature `{feature}` is not there");
    }
}
