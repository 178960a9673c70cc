//! Two versions of procession in one program, and a program with slices of its own that are called as ours are.
//!
//! The other version is a copy of the sources under another name and version. Copy and programs are a workspace in the folder that cargo
//! gives tests. They are built in the target folder of this build, so that what they depend on is there already.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::program::{PATIENCE, Running, unique};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// No identifier and no variable may have all of these characters.
const OTHER_VERSION: &str = "9.9.9-rc.1";

#[test]
fn two_versions_in_one_program_work_side_by_side_and_in_each_other() {
    check("two_versions", "both versions are at work\n");
}

#[test]
fn one_of_two_versions_may_enter_at_main_and_the_other_before_it() {
    check("two_versions_at_main", "both versions are at work\n");
}

#[test]
fn a_programs_own_slices_that_are_called_as_ours_are_do_no_harm() {
    check("own_slices", "the program's slices are its own\n");
}

#[test]
fn cargo_refuses_two_packages_of_one_version() {
    let links = format!("links = \"procession-{VERSION}\"\n");
    let manifest = |package: &str| fs::read_to_string(format!("{ROOT}/{package}/Cargo.toml")).unwrap();
    assert!(manifest("runtime").contains(&links), "the key is to name the version, {VERSION}");

    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("one-version");
    for package in ["runtime", "macros"] {
        write(&folder.join(package).join("Cargo.toml"), manifest(package).as_bytes());
        write(&folder.join(package).join("src/lib.rs"), b"");
    }
    write(&folder.join("runtime/build.rs"), b"fn main() {}");
    let root = fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).unwrap();
    let members = root.lines().find(|line| line.starts_with("members = ")).unwrap();
    let root = root.replace(members, r#"members = ["both", "macros", "runtime"]"#);
    write(&folder.join("Cargo.toml"), root.as_bytes());
    let both = format!(
        "[package]\nname = \"both\"\n\n[dependencies]\nprocession = {{ path = \"{ROOT}/runtime\" }}\n\
         again = {{ package = \"procession\", path = \"../runtime\" }}\n"
    );
    write(&folder.join("both/Cargo.toml"), both.as_bytes());
    write(&folder.join("both/src/lib.rs"), b"");
    let refused = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--package", "both"])
        .current_dir(&folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains(&format!("links to `procession-{VERSION}`")),
        "{said}"
    );
}

fn check(program: &str, wanted: &str) {
    let said = Running::start(&mut Command::new(programs().join(program))).end(PATIENCE).quietly();
    assert_eq!(said, wanted);
}

/// The folder of the programs, which are built.
fn programs() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let workspace = Path::new(env!("CARGO_TARGET_TMPDIR")).join("versions");
        lay(&workspace);
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let built = Command::new(env!("CARGO"))
            .args(["build", "--offline", "--package", "programs", "--target-dir"])
            .arg(target)
            .current_dir(&workspace)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "{said}");
        target.join("debug")
    })
}

/// The workspace: a copy of procession and its macros, and the programs.
fn lay(workspace: &Path) {
    for package in ["runtime", "macros"] {
        let (from, to) = (Path::new(ROOT).join(package), workspace.join(package));
        remove_gone(&from, &to);
        copy(&from, &to);
    }
    let manifest = fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).unwrap();
    let members = manifest.lines().find(|line| line.starts_with("members = ")).unwrap();
    write(
        &workspace.join("Cargo.toml"),
        renamed(&manifest).replace(members, r#"members = ["macros", "programs", "runtime"]"#).as_bytes(),
    );
    write(&workspace.join("Cargo.lock"), &fs::read(Path::new(ROOT).join("Cargo.lock")).unwrap());
    write(&workspace.join("programs/Cargo.toml"), programs_manifest().as_bytes());
}

fn programs_manifest() -> String {
    let program = |name: &str, file: &str| {
        format!("[[bin]]\nname = {name:?}\npath = \"{ROOT}/tests/versions/{file}.rs\"\n")
    };
    format!(
        "[package]\nname = \"programs\"\nedition.workspace = true\n\n\
         [dependencies]\nlinkme.workspace = true\nprocession = {{ path = \"{ROOT}/runtime\" }}\n\
         twin = {{ package = \"procession-twin\", path = \"../runtime\" }}\n\n{}{}{}",
        program("two_versions", "main"),
        program("two_versions_at_main", "main_at_main"),
        program("own_slices", "own_slices"),
    )
}

/// A manifest of procession's, as that of the copy.
fn renamed(manifest: &str) -> String {
    let mut copy = String::new();
    for line in manifest.lines() {
        let mut line = line.replace(VERSION, OTHER_VERSION);
        for (name, other) in
            [("procession", "procession-twin"), ("procession-macros", "procession-twin-macros")]
        {
            line = match line.strip_prefix(&format!("{name} = {{ ")) {
                Some(rest) => format!("{name} = {{ package = \"{other}\", {rest}"),
                None if line == format!("name = {name:?}") => format!("name = {other:?}"),
                None => line,
            };
        }
        copy.extend([&line, "\n"]);
    }
    copy
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else if entry.file_name() == "Cargo.toml" {
            write(&to, renamed(&fs::read_to_string(entry.path()).unwrap()).as_bytes());
        } else {
            write(&to, &fs::read(entry.path()).unwrap());
        }
    }
}

/// Removes files from an earlier copy that are no longer in the sources. Another process may do the same.
fn remove_gone(from: &Path, to: &Path) {
    for entry in fs::read_dir(to).into_iter().flatten().map_while(Result::ok) {
        let (from, to) = (from.join(entry.file_name()), entry.path());
        match (from.exists(), to.is_dir()) {
            (true, true) => remove_gone(&from, &to),
            (true, false) => {}
            (false, true) => drop(fs::remove_dir_all(&to)),
            (false, false) => drop(fs::remove_file(&to)),
        }
    }
}

/// Writes a file, if it is not there as it should be: what has not changed is not built again. Another process may do the same.
fn write(file: &Path, bytes: &[u8]) {
    if fs::read(file).is_ok_and(|there| there == bytes) {
        return;
    }
    let folder = file.parent().unwrap();
    fs::create_dir_all(folder).unwrap();
    let new = folder.join(unique());
    fs::write(&new, bytes).unwrap();
    fs::rename(&new, file).unwrap();
}
