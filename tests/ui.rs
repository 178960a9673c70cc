//! What the macros refuse, with the words and on whose tokens; and what compiles under the strictest lints.

use std::process::Command;

/// The compiler whose words `ui/rustc` records: those of other releases differ, and so do the types that they list.
const RECORDED: &str = "rustc 1.95.";

#[test]
fn refusals_land_on_the_users_tokens_and_the_rest_compiles() {
    let cases = trybuild::TestCases::new();
    cases.pass("ui/pass/*.rs");
    cases.compile_fail("ui/fail/*.rs");
    let version =
        Command::new("rustc").arg("--version").output().expect("rustc runs, for it built this test");
    if String::from_utf8_lossy(&version.stdout).starts_with(RECORDED) {
        cases.compile_fail("ui/rustc/*.rs");
    }
}
