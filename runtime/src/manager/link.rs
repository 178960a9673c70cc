//! The way to a manager, and [`Managed`], the part of a handle that has no type.

use std::{any::type_name, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use super::{
    Stored,
    client::{Client, ConnectSocket},
    in_process::{self, InProcess},
    request::{Action, Call, Create, Reply, Request, Value},
};
use crate::{
    codec::{self, Bytes, Encoded, output},
    error::{Error, Result, TaskError, TaskLocation},
    id::FunctionId,
    registry,
    segment::{
        Attachments, Kind, Mode, Segment, SegmentId, To, attach, digest, look_up, mode, outliving, read_by,
        set_why, with_available,
    },
    task::Update,
};

/// The way to a manager.
#[derive(Clone, Debug)]
pub(super) enum Link {
    Here(Arc<InProcess>),
    /// The connect socket of a manager in a process of its own.
    Process(Arc<Segment>),
}

impl Link {
    fn call(&self, request: &Request<'_>, with: &Attachments) -> Result<Reply> {
        if in_process::is_updating() {
            return Err(Error::config(
                "an update cannot use a manager: it runs in one, and the others wait until it is done",
            ));
        }
        let reply = match self {
            Self::Here(here) => here.call(request, with)?,
            Self::Process(connect) => Client::of(connect).call(connect, request, with)?,
        };
        match reply {
            Reply::Refused(words) => Err(Error::config(words)),
            Reply::Failed { function, fault } => {
                let name = registry::find(FunctionId(function)).map_or("an update", |entry| entry.name);
                let place = TaskLocation { attempts: 1, ..TaskLocation::default() };
                Err(TaskError::new(name, fault.into(), place).into())
            }
            reply => Ok(reply),
        }
    }
}

/// An object of a manager.
#[derive(Clone, Debug)]
pub(super) struct Managed {
    pub(super) link: Link,
    pub(super) number: u64,
}

/// A handle as it is encoded.
#[derive(Serialize, Deserialize)]
struct Encoding {
    manager: SegmentId,
    number: u64,
    /// The digest of the handle's type.
    of: u64,
}

impl Managed {
    pub(super) fn create(link: Link, create: &Create<'_>, with: &Attachments) -> Result<Self> {
        let number = number_of(link.call(&Request::Create(create.clone()), with)?)? as u64;
        Ok(Self { link, number })
    }

    /// Performs an action that needs no values.
    pub(super) fn act(&self, action: Action<'_>) -> Result<Reply> {
        self.act_with(action, &Attachments::default())
    }

    pub(super) fn act_with(&self, action: Action<'_>, with: &Attachments) -> Result<Reply> {
        self.link.call(&Request::Use { object: self.number, action }, with)
    }

    /// Returns whether both are objects of one manager.
    pub(super) fn has_manager_of(&self, other: &Self) -> bool {
        self.link.id() == other.link.id()
    }

    /// Encodes a handle of type `T`.
    pub(super) fn serialize<T, S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (mode(), &self.link) {
            (Mode::Closed, _) => {
                let why = "a handle of a manager's object can only be sent by the calls of procession";
                return Err(ser::Error::custom(why));
            }
            (_, Link::Here(_)) => {}
            (Mode::Attach { .. }, Link::Process(connect)) if connect.file().is_some() => attach(connect),
            (_, Link::Process(_)) => {
                let why = "the connection to a manager does not travel with these bytes";
                return Err(ser::Error::custom(set_why(why.to_owned())));
            }
        }
        Encoding { manager: self.link.id(), number: self.number, of: digest::<T>() }.serialize(serializer)
    }

    /// Decodes a handle of type `T`.
    pub(super) fn deserialize<'de, T, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Encoding { manager, number, of } = Encoding::deserialize(deserializer)?;
        let link = match () {
            () if of != digest::<T>() => Err(format!("the handle is not a `{}`", type_name::<T>())),
            () => Link::find(manager),
        };
        let link = link.map_err(|why| de::Error::custom(set_why(why)))?;
        Ok(Self { link, number })
    }
}

impl Link {
    /// Returns the way to a manager, of which a handle was received.
    fn find(manager: SegmentId) -> Result<Self, String> {
        if let Some(here) = in_process::find(manager) {
            return Ok(Self::Here(here));
        }
        let connect = look_up(manager).map_err(|why| {
            format!(
                "its manager has ended, or is within another process, while `Manager::start` makes one for several \
                 processes ({why})"
            )
        })?;
        if connect.kind() != Kind::Descriptor || connect.digest() != digest::<ConnectSocket>() {
            return Err("it is no manager".to_owned());
        }
        Ok(Self::Process(connect))
    }

    fn id(&self) -> SegmentId {
        match self {
            Self::Here(here) => here.id(),
            Self::Process(connect) => connect.id(),
        }
    }
}

/// Declares a handle: a type with these parameters that is cloned, printed, encoded and decoded as an object of a manager.
macro_rules! handle {
    ($(#[$attribute:meta])* $name:ident $(<$($of:ident),*>)?) => {
        $(#[$attribute])*
        pub struct $name $(<$($of),*>)? {
            object: $crate::manager::link::Managed,
            of: std::marker::PhantomData<fn() -> ($($($of,)*)?)>,
        }

        impl $(<$($of),*>)? $name $(<$($of),*>)? {
            pub(super) fn of(object: $crate::manager::link::Managed) -> Self {
                Self { object, of: std::marker::PhantomData }
            }
        }

        impl $(<$($of),*>)? Clone for $name $(<$($of),*>)? {
            /// Returns another handle of the same object.
            fn clone(&self) -> Self {
                Self::of(self.object.clone())
            }
        }

        impl $(<$($of),*>)? std::fmt::Debug for $name $(<$($of),*>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }

        impl $(<$($of),*>)? serde::Serialize for $name $(<$($of),*>)? {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.object.serialize::<Self, S>(serializer)
            }
        }

        impl<'de, $($($of),*)?> serde::Deserialize<'de> for $name $(<$($of),*>)? {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::manager::link::Managed::deserialize::<Self, D>(deserializer).map(Self::of)
            }
        }
    };
}

pub(super) use handle;

/// Encodes a key. The handles in it are added to `with`.
pub(super) fn encode_key<Q: Serialize + ?Sized>(key: &Q, with: &mut Attachments) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    outliving(|| read_by(with, || codec::encode(key, &mut bytes)))
        .map_err(|words| Error::config(format!("the key: {words}")))?;
    Ok(bytes)
}

/// Encodes a value. The handles in it are added to `with`.
pub(super) fn encode_value<T: Stored>(what: &str, value: &T, with: &mut Attachments) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    outliving(|| read_by(with, || output::encode_value(value, &mut bytes)))
        .map_err(|words| Error::config(format!("{what}: {words}")))?;
    Ok(bytes)
}

/// Decodes a key.
pub(super) fn decode_key<K: de::DeserializeOwned>(key: &Value) -> Result<K> {
    with_available(&key.with, || codec::decode(&key.bytes))
        .map_err(|words| Error::config(format!("the key: {words}")))
}

/// Decodes a value.
pub(super) fn decode_value<T: Stored>(value: &Value) -> Result<T> {
    with_available(&value.with, || output::decode_result(Encoded::Short(&value.bytes)))
        .map_err(|words| Error::config(format!("the value: {words}")))
}

/// Sends an update. Its handles are added to `with`.
pub(super) fn with_call<V, R>(
    update: &Update<V, R>,
    with: &mut Attachments,
    send: impl FnOnce(Call<'_>, &Attachments) -> Result<Reply>,
) -> Result<Reply> {
    let call = &update.call;
    let args = call.args.as_ref().map_err(|words| Error::config(words.to_string()))?.to_plain();
    let Some(function) = registry::id_of(call.entry) else {
        return Err(crate::task::not_in_table(call, None).into());
    };
    if call.handles.attachments.iter().any(|segment| !segment.can_go(To::Caller)) {
        let why = "a manager cannot be given a mapped file, which a client could shorten: give it a copy";
        return Err(Error::config(why));
    }
    with.merge(&call.handles.attachments);
    send(Call { function: function.0, args: Bytes(&args), lent: call.handles.lent() }, with)
}

/// The reply is not one to this request.
#[cold]
fn unexpected(reply: &impl fmt::Debug) -> Error {
    Error::config(format!("the manager sent a wrong reply: {reply:?}"))
}

pub(super) fn done(reply: Reply) -> Result<()> {
    match reply {
        Reply::Done => Ok(()),
        reply => Err(unexpected(&reply)),
    }
}

/// Returns whether the request was granted before its time was over.
pub(super) fn is_in_time(reply: Reply) -> Result<bool> {
    match reply {
        Reply::TimedOut => Ok(false),
        reply => done(reply).map(|()| true),
    }
}

pub(super) fn flag(reply: Reply) -> Result<bool> {
    match reply {
        Reply::Flag(flag) => Ok(flag),
        reply => Err(unexpected(&reply)),
    }
}

pub(super) fn number_of(reply: Reply) -> Result<i64> {
    match reply {
        Reply::Number(number) => Ok(number),
        reply => Err(unexpected(&reply)),
    }
}

pub(super) fn len_of(reply: Reply) -> Result<usize> {
    number_of(reply).map(|number| usize::try_from(number).unwrap_or_default())
}

/// Returns the value, or `None` if there is none, or if the time was over.
pub(super) fn value_of<T: Stored>(reply: Reply) -> Result<Option<T>> {
    match reply {
        Reply::Value(value) => value.as_ref().map(decode_value).transpose(),
        Reply::TimedOut => Ok(None),
        reply => Err(unexpected(&reply)),
    }
}

pub(super) fn values_of<T: Stored>(reply: Reply) -> Result<Vec<T>> {
    match reply {
        Reply::Values(values) => values.iter().map(decode_value).collect(),
        reply => Err(unexpected(&reply)),
    }
}

pub(super) fn pairs_of(reply: Reply) -> Result<Vec<(Value, Value)>> {
    match reply {
        Reply::Pairs(pairs) => Ok(pairs),
        reply => Err(unexpected(&reply)),
    }
}

pub(super) fn exchanged(reply: Reply) -> Result<Result<(), Option<Value>>> {
    match reply {
        Reply::Exchanged(exchanged) => Ok(exchanged),
        reply => Err(unexpected(&reply)),
    }
}

/// Returns the value of a mutex that is locked now, and whether a wait has timed out. Returns `None` if the mutex was not locked.
pub(super) fn locked(reply: Reply) -> Result<Option<(Value, bool)>> {
    match reply {
        Reply::Locked { value, timed_out } => Ok(Some((value, timed_out))),
        Reply::TimedOut => Ok(None),
        reply => Err(unexpected(&reply)),
    }
}
