//! The failures, and the time that everything took.

use std::{collections::BTreeMap, time::Duration};

use procession::TaskError;
use procession_examples::content::Content;

use crate::{
    Report, Row,
    text::{Count, MOST_NAMED, WIDTH, beginning, ending},
};

/// A smaller speed-up is not reported.
const LEAST_SPEED_UP: f64 = 1.05;

/// Prints the files that could not be examined, by the kind of failure.
pub(crate) fn failures(rows: &[Row], name: impl Fn(usize) -> String) -> String {
    let mut groups: BTreeMap<&str, Vec<(usize, String)>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        let (group, why) = match row {
            Row::Examined(Report { content: Content::Damaged(error), .. }) => ("damaged", error.clone()),
            Row::Examined(_) => continue,
            Row::Unreadable(error) => ("could not be read", error.clone()),
            Row::Failed(error) => why_failed(error),
        };
        groups.entry(group).or_default().push((index, why));
    }
    let mut text = String::new();
    for (group, files) in groups {
        text += &format!("\n{} {group}:\n", Count(files.len() as u64));
        for (index, why) in files.iter().take(MOST_NAMED) {
            // The path gets up to half of the line, and the error the rest.
            let path = ending(&name(*index), WIDTH / 2);
            let room = WIDTH - 10 - path.chars().count();
            text += &format!("        {path}: {}\n", beginning(why, room));
        }
        if files.len() > MOST_NAMED {
            text += &format!("        and {} more\n", Count((files.len() - MOST_NAMED) as u64));
        }
    }
    text
}

/// Describes the failure of a task, as a heading and in detail.
fn why_failed(error: &TaskError) -> (&'static str, String) {
    match (error.panic(), error.exit()) {
        (Some(panic), _) => (
            "made the parser panic",
            format!("{} ({}:{})", panic.message().escape_debug(), panic.file(), panic.line()),
        ),
        (None, Some(exit)) if error.is_crash() => ("killed their worker", exit.to_string()),
        (None, _) if error.is_crash() => ("killed their worker", error.to_string()),
        _ => ("failed otherwise", error.to_string()),
    }
}

pub(crate) fn times(files: usize, jobs: usize, in_workers: Duration, alone: Duration) -> String {
    let (workers, alone) = (in_workers.as_secs_f64(), alone.as_secs_f64());
    let (files, plural) = (Count(files as u64), if jobs == 1 { "" } else { "s" });
    format!(
        "\n{files} files: {workers:.2} s in {jobs} worker{plural}, {alone:.2} s in this process alone: {}.\n\
         Both read warm files; the workers' start and end are counted.\n",
        speed_up(jobs, alone / workers)
    )
}

/// Describes how much faster the workers were than one process.
fn speed_up(jobs: usize, ratio: f64) -> String {
    match jobs {
        1 => "no speed-up: there is one worker".to_owned(),
        _ if ratio >= LEAST_SPEED_UP => format!("{ratio:.1}x faster"),
        _ => "no speed-up: the CPUs are busy with other programs".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unusual::{most_unusual, tests::row};

    #[test]
    fn the_speed_up_is_told_as_people_tell_it() {
        assert_eq!(speed_up(2, 1.63), "1.6x faster");
        assert_eq!(speed_up(2, 0.76), "no speed-up: the CPUs are busy with other programs");
        assert_eq!(speed_up(2, 1.04), "no speed-up: the CPUs are busy with other programs");
        assert_eq!(speed_up(1, 1.3), "no speed-up: there is one worker");
    }

    #[test]
    fn what_is_said_of_files_keeps_to_its_columns() {
        let mut rows: Vec<Row> = (0..20).map(|n| row(1 << n, n * n * n)).collect();
        rows.push(Row::Unreadable("words without end ".repeat(20)));
        let long = |index| format!("{}/{index}", "a folder/".repeat(20));
        let text = most_unusual(&rows, long)
            + &failures(&rows, long)
            + &times(1 << 30, 99, Duration::from_secs(100_000), Duration::from_secs(200_000));
        assert!(text.contains("1 could not be read:\n") && text.contains("of 20 files"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }
}
