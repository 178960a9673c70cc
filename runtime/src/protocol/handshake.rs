//! What host and worker say before the first task.
//!
//! The preamble travels with the board's descriptor, before any frame: it proves that the inherited descriptor is the host's. Then
//! the host says [`Hello`], and the worker answers [`Ready`] or [`Refused`].

use serde::{Deserialize, Serialize};

/// Changes whenever a byte of the protocol does.
pub(crate) const VERSION: u32 = 5;

/// The host's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: u32,
    pub(crate) build_id: u64,
    /// The worker's place in its pool.
    pub(crate) worker: u32,
    pub(crate) station: Station,
    /// The most verbose level of records that the host wants, as `log::LevelFilter` counts them.
    pub(crate) log_level: u8,
}

/// What a worker makes of itself before it is ready: each is done in the new process, once it is the worker's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Station {
    /// The folder to work in; none: the one that it begins in.
    pub(crate) folder: Option<Folder>,
    /// To be added to its niceness.
    pub(crate) nice: Option<i32>,
    /// The CPU to run on, and on no other.
    pub(crate) cpu: Option<u32>,
    /// The process's name; none: the program's.
    pub(crate) title: Option<Vec<u8>>,
    /// How many bytes of memory it may have on top of what it begins with.
    pub(crate) memory: Option<u64>,
}

/// A folder to work in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Folder {
    /// The bytes of its path.
    pub(crate) path: Vec<u8>,
    /// Its device and inode, if it need not be entered by its path where the process is in it already.
    pub(crate) id: Option<(u64, u64)>,
}

/// The worker is ready for tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) version: u32,
    pub(crate) build_id: u64,
    pub(crate) pid: u32,
}

/// The worker will not serve, for this reason, and ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refused {
    pub(crate) reason: String,
    /// The system is short of something, of which it may have more later.
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
        preamble::{PREAMBLE_BYTES, Preamble, Sink},
        template::{Prepared, REPORT_BYTES, Report},
    };

    #[test]
    fn what_a_template_says_is_understood_once_it_is_whole() {
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
        for stdout in Sink::ALL {
            for stderr in Sink::ALL {
                let preamble = Preamble { token: 0xfeed, rings: stdout == stderr, sinks: [stdout, stderr] };
                assert_eq!(Preamble::from_bytes(preamble.to_bytes()), Some(preamble));
            }
        }
        assert_eq!(Preamble::from_bytes([0; PREAMBLE_BYTES]), None);
    }

    #[test]
    fn a_report_comes_back_as_it_was_made() {
        for report in [
            Report::Forked(u32::MAX),
            Report::NotForked(11),
            Report::Exited(-1),
            Report::Signaled(9),
            Report::Vanished,
            Report::Untold,
        ] {
            assert_eq!(Report::from_bytes(report.to_bytes()), Some(report));
        }
        assert_eq!(Report::from_bytes([0; REPORT_BYTES]), None);
    }
}
