//! A stream of frames over any [`Sink`] and [`Source`] of bytes: a [`Prefix`](crate::frame::Prefix), then the frame.
//!
//! A frame of any length is sent in pieces, as there is room. The receiver allocates memory as bytes arrive, and never because of a
//! length alone.

mod receiver;
mod sender;

use std::{error::Error, io};

pub(super) use receiver::{Found, FramedReceiver, Read, Source};
pub(super) use sender::{FramedSender, Sink};

/// Returns the error of a peer that does not keep to the protocol.
pub(super) fn broken(why: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
