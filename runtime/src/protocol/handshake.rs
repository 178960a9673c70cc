//! The messages of the handshake and the version of the protocol.
//!
//! The host sends [`Hello`] as the first frame, and the worker answers [`Ready`] or [`Refused`]. Before them goes the preamble
//! (`preamble.rs`), which is not a frame.

use serde::{Deserialize, Serialize};

use crate::{id::WorkerId, registry};

/// The version of the protocol. It changes whenever a byte of the protocol does.
pub(crate) const VERSION: u32 = 7;

/// The first message of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: u32,
    pub(crate) build_id: u64,
    /// The worker's place in its pool.
    pub(crate) worker: u32,
    pub(crate) setup: WorkerSetup,
    /// The most verbose level of records that the host wants, numbered like `log::LevelFilter`.
    pub(crate) log_level: u8,
}

impl Hello {
    /// Returns the hello of this program to a worker.
    pub(crate) fn new(worker: WorkerId, setup: WorkerSetup, log_level: u8) -> Self {
        Self { version: VERSION, build_id: registry::build_id(), worker: worker.0, setup, log_level }
    }
}

/// The settings that a worker applies to itself before it is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkerSetup {
    /// The working folder. `None` keeps the one in which the worker starts.
    pub(crate) folder: Option<Folder>,
    /// Added to the worker's niceness.
    pub(crate) nice: Option<i32>,
    /// The only CPU on which the worker runs.
    pub(crate) cpu: Option<u32>,
    /// The name of the process. `None` means the program's name.
    pub(crate) title: Option<Vec<u8>>,
    /// The memory that the worker may have in addition to what it has when it starts, in bytes.
    pub(crate) memory_limit: Option<u64>,
}

/// A working folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Folder {
    /// The bytes of its path.
    pub(crate) path: Vec<u8>,
    /// The device and inode of the folder, if a process that is already in it need not enter it by its path.
    pub(crate) id: Option<(u64, u64)>,
}

/// The worker is ready for tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) version: u32,
    pub(crate) build_id: u64,
    pub(crate) pid: u32,
}

/// The worker does not serve, for this reason, and ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refused {
    pub(crate) reason: String,
    /// The system is short of something and may have more later.
    pub(crate) is_short: bool,
}

impl From<String> for Refused {
    fn from(reason: String) -> Self {
        Self { reason, is_short: false }
    }
}

impl From<&str> for Refused {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::{
        preamble::{PREAMBLE_BYTES, Preamble, StreamTarget},
        template::{Prepared, REPORT_BYTES, TemplateReport},
    };

    #[test]
    fn the_answer_of_a_template_is_decoded_once_it_is_complete() {
        let said = Prepared::Failed("out of corn".to_owned());
        let bytes = said.to_bytes();
        for n in 0..bytes.len() {
            assert_eq!(Prepared::from_bytes(&bytes[..n]), Ok(None), "{n}");
        }
        assert_eq!(Prepared::from_bytes(&bytes), Ok(Some(said)));
        assert!(Prepared::from_bytes(&[1, 0, 0, 0, 99]).is_err());
    }

    #[test]
    fn a_preamble_comes_back_as_it_was_made() {
        for stdout in StreamTarget::ALL {
            for stderr in StreamTarget::ALL {
                let preamble = Preamble { token: 0xfeed, rings: stdout == stderr, targets: [stdout, stderr] };
                assert_eq!(Preamble::from_bytes(preamble.to_bytes()), Some(preamble));
            }
        }
        assert_eq!(Preamble::from_bytes([0; PREAMBLE_BYTES]), None);
    }

    #[test]
    fn a_report_comes_back_as_it_was_made() {
        for report in [
            TemplateReport::Forked(u32::MAX),
            TemplateReport::NotForked(11),
            TemplateReport::Exited(-1),
            TemplateReport::Signaled(9),
            TemplateReport::Vanished,
            TemplateReport::Untold,
        ] {
            assert_eq!(TemplateReport::from_bytes(report.to_bytes()), Some(report));
        }
        assert_eq!(TemplateReport::from_bytes([0; REPORT_BYTES]), None);
    }
}
