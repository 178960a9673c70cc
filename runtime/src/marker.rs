//! The marker: the environment variable that tells a process that it is a worker or a template. `launch` writes it, and `worker`
//! reads and removes it. Also defines the exit codes of workers.

use std::{ffi::CStr, fmt};

use procession_macros::own_name;

/// The variable that tells a process that it is a worker. It holds a descriptor, a token and the nesting depth.
///
/// Its name contains the package and its version, so in a program with two versions each recognizes its own workers.
pub(crate) const MARKER: &str = own_name!(WORKER);

/// The same as a C string.
pub(crate) const MARKER_CSTR: &CStr =
    match CStr::from_bytes_with_nul(concat!(own_name!(WORKER), "\0").as_bytes()) {
        Ok(name) => name,
        Err(_) => panic!("the name has one zero, at its end"),
    };

/// The variable that counts the nesting depth of a process. It stays in a worker's environment, so that a program that starts
/// itself again from a worker is counted, too.
///
/// All versions of the package use it, so workers that start workers of another version are limited, too.
pub(crate) const DEPTH: &str = "PROCESSION_DEPTH";

/// Deeper than any program nests pools on purpose. A program that starts itself from its own workers is stopped here.
pub(crate) const MOST_DEPTH: u32 = 8;

/// The descriptor on which a worker finds its connection.
pub(crate) const SOCKET_FD: i32 = 3;

/// The exit code of a worker that could not start. It has told its host the reason, or has printed it to stderr.
pub(crate) const START_FAILED: i32 = 86;
/// The exit code of a worker whose connection to its host has ended.
pub(crate) const HOST_GONE: i32 = 87;
/// The exit code of a worker that refused its host, or was refused.
pub(crate) const HANDSHAKE_FAILED: i32 = 88;
/// The exit code of a worker that cannot read what its host sends. It has told its host the reason.
pub(crate) const PROTOCOL_BROKEN: i32 = 89;
/// The exit code of a worker or a template in which user code has closed descriptors that it needs.
pub(crate) const DESCRIPTORS_CLOSED: i32 = 91;

/// Returns what this exit code means for a process that had not become a worker yet, as words that follow its name.
pub(crate) fn meaning_at_start(code: i32) -> Option<&'static str> {
    match code {
        START_FAILED => Some("could not become a worker and wrote the reason to stderr"),
        HOST_GONE => Some("found its connection closed while starting"),
        HANDSHAKE_FAILED => Some("refused to serve"),
        PROTOCOL_BROKEN => Some("could not read what this process sent"),
        _ => None,
    }
}

/// The role of a marked process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Worker,
    /// The process from which workers are forked.
    Template,
}

/// The end of a template's marker. A worker's marker has nothing there.
const TEMPLATE: &str = "template";

/// The value of the marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) role: Role,
    pub(crate) fd: i32,
    pub(crate) token: u64,
    pub(crate) depth: u32,
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:x}:{}", self.fd, self.token, self.depth)?;
        match self.role {
            Role::Worker => Ok(()),
            Role::Template => write!(f, ":{TEMPLATE}"),
        }
    }
}

impl Marker {
    pub(crate) fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split(':');
        let fd = parts.next()?.parse().ok()?;
        let token = u64::from_str_radix(parts.next()?, 16).ok()?;
        let depth = parts.next()?.parse().ok()?;
        let role = match parts.next() {
            None => Role::Worker,
            Some(TEMPLATE) => Role::Template,
            Some(_) => return None,
        };
        parts.next().is_none().then_some(Self { role, fd, token, depth })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_comes_back_as_it_was_written() {
        for role in [Role::Worker, Role::Template] {
            let marker = Marker { role, fd: 3, token: 0xfeed, depth: 2 };
            assert_eq!(Marker::parse(&marker.to_string()), Some(marker));
        }
        for bad in ["", "3", "3:feed", "3:xyz:1", "3:feed:1:9", "a:1:1", "3:feed:1:template:1"] {
            assert_eq!(Marker::parse(bad), None, "{bad}");
        }
    }
}
