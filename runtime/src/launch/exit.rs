//! The end of a worker's process.

use crate::{error::Exit, sys::child::Ended};

/// Converts the end of a process to an [`Exit`], or to the reason why it is not known.
pub(super) fn exit(ended: Ended) -> Result<Exit, &'static str> {
    match ended {
        Ended::Code(code) => Ok(Exit::from_code(code)),
        Ended::Signal(signal) => Ok(Exit::from_signal(signal)),
        Ended::Unknown => Err(COLLECTED),
        Ended::Untold => Err(UNTOLD),
    }
}

/// The reason if other code has collected the exit status of a child.
pub(super) const COLLECTED: &str = "other code in this process collected its exit status (SIGCHLD is ignored, or \
                                    something calls `waitpid(-1)`)";

/// The reason if user code has closed descriptors of a worker or of a template.
pub(crate) const CLOSED_WITHIN: &str = "descriptors that procession uses were closed in its process (by `closefrom`, for example); a \
     function may close only what it has opened itself";

/// The reason if the kernel refuses to report the exit status.
pub(super) const UNTOLD: &str =
    "its exit status cannot be read (waitid failed): does a sandbox (seccomp) forbid that?";
