//! A folder for one test, through which its processes communicate.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// A folder that goes with its test.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("integration-{pid}-{count}"));
        fs::create_dir_all(&path).expect("a folder among the build's own");
        Self(path)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Adds a line to a file that several processes add to.
pub(crate) fn append(path: &Path, line: impl std::fmt::Display) {
    let mut file = fs::OpenOptions::new().append(true).create(true).open(path).expect("a file of the test's");
    file.write_all(format!("{line}\n").as_bytes()).expect("room for a line");
}

/// Returns whether this is the first call with this path, even if others call at the same time.
pub(crate) fn is_first(path: &Path) -> bool {
    fs::File::create_new(path).is_ok()
}

/// The numbers that were added, sorted.
pub(crate) fn numbers(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut numbers: Vec<u64> = text.lines().map(|line| line.parse().expect("a number a line")).collect();
    numbers.sort_unstable();
    numbers
}
