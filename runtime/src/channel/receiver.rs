//! Defines [`Receiver`] and its iterators.

use std::{fmt, marker::PhantomData, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

use super::{
    end::{End, Until},
    error::{Failure, RecvError, RecvTimeoutError, TryRecvError},
    held::Side,
};

/// The receiving end of a [`channel`](crate::channel()).
///
/// Clones receive from the same channel, and each message is received by one of them. A `Receiver` can be an argument and a part of other
/// values, so that functions in other processes receive, too. When the last one is gone, wherever it was, sending fails. A process
/// that ends, or is killed, has no ends any more.
///
/// A message that a process has taken is received by another one if the process dies before its `recv` has returned.
///
/// # Examples
///
/// ```
/// use procession::{Pool, Receiver, Sender, channel, delayed, worker};
///
/// #[worker]
/// fn square(numbers: Receiver<u64>, squares: Sender<u64>) {
///     for n in numbers {
///         squares.send(n * n).expect("the caller receives");
///     }
/// }
///
/// let pool = Pool::new(2)?;
/// let ((numbers, inputs), (outputs, squares)) = (channel(16)?, channel(16)?);
/// let tasks = [0, 1].map(|_| pool.submit(delayed!(square(inputs.clone(), outputs.clone()))));
/// drop(outputs);
/// for n in 1..=10 {
///     numbers.send(n).unwrap();
/// }
/// drop(numbers);
/// assert_eq!(squares.into_iter().sum::<u64>(), 385);
/// # for task in tasks {
/// #     task.join()?;
/// # }
/// # Ok::<(), procession::Error>(())
/// ```
pub struct Receiver<T> {
    pub(super) end: End,
    of: PhantomData<fn() -> T>,
}

impl<T> Receiver<T> {
    pub(super) fn new(end: End) -> Self {
        Self { end, of: PhantomData }
    }

    /// Returns the number of messages for which there is room.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.end.capacity()
    }
}

impl<T: DeserializeOwned + 'static> Receiver<T> {
    /// Receives the oldest message, and waits for one if there is none.
    ///
    /// # Errors
    ///
    /// There is no message and no sender any more, or the message cannot be decoded.
    ///
    /// # Examples
    ///
    /// ```
    /// let (tx, rx) = procession::channel(4)?;
    /// std::thread::spawn(move || tx.send(7));
    /// assert_eq!(rx.recv().unwrap(), 7);
    /// assert!(rx.recv().unwrap_err().is_disconnected());
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[inline]
    pub fn recv(&self) -> Result<T, RecvError> {
        self.end.receive(Until::Deadline(None)).map_err(|failure| match failure {
            Failure::Failed(error) => RecvError::Failed(error),
            // It waits until there is a message.
            Failure::Disconnected | Failure::NotNow | Failure::Busy => RecvError::Disconnected,
        })
    }

    /// Receives the oldest message if there is one now.
    ///
    /// # Errors
    ///
    /// There is no message, there is no sender any more either, or the message cannot be decoded.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::TryRecvError;
    ///
    /// let (tx, rx) = procession::channel(4)?;
    /// assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    /// tx.send(7).unwrap();
    /// assert_eq!(rx.try_recv().unwrap(), 7);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.end.receive(Until::Now).map_err(|failure| match failure {
            Failure::NotNow | Failure::Busy => TryRecvError::Empty,
            Failure::Disconnected => TryRecvError::Disconnected,
            Failure::Failed(error) => TryRecvError::Failed(error),
        })
    }

    /// Receives the oldest message, and waits at most this long for one.
    ///
    /// # Errors
    ///
    /// There was no message in time, there is no sender any more either, or the message cannot be decoded.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use procession::RecvTimeoutError;
    ///
    /// let (tx, rx) = procession::channel::<u64>(4)?;
    /// let soon = Duration::from_millis(5);
    /// assert!(matches!(rx.recv_timeout(soon), Err(RecvTimeoutError::Timeout)));
    /// # drop(tx);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.end.receive(Until::timeout(timeout)).map_err(|failure| match failure {
            Failure::NotNow | Failure::Busy => RecvTimeoutError::Timeout,
            Failure::Disconnected => RecvTimeoutError::Disconnected,
            Failure::Failed(error) => RecvTimeoutError::Failed(error),
        })
    }

    /// Returns an iterator that waits for messages. It ends when there is no sender any more.
    ///
    /// # Panics
    ///
    /// The iterator panics if a message cannot be decoded, because its `Serialize` and `Deserialize` do not agree.
    ///
    /// # Examples
    ///
    /// ```
    /// let (tx, rx) = procession::channel(4)?;
    /// tx.send(1).unwrap();
    /// tx.send(2).unwrap();
    /// drop(tx);
    /// assert!(rx.iter().eq([1, 2]));
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { receiver: self }
    }

    /// Returns an iterator over the messages that are there. It ends when there is none.
    ///
    /// # Panics
    ///
    /// The iterator panics if a message cannot be decoded, because its `Serialize` and `Deserialize` do not agree.
    ///
    /// # Examples
    ///
    /// ```
    /// let (tx, rx) = procession::channel(4)?;
    /// tx.send(1).unwrap();
    /// assert!(rx.try_iter().eq([1]));
    /// # drop(tx);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter { receiver: self }
    }
}

/// The messages of a channel: see [`Receiver::iter`].
#[derive(Debug)]
pub struct Iter<'a, T> {
    receiver: &'a Receiver<T>,
}

/// The messages that are in a channel: see [`Receiver::try_iter`].
#[derive(Debug)]
pub struct TryIter<'a, T> {
    receiver: &'a Receiver<T>,
}

/// The messages of a channel: made from a [`Receiver`] by `into_iter`.
#[derive(Debug)]
pub struct IntoIter<T> {
    receiver: Receiver<T>,
}

fn next<T: DeserializeOwned + 'static>(receiver: &Receiver<T>) -> Option<T> {
    match receiver.recv() {
        Ok(message) => Some(message),
        Err(RecvError::Disconnected) => None,
        Err(RecvError::Failed(error)) => panic!("{error}"),
    }
}

impl<T: DeserializeOwned + 'static> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        next(self.receiver)
    }
}

impl<T: DeserializeOwned + 'static> Iterator for TryIter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match self.receiver.try_recv() {
            Ok(message) => Some(message),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
            Err(TryRecvError::Failed(error)) => panic!("{error}"),
        }
    }
}

impl<T: DeserializeOwned + 'static> Iterator for IntoIter<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        next(&self.receiver)
    }
}

impl<T: DeserializeOwned + 'static> IntoIterator for Receiver<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter { receiver: self }
    }
}

impl<'a, T: DeserializeOwned + 'static> IntoIterator for &'a Receiver<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> Clone for Receiver<T> {
    /// Returns another end that receives from the same channel.
    fn clone(&self) -> Self {
        Self::new(self.end.clone())
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

impl<T> Serialize for Receiver<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.end.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Receiver<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        End::deserialize::<D, T>(deserializer, Side::Receiver).map(Self::new)
    }
}
