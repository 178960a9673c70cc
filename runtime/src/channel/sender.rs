//! Defines [`Sender`].

use std::{fmt, marker::PhantomData, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[cfg(feature = "futures")]
use super::{awaited, encode::encode};
use super::{
    end::{End, Until},
    error::{Failure, SendError, SendTimeoutError, TrySendError},
    held::Side,
};

/// The sending end of a [`channel`](crate::channel()).
///
/// Clones send to the same channel. A `Sender` can be an argument and a part of other values, so that functions in other processes
/// send, too. When the last one is gone, wherever it was, receivers receive what is left, and then an error. A process that ends, or is
/// killed, has no ends any more.
///
/// # Examples
///
/// ```
/// use procession::{Pool, RemoteError, Sender, channel, delayed, worker};
///
/// #[worker]
/// fn count(to: u64, numbers: Sender<u64>) -> Result<(), RemoteError> {
///     for n in 0..to {
///         numbers.send(n)?;
///     }
///     Ok(())
/// }
///
/// let pool = Pool::new(2)?;
/// let (tx, rx) = channel(16)?;
/// let counting = [10, 20].map(|to| pool.submit(delayed!(count(to, tx.clone()))));
/// drop(tx);
/// // Ends when both tasks have dropped their ends.
/// assert_eq!(rx.iter().sum::<u64>(), 45 + 190);
/// # for counting in counting {
/// #     counting.join()??;
/// # }
/// # Ok::<(), procession::Error>(())
/// ```
pub struct Sender<T> {
    end: End,
    of: PhantomData<fn(T)>,
}

impl<T> Sender<T> {
    pub(super) fn new(end: End) -> Self {
        Self { end, of: PhantomData }
    }

    /// Returns the number of messages for which there is room.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.end.capacity()
    }
}

impl<T: Serialize + 'static> Sender<T> {
    /// Sends a message, and waits for room if there is none. When it returns, the message will be received even if this process dies.
    ///
    /// # Errors
    ///
    /// There is no receiver any more, or the message cannot be encoded. Returns the message.
    ///
    /// # Examples
    ///
    /// ```
    /// let (tx, rx) = procession::channel(1)?;
    /// tx.send("work".to_owned()).unwrap();
    /// assert_eq!(rx.recv().unwrap(), "work");
    /// drop(rx);
    /// assert_eq!(tx.send("more".to_owned()).unwrap_err().into_inner(), "more");
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[inline]
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        match self.end.send(&message, Until::Deadline(None)) {
            Ok(()) => Ok(()),
            Err(failure) => Err(SendError::new(message, failure)),
        }
    }

    /// Sends a message as [`send`](Self::send) does, without blocking the thread. Works with any executor.
    ///
    /// If the future is dropped before it is ready, the message was not sent.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send), or no thread can be started to wait for room. Returns the message.
    ///
    /// # Examples
    ///
    /// ```
    /// # pollster::block_on(async {
    /// let (tx, rx) = procession::channel(1)?;
    /// tx.send_async(1).await.unwrap();
    /// std::thread::spawn(move || rx.iter().for_each(drop));
    /// tx.send_async(2).await.unwrap();
    /// # Ok::<(), procession::Error>(())
    /// # })?;
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[cfg(feature = "futures")]
    pub async fn send_async(&self, message: T) -> Result<(), SendError<T>> {
        // Nothing borrows the message while the future waits, so it need not be `Sync`.
        let mut outcome = self.end.send(&message, Until::Now);
        if let Err(Failure::NotNow) = outcome {
            let mut bytes = Vec::new();
            let attachments = encode(&message, &mut bytes);
            outcome = match attachments {
                Ok(attachments) => awaited::send(&self.end, &bytes, &attachments).await,
                Err(failure) => Err(failure),
            };
        }
        outcome.map_err(|failure| SendError::new(message, failure))
    }

    /// Sends a message if there is room now.
    ///
    /// # Errors
    ///
    /// There is no room, there is no receiver any more, or the message cannot be encoded. Returns the message.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::TrySendError;
    ///
    /// let (tx, rx) = procession::channel(1)?;
    /// tx.try_send(1).unwrap();
    /// assert!(matches!(tx.try_send(2), Err(TrySendError::Full(2))));
    /// assert_eq!(rx.recv().unwrap(), 1);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        match self.end.send(&message, Until::Now) {
            Ok(()) => Ok(()),
            Err(Failure::NotNow | Failure::Busy) => Err(TrySendError::Full(message)),
            Err(Failure::Disconnected) => Err(TrySendError::Disconnected(message)),
            Err(Failure::Failed(error)) => Err(TrySendError::Failed(message, error)),
        }
    }

    /// Sends a message, and waits at most this long for room.
    ///
    /// # Errors
    ///
    /// There was no room in time, there is no receiver any more, or the message cannot be encoded. Returns the message.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use procession::SendTimeoutError;
    ///
    /// let (tx, rx) = procession::channel(1)?;
    /// let soon = Duration::from_millis(5);
    /// tx.send_timeout(1, soon).unwrap();
    /// assert!(matches!(tx.send_timeout(2, soon), Err(SendTimeoutError::Timeout(2))));
    /// # drop(rx);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn send_timeout(&self, message: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        match self.end.send(&message, Until::timeout(timeout)) {
            Ok(()) => Ok(()),
            Err(Failure::NotNow | Failure::Busy) => Err(SendTimeoutError::Timeout(message)),
            Err(Failure::Disconnected) => Err(SendTimeoutError::Disconnected(message)),
            Err(Failure::Failed(error)) => Err(SendTimeoutError::Failed(message, error)),
        }
    }
}

impl<T> Clone for Sender<T> {
    /// Returns another end that sends to the same channel.
    fn clone(&self) -> Self {
        Self::new(self.end.clone())
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

impl<T> Serialize for Sender<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.end.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Sender<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        End::deserialize::<D, T>(deserializer, Side::Sender).map(Self::new)
    }
}
