//! Defines [`Manager`], which owns objects that any process changes through handles, like `multiprocessing.Manager` in Python.
//!
//! The objects are a state machine over encoded values (`objects`). It runs in a process of its own (`serve.rs`), which `owner.rs` starts and
//! ends and `client.rs` connects to, or within this process (`in_process.rs`). A handle is the number of an object and the way to its manager
//! (`link.rs`). The typed handles encode keys and values, and decode what comes back.

mod client;
mod counter;
mod dict;
mod entry;
mod event;
mod in_process;
mod link;
mod list;
mod mutex;
mod namespace;
mod objects;
mod owner;
mod queue;
mod request;
mod serve;
mod wire;

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

pub use counter::Counter;
pub use dict::{Dict, Entry};
pub use event::{Barrier, Event, Permit, Semaphore};
pub use list::List;
pub use mutex::{Condvar, Mutex, MutexGuard};
pub use namespace::Namespace;
pub use queue::Queue;

use crate::{
    codec::Bytes,
    error::{Error, Result},
    segment::{Attachments, digest},
    setting::{in_process_by_env, shared_bytes_by_env},
};
use client::{Client, ConnectSocket, connect_socket};
use in_process::InProcess;
use link::{Link, Managed};
use owner::Owner;
use request::Create;

/// An owner of objects that several processes and threads change through handles, like `multiprocessing.Manager` in Python.
///
/// Each operation on an object is one request, and requests are handled one after the other, so no operation sees another one half done.
/// A handle can be cloned, and can be an argument, a result, and a value of other objects.
///
/// Objects exist as long as their manager. It ends when the `Manager` is dropped. After that, operations return errors.
///
/// # Examples
///
/// ```
/// use procession::{Manager, delayed, worker};
///
/// #[worker]
/// fn add(a: u64, b: u64) -> u64 {
///     a + b
/// }
///
/// let manager = Manager::in_process();
/// let words = manager.dict::<String, u64>()?;
/// for word in "the cat and the dog".split(' ') {
///     words.entry(word.to_owned()).and_modify(delayed!(add(_, 1))).or_insert(1)?;
/// }
/// assert_eq!(words.get("the")?, Some(2));
/// # Ok::<(), procession::Error>(())
/// ```
#[must_use = "the objects of a manager end with it"]
pub struct Manager {
    link: Link,
    /// The process of the manager, if it has one and this process has started it.
    owner: Option<Arc<Owner>>,
    /// It was decoded, so the objects do not end with it.
    is_guest: bool,
}

/// Types that can be values of a manager's objects.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a value of a manager's object",
    label = "this type cannot be sent to another process",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, and own what it contains (`String`, not `&str`)"
)]
pub trait Stored: Serialize + DeserializeOwned + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + 'static> Stored for T {}

impl Manager {
    /// Starts a manager in a process of its own.
    ///
    /// The process ends when the `Manager` is dropped, and like every worker when this process ends. With `PROCESSION_IN_PROCESS=1` the
    /// manager is within this process.
    ///
    /// # Errors
    ///
    /// Returns an error if the process cannot be started, or if `PROCESSION_IN_PROCESS` is invalid.
    ///
    /// # Examples
    ///
    /// ```
    /// use procession::{Counter, Manager, Pool, delayed, worker};
    ///
    /// #[worker]
    /// fn count(words: &str, counter: &Counter) -> Result<(), procession::RemoteError> {
    ///     counter.add(words.split(' ').count() as i64)?;
    ///     Ok(())
    /// }
    ///
    /// let (manager, pool) = (Manager::start()?, Pool::new(2)?);
    /// let counter = manager.counter(0)?;
    /// pool.map(["a b", "c d e"].map(|words| delayed!(count(words, &counter))))?;
    /// assert_eq!(counter.get()?, 5);
    /// # Ok::<(), procession::Error>(())
    /// ```
    pub fn start() -> Result<Self> {
        shared_bytes_by_env()?;
        if in_process_by_env()? {
            return Ok(Self::in_process());
        }
        let (connect, theirs) = connect_socket(digest::<ConnectSocket>())
            .map_err(|error| Error::system("a manager cannot be started", error))?;
        let owner = Owner::start(theirs)?;
        Client::of(&connect).set_owner(&owner);
        let manager = Self { link: Link::Process(connect), owner: Some(owner), is_guest: false };
        // A process that cannot start is an error here, and not of the first object.
        manager.counter(0)?;
        Ok(manager)
    }

    /// Creates a manager in this process, for tests and debugging. Its objects can be used by the threads of this process only, and by tasks
    /// that run in it.
    pub fn in_process() -> Self {
        Self { link: Link::Here(InProcess::new()), owner: None, is_guest: false }
    }

    /// Creates a dictionary.
    ///
    /// # Errors
    ///
    /// The manager has ended.
    pub fn dict<K: Serialize, V: Stored>(&self) -> Result<Dict<K, V>> {
        self.create(&Create::Dict).map(Dict::of)
    }

    /// Creates a list.
    ///
    /// # Errors
    ///
    /// The manager has ended.
    pub fn list<T: Stored>(&self) -> Result<List<T>> {
        self.create(&Create::List).map(List::of)
    }

    /// Creates a counter that begins with this number.
    ///
    /// # Errors
    ///
    /// The manager has ended.
    pub fn counter(&self, start: i64) -> Result<Counter> {
        self.create(&Create::Counter(start)).map(Counter::of)
    }

    /// Creates a namespace, which has values of any type by name.
    ///
    /// # Errors
    ///
    /// The manager has ended.
    pub fn namespace(&self) -> Result<Namespace> {
        self.create(&Create::Dict).map(Namespace::of)
    }

    /// Creates a queue with room for `capacity` values.
    ///
    /// # Errors
    ///
    /// The capacity is zero, or the manager has ended.
    pub fn queue<T: Stored>(&self, capacity: usize) -> Result<Queue<T>> {
        self.create(&Create::Queue { capacity: capacity as u64 }).map(Queue::of)
    }

    /// Creates a mutex that protects a value.
    ///
    /// # Errors
    ///
    /// The value cannot be encoded, or the manager has ended.
    pub fn mutex<T: Stored>(&self, value: T) -> Result<Mutex<T>> {
        let mut with = Attachments::default();
        let value = link::encode_value("the value of a mutex", &value, &mut with)?;
        self.create_with(&Create::Mutex(Bytes(&value)), &with).map(Mutex::of)
    }

    /// Creates a semaphore with this number of permits.
    ///
    /// # Errors
    ///
    /// The manager has ended.
    pub fn semaphore(&self, permits: usize) -> Result<Semaphore> {
        self.create(&Create::Semaphore { permits: permits as u64 }).map(Semaphore::of)
    }

    /// Creates an event, which is not set.
    ///
    /// # Errors
    ///
    /// The manager has ended.
    pub fn event(&self) -> Result<Event> {
        self.create(&Create::Event).map(Event::of)
    }

    /// Creates a barrier for this number of threads, in any processes.
    ///
    /// # Errors
    ///
    /// The number is zero, or the manager has ended.
    pub fn barrier(&self, parties: usize) -> Result<Barrier> {
        self.create(&Create::Barrier { parties: parties as u64 }).map(Barrier::of)
    }

    /// Creates a condition variable, to be used with a mutex of this manager.
    ///
    /// # Errors
    ///
    /// The manager has ended.
    pub fn condvar(&self) -> Result<Condvar> {
        self.create(&Create::Condvar).map(Condvar::of)
    }

    fn create(&self, create: &Create<'_>) -> Result<Managed> {
        self.create_with(create, &Attachments::default())
    }

    fn create_with(&self, create: &Create<'_>, with: &Attachments) -> Result<Managed> {
        Managed::create(self.link.clone(), create, with)
    }
}

impl Serialize for Manager {
    /// The process that decodes it can make further objects. They end with the original manager.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Managed { link: self.link.clone(), number: 0 }.serialize::<Self, _>(serializer)
    }
}

impl<'de> Deserialize<'de> for Manager {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Managed { link, .. } = Managed::deserialize::<Self, _>(deserializer)?;
        Ok(Self { link, owner: None, is_guest: true })
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if self.is_guest {
            return;
        }
        match &self.link {
            Link::Here(here) => here.end(),
            Link::Process(connect) => {
                Client::of(connect).close();
                self.owner.iter().for_each(|owner| owner.end());
            }
        }
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").finish_non_exhaustive()
    }
}
