//! Channels between processes: [`channel`], its two kinds of ends, and their errors.
//!
//! Messages lie in slots in memory that all participants map (`segment`'s state). Those that have no room there, or contain handles, go
//! through a pair of sockets. `README.md` argues why a participant may die at any step.

#[cfg(feature = "futures")]
mod awaited;
mod bell;
mod encode;
mod end;
mod error;
mod held;
mod memory;
#[cfg(all(test, loom))]
mod models;
mod pair;
mod pipe;
mod receiver;
mod sender;
mod slots;
#[cfg(all(test, not(loom)))]
mod tests;

use serde::{Serialize, de::DeserializeOwned};

pub use error::{RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError};
pub use pipe::{Pipe, pipe};
#[cfg(feature = "futures")]
pub use receiver::ReceiverStream;
pub use receiver::{IntoIter, Iter, Receiver, TryIter};
pub use sender::Sender;

use crate::{
    error::{Error, Result},
    segment::digest,
};
use end::End;
use memory::{Layout, MOST_MESSAGES};

/// Makes a channel with room for `capacity` messages, for any number of senders and receivers in any processes.
///
/// Both ends are `Clone`, and can be arguments and parts of other values. Messages of one sender are received in the order in which
/// they were sent. Sending waits while there is no room.
///
/// Messages can be of any length, and can contain ends of channels, [`Shared`](crate::Shared) values, files and other handles. The first message
/// that is longer than a few hundred bytes (or 4 KiB, if there is room for few), or contains a handle, makes the channel slower from then
/// on: some microseconds per message.
///
/// # Errors
///
/// The capacity is 0 or more than 16 million, memory cannot be shared here, or there is not enough.
///
/// # Examples
///
/// ```
/// let (tx, rx) = procession::channel(8)?;
/// tx.send(3.5).unwrap();
/// assert_eq!(rx.recv().unwrap(), 3.5);
/// # Ok::<(), procession::Error>(())
/// ```
pub fn channel<T: Serialize + DeserializeOwned + 'static>(
    capacity: usize,
) -> Result<(Sender<T>, Receiver<T>)> {
    if !(1..=MOST_MESSAGES).contains(&capacity) {
        return Err(Error::config(format!(
            "a channel with room for {capacity} messages: it can have room for 1 to {MOST_MESSAGES}"
        )));
    }
    let layout = Layout::new(capacity, likely_bytes::<T>(capacity));
    // Other messages are plain data, which has room and cannot contain handles.
    let has_socket = std::mem::needs_drop::<T>();
    let (sender, receiver) = End::pair(digest::<fn(&T)>(), layout, has_socket)
        .map_err(|error| Error::system("memory for a channel cannot be made", error))?;
    Ok((Sender::new(sender), Receiver::new(receiver)))
}

/// Returns how many bytes a message is likely to have at most, if that is not too much for all slots.
fn likely_bytes<T>(capacity: usize) -> usize {
    /// All slots together may have this size, although a few bytes in each would suffice.
    const FREELY_BYTES: usize = 1 << 20;
    /// The length of text and lists that are not called long.
    const SHORT_BYTES: usize = 240;
    const LONG_BYTES: usize = 4096;
    // Numbers of more than a byte are encoded in up to a quarter more bytes. Plain types that are encoded as text (dates and times, as
    // those of chrono and jiff) take up to three times their size. Others have no room in a channel without a socket.
    let own = 3 * size_of::<T>() + 16;
    if std::mem::needs_drop::<T>() {
        own + (FREELY_BYTES / capacity).clamp(SHORT_BYTES, LONG_BYTES)
    } else {
        own
    }
}
