//! Defines [`Receiver`] and its iterators.

use std::{fmt, marker::PhantomData, time::Duration};
#[cfg(feature = "futures")]
use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

#[cfg(feature = "futures")]
use futures_core::Stream;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

#[cfg(feature = "futures")]
use super::awaited::{Wait, Waiting};
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
        self.end.receive(Until::Deadline(None)).map_err(RecvError::new)
    }

    /// Receives the oldest message as [`recv`](Self::recv) does, without blocking the thread. Works with any executor.
    ///
    /// If the future is dropped before it is ready, it has received nothing, and no message is lost.
    ///
    /// # Errors
    ///
    /// As for [`recv`](Self::recv), or no thread can be started to wait for a message.
    ///
    /// # Examples
    ///
    /// ```
    /// # pollster::block_on(async {
    /// let (tx, rx) = procession::channel(4)?;
    /// std::thread::spawn(move || tx.send(7));
    /// assert_eq!(rx.recv_async().await.unwrap(), 7);
    /// assert!(rx.recv_async().await.unwrap_err().is_disconnected());
    /// # Ok::<(), procession::Error>(())
    /// # })?;
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[cfg(feature = "futures")]
    pub async fn recv_async(&self) -> Result<T, RecvError> {
        let mut wait = Wait::new(&self.end);
        let message = poll_fn(|context| wait.poll(context, || self.end.receive(Until::Now)));
        message.await.map_err(RecvError::new)
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

    /// Returns a stream of the messages that another end of the channel, made by [`clone`](Self::clone), receives. See
    /// [`into_stream`](Self::into_stream).
    ///
    /// # Panics
    ///
    /// As there.
    #[cfg(feature = "futures")]
    pub fn stream(&self) -> ReceiverStream<T> {
        self.clone().into_stream()
    }

    /// Returns a stream of the messages. It ends when there is no sender any more.
    ///
    /// # Panics
    ///
    /// The stream panics if a message cannot be decoded, because its `Serialize` and `Deserialize` do not agree.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::{future::poll_fn, pin::Pin};
    ///
    /// use futures_core::Stream;
    ///
    /// # pollster::block_on(async {
    /// let (tx, rx) = procession::channel(4)?;
    /// tx.send(1).unwrap();
    /// tx.send(2).unwrap();
    /// drop(tx);
    /// let mut messages = rx.into_stream();
    /// let mut sum = 0;
    /// // `StreamExt::next` of the futures crate does the same.
    /// while let Some(n) = poll_fn(|context| Pin::new(&mut messages).poll_next(context)).await {
    ///     sum += n;
    /// }
    /// assert_eq!(sum, 3);
    /// # Ok::<(), procession::Error>(())
    /// # })?;
    /// # Ok::<(), procession::Error>(())
    /// ```
    #[cfg(feature = "futures")]
    pub fn into_stream(self) -> ReceiverStream<T> {
        ReceiverStream { receiver: self, waiting: None }
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

/// The messages of a channel, to be awaited: made from a [`Receiver`] by [`into_stream`](Receiver::into_stream).
#[cfg(feature = "futures")]
#[derive(Debug)]
#[must_use = "a stream receives only when it is polled"]
pub struct ReceiverStream<T> {
    receiver: Receiver<T>,
    waiting: Option<Waiting>,
}

/// Returns an iterator's next item.
fn item<T>(outcome: Result<T, RecvError>) -> Option<T> {
    match outcome {
        Ok(message) => Some(message),
        Err(RecvError::Disconnected) => None,
        Err(RecvError::Failed(error)) => panic!("{error}"),
    }
}

impl<T: DeserializeOwned + 'static> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        item(self.receiver.recv())
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
        item(self.receiver.recv())
    }
}

#[cfg(feature = "futures")]
impl<T: DeserializeOwned + 'static> Stream for ReceiverStream<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let Self { receiver: Receiver { end, .. }, waiting } = self.get_mut();
        let mut wait = Wait::resume(end, waiting.take());
        let outcome = wait.poll(context, || end.receive(Until::Now));
        if outcome.is_pending() {
            *waiting = wait.pause();
        }
        outcome.map(|outcome| item(outcome.map_err(RecvError::new)))
    }
}

#[cfg(feature = "futures")]
impl<T> Drop for ReceiverStream<T> {
    fn drop(&mut self) {
        drop(Wait::resume(&self.receiver.end, self.waiting.take()));
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
