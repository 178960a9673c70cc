//! The tasks of a [`FakeWorker`](super::FakeWorker).

/// A task as a worker sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FakeTask {
    pub(crate) seq: u32,
    pub(crate) number: u64,
    pub(crate) function: u32,
    pub(crate) args: Vec<u8>,
    /// The first task of its request.
    pub(super) request: u32,
    pub(super) rings: Rings,
    /// The number of tasks of its request, if it is the last of one whose waits the host wants to know.
    pub(super) counted: Option<u32>,
}

/// The tasks after which a worker wakes its host, as in `worker/replies.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rings {
    Always,
    /// The middle one of a patient request, if no other request follows, and the last.
    BeforeRest,
    /// The last one, if no other request follows.
    AtRest,
}
