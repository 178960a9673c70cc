//! Lists the regular files of a folder, each once and only as they are requested.

use std::{
    collections::HashSet,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// An iterator over the regular files under a folder, in the order of their names, each inode once.
///
/// Links to files are followed, and links to folders are not, except for the given folder. If a folder cannot be listed, or a link is broken,
/// the item is an error with the path, and the iteration continues.
#[derive(Debug)]
pub struct Files {
    /// The entries that are yet to be visited, the next one last.
    pending: Vec<PathBuf>,
    /// The device and inode of every entry that was visited.
    seen: HashSet<(u64, u64)>,
}

impl Files {
    /// Starts with `folder`.
    ///
    /// # Errors
    ///
    /// It is not a folder, or it cannot be listed.
    pub fn under(folder: &Path) -> io::Result<Self> {
        let mut files = Self { pending: Vec::new(), seen: HashSet::new() };
        files.is_new(&fs::metadata(folder)?);
        files.open(folder)?;
        Ok(files)
    }

    /// Puts the entries of `folder` before all others.
    fn open(&mut self, folder: &Path) -> io::Result<()> {
        let mut entries = fs::read_dir(folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?;
        entries.sort_unstable_by(|a, b| b.cmp(a));
        self.pending.append(&mut entries);
        Ok(())
    }

    fn is_new(&mut self, metadata: &Metadata) -> bool {
        self.seen.insert((metadata.dev(), metadata.ino()))
    }

    /// Returns whether `path` is the next file to return. Opens folders on the way.
    fn visit(&mut self, path: &Path) -> io::Result<bool> {
        let mut metadata = fs::symlink_metadata(path)?;
        if metadata.is_dir() {
            if self.is_new(&metadata) {
                self.open(path)?;
            }
            return Ok(false);
        }
        if metadata.is_symlink() {
            metadata = fs::metadata(path)?;
        }
        Ok(metadata.is_file() && self.is_new(&metadata))
    }
}

impl Iterator for Files {
    type Item = Result<PathBuf, (PathBuf, io::Error)>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(path) = self.pending.pop() {
            match self.visit(&path) {
                Ok(true) => return Some(Ok(path)),
                Ok(false) => {}
                Err(error) => return Some(Err((path, error))),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder for one test, which is removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("procession-{name}-{}", std::process::id()));
            fs::create_dir(&path).expect("a folder of the test's own");
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn each_file_comes_once_and_in_order() {
        let scratch = Scratch::new("walk");
        let root = &scratch.0;
        fs::create_dir(root.join("b")).unwrap();
        fs::write(root.join("b/2"), "two").unwrap();
        fs::write(root.join("a"), "one").unwrap();
        fs::hard_link(root.join("a"), root.join("c")).unwrap();
        symlink("a", root.join("d")).unwrap();
        symlink(root, root.join("e")).unwrap();
        symlink("nowhere", root.join("f")).unwrap();

        let (found, failed): (Vec<_>, Vec<_>) = Files::under(root).unwrap().partition(Result::is_ok);

        let found: Vec<PathBuf> = found.into_iter().map(Result::unwrap).collect();
        assert_eq!(found, [root.join("a"), root.join("b/2")]);
        let failed: Vec<PathBuf> = failed.into_iter().map(|item| item.unwrap_err().0).collect();
        assert_eq!(failed, [root.join("f")]);
    }

    #[test]
    fn a_folder_that_is_none_is_an_error() {
        let error = Files::under(Path::new("/dev/null")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
        let error = Files::under(Path::new("/dev/null/none")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
    }
}
