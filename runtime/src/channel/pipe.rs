//! Defines [`Pipe`], two channels in opposite directions.

use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

#[cfg(feature = "futures")]
use super::ReceiverStream;
use super::{
    Receiver, RecvError, RecvTimeoutError, SendError, SendTimeoutError, Sender, TryRecvError, TrySendError,
    channel,
};
use crate::error::Result;

/// The number of messages for which there is room in each direction.
const CAPACITY: usize = 64;

/// One side of a [`pipe`](crate::pipe()): sends `A` and receives `B`.
///
/// A `Pipe` can be an argument, a message and a part of other values.
///
/// # Examples
///
/// ```
/// use procession::{Pipe, Process, delayed, pipe, worker};
///
/// #[worker]
/// fn measure(pipe: Pipe<usize, String>) {
///     while let Ok(text) = pipe.recv() {
///         pipe.send(text.len()).expect("the caller receives");
///     }
/// }
///
/// let (here, there) = pipe::<String, usize>()?;
/// let mut process = Process::spawn(delayed!(measure(there)))?;
/// here.send("four".to_owned()).unwrap();
/// assert_eq!(here.recv().unwrap(), 4);
/// drop(here);
/// process.join()?;
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Pipe<A, B> {
    sender: Sender<A>,
    receiver: Receiver<B>,
}

/// Makes two channels in opposite directions, with room for 64 messages in each. One side sends `A` and receives `B`, and the other side
/// sends `B` and receives `A`.
///
/// # Errors
///
/// Memory cannot be shared here, or there is not enough.
///
/// # Examples
///
/// ```
/// let (here, there) = procession::pipe::<u32, String>()?;
/// here.send(7).unwrap();
/// there.send(there.recv().unwrap().to_string()).unwrap();
/// assert_eq!(here.recv().unwrap(), "7");
/// # Ok::<(), procession::Error>(())
/// ```
pub fn pipe<A, B>() -> Result<(Pipe<A, B>, Pipe<B, A>)>
where
    A: Serialize + DeserializeOwned + 'static,
    B: Serialize + DeserializeOwned + 'static,
{
    let ((to_there, from_here), (to_here, from_there)) = (channel(CAPACITY)?, channel(CAPACITY)?);
    Ok((Pipe { sender: to_there, receiver: from_there }, Pipe { sender: to_here, receiver: from_here }))
}

impl<A, B> Pipe<A, B> {
    /// Returns the two ends of this side.
    #[must_use]
    pub fn split(self) -> (Sender<A>, Receiver<B>) {
        (self.sender, self.receiver)
    }
}

impl<A: Serialize + 'static, B> Pipe<A, B> {
    /// Sends a message: see [`Sender::send`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn send(&self, message: A) -> Result<(), SendError<A>> {
        self.sender.send(message)
    }

    /// Sends a message without blocking the thread: see [`Sender::send_async`].
    ///
    /// # Errors
    ///
    /// As there.
    #[cfg(feature = "futures")]
    pub async fn send_async(&self, message: A) -> Result<(), SendError<A>> {
        self.sender.send_async(message).await
    }

    /// Sends a message if there is room: see [`Sender::try_send`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_send(&self, message: A) -> Result<(), TrySendError<A>> {
        self.sender.try_send(message)
    }

    /// Sends a message, and waits at most this long for room: see [`Sender::send_timeout`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn send_timeout(&self, message: A, timeout: Duration) -> Result<(), SendTimeoutError<A>> {
        self.sender.send_timeout(message, timeout)
    }
}

impl<A, B: DeserializeOwned + 'static> Pipe<A, B> {
    /// Receives a message: see [`Receiver::recv`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn recv(&self) -> Result<B, RecvError> {
        self.receiver.recv()
    }

    /// Receives a message without blocking the thread: see [`Receiver::recv_async`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Examples
    ///
    /// ```
    /// # pollster::block_on(async {
    /// let (here, there) = procession::pipe::<u32, String>()?;
    /// here.send_async(7).await.unwrap();
    /// there.send_async(there.recv_async().await.unwrap().to_string()).await.unwrap();
    /// assert_eq!(here.recv_async().await.unwrap(), "7");
    /// # Ok::<(), procession::Error>(())
    /// # })?;
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[cfg(feature = "futures")]
    pub async fn recv_async(&self) -> Result<B, RecvError> {
        self.receiver.recv_async().await
    }

    /// Returns a stream of the messages that this side receives: see [`Receiver::stream`].
    ///
    /// # Panics
    ///
    /// As there.
    #[cfg(feature = "futures")]
    pub fn stream(&self) -> ReceiverStream<B> {
        self.receiver.stream()
    }

    /// Receives a message if there is one: see [`Receiver::try_recv`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_recv(&self) -> Result<B, TryRecvError> {
        self.receiver.try_recv()
    }

    /// Receives a message, and waits at most this long for one: see [`Receiver::recv_timeout`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<B, RecvTimeoutError> {
        self.receiver.recv_timeout(timeout)
    }
}

impl<A, B> Clone for Pipe<A, B> {
    /// Returns another handle of the same side.
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), receiver: self.receiver.clone() }
    }
}
