//! The code that the macros refuse, with message and position, and the code that compiles under the strictest lints.
//!
//! The first of these to run builds procession for the compiler's checks; each file takes a second or two after that.

use std::{process::Command, sync::Mutex};

/// The compiler whose words `rustc/` records: those of other releases differ, and so do the types that they list.
const RECORDED: &str = "rustc 1.95.";

/// trybuild works in one folder, whatever it tries.
static TURN: Mutex<()> = Mutex::new(());

fn one_by_one(tries: impl FnOnce(&trybuild::TestCases)) {
    let _turn = TURN.lock();
    let cases = trybuild::TestCases::new();
    tries(&cases);
    // It tries them when it is dropped.
    drop(cases);
}

#[test]
fn correct_code_compiles_under_the_strictest_lints() {
    one_by_one(|cases| cases.pass("pass/*.rs"));
}

#[test]
fn errors_point_at_the_users_tokens_and_say_what_to_write() {
    one_by_one(|cases| cases.compile_fail("fail/*.rs"));
}

#[expect(clippy::print_stdout, reason = "what is not tried is named")]
fn check_recorded_messages(file: &str) {
    let version =
        Command::new("rustc").arg("--version").output().expect("rustc runs, for it built this test");
    if String::from_utf8_lossy(&version.stdout).starts_with(RECORDED) {
        one_by_one(|cases| cases.compile_fail(format!("rustc/{file}.rs")));
    } else {
        println!(
            "what the compiler says of tests/ui/rustc/{file}.rs is recorded for {RECORDED}, and this is another"
        );
    }
}

#[test]
fn a_call_that_cannot_be_is_an_error_at_the_call() {
    check_recorded_messages("calls");
}

#[test]
fn a_function_that_is_no_worker_is_an_error_that_the_documentation_of_delayed_explains() {
    check_recorded_messages("no_worker");
}

#[test]
fn an_argument_that_is_no_task_is_an_error_that_says_to_wrap_the_call() {
    check_recorded_messages("tasks");
}

#[test]
fn a_setting_of_the_wrong_type_is_an_error_at_its_value() {
    check_recorded_messages("settings");
}

#[test]
fn a_type_that_does_not_cross_is_one_error_of_our_own_at_the_type() {
    check_recorded_messages("types");
}

#[test]
fn what_cannot_be_lent_to_a_worker_is_an_error_at_the_argument() {
    check_recorded_messages("lent");
}

#[test]
fn what_is_lent_cannot_be_lent_again_or_accessed_meanwhile() {
    check_recorded_messages("lent_twice");
}

#[test]
fn a_question_mark_on_an_error_that_a_task_cannot_become_is_an_error_that_says_what_to_write() {
    check_recorded_messages("question");
}

#[test]
fn a_call_with_a_value_to_be_filled_in_is_no_task_and_fits_the_value() {
    check_recorded_messages("updates");
}
