//! The units of time of a `timeout` in `parallel!`, as in `timeout = secs(3)`.

use std::{
    fmt,
    ops::{Add, Mul},
    time::Duration,
};

use crate::{
    error::Result,
    setting::{ABOVE_ZERO, limit, refused},
};

/// Types that can be the value of `timeout`. Part of the expansion's interface.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a time limit",
    label = "this is not a time with a unit",
    note = "write `timeout = secs(3)`, `millis(200)` or `mins(2)`, or give a `std::time::Duration`"
)]
pub trait Timeout {
    /// Returns the time, or `None` for no limit.
    fn span(self) -> Option<Span>;
}

impl Timeout for Duration {
    fn span(self) -> Option<Span> {
        Some(self.into())
    }
}

impl Timeout for Option<Duration> {
    fn span(self) -> Option<Span> {
        self.map(Span::from)
    }
}

impl Timeout for Span {
    fn span(self) -> Option<Span> {
        Some(self)
    }
}

impl Timeout for Option<Span> {
    fn span(self) -> Option<Span> {
        self
    }
}

/// The value of a `timeout`, as it was written, for errors. Part of the expansion's interface.
#[derive(Clone, Debug)]
pub struct Span {
    words: String,
    /// `None` if the value is negative or not a number.
    time: Option<Duration>,
}

impl Span {
    fn new(unit: &str, each: Duration, n: impl Amount) -> Self {
        Self { words: format!("{unit}({n:?})"), time: n.of(each) }
    }

    /// Combines two times. If one is invalid, its text is kept.
    fn with(self, other: Self, time: impl FnOnce(Duration, Duration) -> Duration) -> Self {
        match (self.time, other.time) {
            (Some(one), Some(two)) => {
                Self { words: format!("{} + {}", self.words, other.words), time: Some(time(one, two)) }
            }
            (None, _) => self,
            (_, None) => other,
        }
    }

    /// Returns the time limit.
    ///
    /// # Errors
    ///
    /// No task can end in that time.
    pub(super) fn limit(&self) -> Result<Duration> {
        let setting = format_args!("timeout = {}", self.words);
        match self.time {
            Some(time) => limit(setting, time, "every task would time out"),
            None => Err(refused(setting, "that is not a time", ABOVE_ZERO)),
        }
    }
}

impl From<Duration> for Span {
    fn from(time: Duration) -> Self {
        Self { words: format!("{time:?}"), time: Some(time) }
    }
}

impl<T: Into<Span>> Add<T> for Span {
    type Output = Self;

    fn add(self, other: T) -> Self {
        self.with(other.into(), Duration::saturating_add)
    }
}

impl Add<Span> for Duration {
    type Output = Span;

    fn add(self, other: Span) -> Span {
        Span::from(self) + other
    }
}

impl Mul<u32> for Span {
    type Output = Self;

    fn mul(self, n: u32) -> Self {
        Self { words: format!("{} * {n}", self.words), time: self.time.map(|time| time.saturating_mul(n)) }
    }
}

/// Numbers that can be an argument of `millis`, `secs` and `mins`. Part of the expansion's interface.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a number of milliseconds, seconds or minutes",
    label = "this is not a number",
    note = "write `timeout = secs(3)`, `secs(0.5)`, `millis(200)` or `mins(2)`; a `std::time::Duration` needs no unit"
)]
pub trait Amount: fmt::Debug + Copy {
    /// Returns the value in this unit, or `None` if it is negative or not a number. Infinity becomes the longest time.
    fn of(self, unit: Duration) -> Option<Duration>;
}

macro_rules! amounts {
    ($($whole:ty)*; $($fraction:ty)*) => {
        $(impl Amount for $whole {
            fn of(self, unit: Duration) -> Option<Duration> {
                let nanos = u128::try_from(self).ok()?.saturating_mul(unit.as_nanos());
                Some(u64::try_from(nanos).map_or(Duration::MAX, Duration::from_nanos))
            }
        })*
        $(impl Amount for $fraction {
            fn of(self, unit: Duration) -> Option<Duration> {
                let secs = f64::from(self) * unit.as_secs_f64();
                (secs >= 0.0).then(|| Duration::try_from_secs_f64(secs).unwrap_or(Duration::MAX))
            }
        })*
    };
}

amounts!(i8 i16 i32 i64 isize u8 u16 u32 u64 usize; f32 f64);

/// Returns a time of `n` milliseconds, for a `timeout`.
#[must_use]
pub fn millis(n: impl Amount) -> Span {
    Span::new("millis", Duration::from_millis(1), n)
}

/// Returns a time of `n` seconds, for a `timeout`.
#[must_use]
pub fn secs(n: impl Amount) -> Span {
    Span::new("secs", Duration::from_secs(1), n)
}

/// Returns a time of `n` minutes, for a `timeout`.
#[must_use]
pub fn mins(n: impl Amount) -> Span {
    Span::new("mins", Duration::from_secs(60), n)
}
