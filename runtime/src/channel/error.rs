//! The errors of sending and receiving. Those of sending return the message.

use std::fmt;

use super::slots::Refusal;
use crate::error::Error;

/// Why an end could not send or receive.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no room or no message, and the time is up.
    NotNow,
    /// Another participant is at it. There may be a message.
    Busy,
    Disconnected,
    Failed(Error),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotNow => Self::NotNow,
            Refusal::Closed => Self::Disconnected,
        }
    }
}

/// Defines an error of sending, with the words of each variant.
macro_rules! send_errors {
    ($($(#[$doc:meta])* $name:ident { $($(#[$what:meta])* $variant:ident: $words:literal,)* })*) => {$(
        $(#[$doc])*
        #[non_exhaustive]
        pub enum $name<T> {
            $($(#[$what])* $variant(T),)*
            /// There is no receiver any more, and there will be none.
            Disconnected(T),
            /// The message cannot be sent: it cannot be encoded, or the system refuses what it needs.
            Failed(T, Error),
        }

        impl<T> $name<T> {
            /// Returns the message.
            pub fn into_inner(self) -> T {
                match self {
                    $(Self::$variant(message) |)* Self::Disconnected(message) | Self::Failed(message, _) => message,
                }
            }

            /// Returns whether there is no receiver any more.
            pub fn is_disconnected(&self) -> bool {
                matches!(self, Self::Disconnected(_))
            }
        }

        impl<T> fmt::Display for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant(_) => f.write_str($words),)*
                    Self::Disconnected(_) => f.write_str("the channel has no receiver any more"),
                    Self::Failed(_, error) => error.fmt(f),
                }
            }
        }

        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl<T> std::error::Error for $name<T> {}
    )*};
}

send_errors! {
    /// Why [`Sender::send`](crate::Sender::send) failed. Returns the message.
    SendError {}
    /// Why [`Sender::try_send`](crate::Sender::try_send) failed. Returns the message.
    TrySendError {
        /// There is no room now.
        Full: "the channel is full",
    }
    /// Why [`Sender::send_timeout`](crate::Sender::send_timeout) failed. Returns the message.
    SendTimeoutError {
        /// There was no room in time.
        Timeout: "the channel had no room in time",
    }
}

impl<T> SendError<T> {
    /// Of a sender that has waited until there was room.
    pub(super) fn new(message: T, failure: Failure) -> Self {
        match failure {
            Failure::Failed(error) => Self::Failed(message, error),
            Failure::Disconnected | Failure::NotNow | Failure::Busy => Self::Disconnected(message),
        }
    }
}

impl RecvError {
    /// Of a receiver that has waited until there was a message.
    pub(super) fn new(failure: Failure) -> Self {
        match failure {
            Failure::Failed(error) => Self::Failed(error),
            Failure::Disconnected | Failure::NotNow | Failure::Busy => Self::Disconnected,
        }
    }
}

/// Defines an error of receiving, with the words of each variant.
macro_rules! receive_errors {
    ($($(#[$doc:meta])* $name:ident { $($(#[$what:meta])* $variant:ident: $words:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$what])* $variant,)*
            /// There is no message, and no sender any more that could send one.
            Disconnected,
            /// A message cannot be decoded and is lost, or the system refuses what is needed to receive one.
            Failed(Error),
        }

        impl $name {
            /// Returns whether there is no message, and no sender any more.
            pub fn is_disconnected(&self) -> bool {
                matches!(self, Self::Disconnected)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant => f.write_str($words),)*
                    Self::Disconnected => f.write_str("the channel is empty and has no sender any more"),
                    Self::Failed(error) => error.fmt(f),
                }
            }
        }

        impl std::error::Error for $name {}
    )*};
}

receive_errors! {
    /// Why [`Receiver::recv`](crate::Receiver::recv) failed.
    RecvError {}
    /// Why [`Receiver::try_recv`](crate::Receiver::try_recv) failed.
    TryRecvError {
        /// There is no message now.
        Empty: "the channel is empty",
    }
    /// Why [`Receiver::recv_timeout`](crate::Receiver::recv_timeout) failed.
    RecvTimeoutError {
        /// There was no message in time.
        Timeout: "no message came in time",
    }
}
