//! The published packages, and the systems that they support.

use std::{path::Path, process::Command};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn output(command: &mut Command) -> String {
    let output = command.output().expect("the command runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn both_packages_bring_licenses_changelog_and_readme() {
    for package in ["procession", "procession-macros"] {
        let list = output(
            Command::new(env!("CARGO"))
                .args(["package", "--offline", "--allow-dirty", "--list", "--package", package])
                .current_dir(ROOT),
        );
        for file in ["CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "README.md"] {
            assert!(list.lines().any(|line| line == file), "{package} comes without {file}: {list}");
        }
    }
}

#[test]
fn another_system_is_refused_in_one_sentence() {
    let script = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("build-script-{}", std::process::id()));
    output(
        Command::new("rustc")
            .arg("--edition=2024")
            .arg("-o")
            .arg(&script)
            .arg(format!("{ROOT}/runtime/build.rs")),
    );
    let errors = |system: &str| {
        let said = output(Command::new(&script).env("CARGO_CFG_TARGET_OS", system));
        said.lines()
            .filter_map(|line| line.strip_prefix("cargo::error="))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(errors("linux"), [""; 0]);
    assert_eq!(errors("macos"), ["procession runs on Linux only, and this build is for `macos`"]);
    std::fs::remove_file(script).expect("it was there");
}
