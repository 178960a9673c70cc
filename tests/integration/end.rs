//! The ways in which a process can be ended from within.
#![expect(unsafe_code, reason = "a segmentation fault needs a bad write")]

use std::hint::black_box;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// The cause of the end of a worker, or, in the case of a panic, of its task only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    Panic,
    Exit,
    Abort,
    Segfault,
    Kill,
    StackOverflow,
}

pub(crate) const EXIT_CODE: i32 = 7;
pub(crate) const PANIC_WORDS: &str = "a panic, as the table of crashes asks for";

impl End {
    /// Does it.
    pub(crate) fn strike(self) -> ! {
        match self {
            Self::Panic => panic!("{PANIC_WORDS}"),
            Self::Exit => std::process::exit(EXIT_CODE),
            Self::Abort => std::process::abort(),
            Self::Segfault => {
                let nowhere = black_box(std::ptr::without_provenance_mut::<u8>(16));
                // SAFETY: none: the address is in the page that is never mapped, and the fault is what this is for.
                unsafe { nowhere.write_volatile(1) };
                unreachable!("the write faults")
            }
            Self::Kill => loop {
                let _ = kill(Pid::this(), Signal::SIGKILL);
            },
            Self::StackOverflow => {
                let depth = deepen(1);
                unreachable!("{depth} calls deep")
            }
        }
    }

    /// The exit code and the signal that the process ends with; `None` if it lives on.
    pub(crate) fn leaves(self) -> Option<(Option<i32>, Option<i32>)> {
        let signal = |signal: Signal| Some((None, Some(signal as i32)));
        match self {
            Self::Panic => None,
            Self::Exit => Some((Some(EXIT_CODE), None)),
            Self::Abort | Self::StackOverflow => signal(Signal::SIGABRT),
            Self::Segfault => signal(Signal::SIGSEGV),
            Self::Kill => signal(Signal::SIGKILL),
        }
    }

    /// Words that a person must find in the error.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Panic => PANIC_WORDS,
            Self::Exit => "exit code 7",
            Self::Abort => "SIGABRT",
            Self::Segfault => "SIGSEGV",
            Self::Kill => "SIGKILL",
            Self::StackOverflow => "stack overflow",
        }
    }
}

#[expect(unconditional_recursion, reason = "a stack overflow that the tests are about")]
fn deepen(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    deepen(depth + 1) + frame[63]
}
