//! The README is short, and what it names is there. (That its program compiles and runs is a doc test of this package's library.)

use std::path::Path;

const README: &str = include_str!("../README.md");

/// What stands in the text between these two, each time.
fn between(open: &str, close: &str) -> Vec<&'static str> {
    README.split(open).skip(1).filter_map(|rest| rest.split(close).next()).collect()
}

#[test]
fn the_readme_has_at_most_150_lines() {
    assert!(README.lines().count() <= 150);
}

#[test]
fn each_test_and_each_page_that_the_readme_names_exists() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests: Vec<&str> = between("`", "`").into_iter().filter(|name| name.ends_with(".rs")).collect();
    assert!(tests.len() > 20, "{tests:?}");
    for test in tests {
        assert!(here.join(test).exists(), "tests/{test}");
    }
    let pages: Vec<&str> = between("](", ")").into_iter().filter(|page| !page.contains("://")).collect();
    assert!(pages.len() > 10, "{pages:?}");
    for page in pages {
        assert!(here.join("..").join(page).exists(), "{page}");
    }
}

#[test]
fn what_the_readme_says_of_measurements_is_in_one_record_each() {
    let records: Vec<&str> =
        between("](", ")").into_iter().filter(|page| page.contains("/record/")).collect();
    for record in records {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(record);
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains("```sh\n") && text.contains("Commit "), "{record} says how it was made");
    }
    assert!(!README.contains(" tasks/s"), "figures stand in the records, beside the command that made them");
}
