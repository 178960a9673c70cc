//! The processes of a test, and what they do.

use std::process::Command;

use crate::{event::until, scratch::Folder};

/// Describes each thread of each process of a test: its name, its state, where in the kernel it waits, and its system call.
pub(super) fn doing(folder: &Folder) -> String {
    let mut lines = String::new();
    for pid in processes_of(folder) {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
        for thread in threads.filter_map(Result::ok) {
            let read = |file| std::fs::read_to_string(thread.path().join(file)).unwrap_or_default();
            let [name, stat, place, call] = ["comm", "stat", "wchan", "syscall"].map(read);
            let state = stat.rsplit_once(") ").and_then(|(_, stat)| stat.chars().next()).unwrap_or('?');
            let id = thread.file_name();
            let id = id.to_string_lossy();
            lines += &format!("{pid}/{id} {}: {state} {place} {}\n", name.trim_end(), call.trim_end());
        }
    }
    lines
}

#[test]
fn a_test_that_hangs_reports_what_its_processes_do() {
    let folder = Folder::new();
    let mut child =
        Command::new("sleep").arg("60").env("PROCESSION_TESTS_FOLDER", folder.root()).spawn().unwrap();
    let line = format!("{0}/{0} sleep: S ", child.id());
    until("it sleeps", || doing(&folder).starts_with(&line));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(doing(&folder), "");
}

pub(super) fn processes_of(folder: &Folder) -> Vec<String> {
    // To the end of the variable: the first folder's path is the beginning of the tenth's.
    let mark = &[folder.root().as_os_str().as_encoded_bytes(), b"\0"].concat()[..];
    let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
    all.filter_map(Result::ok)
        .filter(|entry| entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit))
        .filter(|entry| {
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            environment.windows(mark.len()).any(|window| window == mark)
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
