//! Defines [`Jobs`], the number of workers, counted as in joblib.

use std::{fmt, num::NonZeroUsize, str::FromStr};

use crate::{
    error::Result,
    setting::{refused, variable},
};

/// The number of workers of a pool, or how it is computed from the number of CPUs.
///
/// # Examples
///
/// ```
/// use procession::{Jobs, Pool};
///
/// let four = Pool::builder().jobs(4).build()?;
/// let all_but_one = Pool::builder().jobs(Jobs::AllBut(1)).build()?;
/// let the_same = Pool::builder().jobs(-2).build()?;
/// assert!(Pool::builder().jobs(0).build().is_err());
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Jobs {
    /// One worker per CPU that this process may use, as far as the affinity mask and cgroups allow. In a worker, this is its
    /// share of the CPUs.
    All,
    /// As for `All`, minus this number, and at least one.
    AllBut(usize),
    /// Exactly this number.
    Exactly(usize),
    /// A number as in joblib: -1 stands for all CPUs, -2 for all but one. Zero is an error when the pool is built.
    Signed(i64),
}

/// The maximum number of workers. More are assumed to be a mistake.
const MOST_WORKERS: usize = 4096;
/// The allowed values, for errors.
const ALLOWED: &str = "a whole number from 1 to 4096, or -1 for all the CPUs, -2 for all but one, and so on";

impl Jobs {
    /// Returns the number of workers. `cpus` counts the CPUs.
    ///
    /// # Errors
    ///
    /// Returns an error if it is zero or more than `MOST_WORKERS`.
    pub(crate) fn count(self, cpus: impl FnOnce() -> usize) -> Result<usize> {
        let count = match self {
            Self::All => cpus(),
            Self::AllBut(n) => cpus().saturating_sub(n).max(1),
            Self::Exactly(n) => n,
            Self::Signed(n) if n < 0 => {
                let but = usize::try_from(n.unsigned_abs()).unwrap_or(usize::MAX) - 1;
                cpus().saturating_sub(but).max(1)
            }
            Self::Signed(n) => usize::try_from(n).unwrap_or(usize::MAX),
        };
        match count {
            n if (1..=MOST_WORKERS).contains(&n) => Ok(n),
            n => {
                let why = if n == 0 { "a pool needs a worker" } else { "that is too many" };
                Err(refused(format_args!("jobs = {n}"), why, ALLOWED))
            }
        }
    }

    /// Returns the number that `PROCESSION_JOBS` sets, or else [`Jobs::All`].
    pub(crate) fn from_env(cpus: impl FnOnce() -> usize) -> Result<Self> {
        let parse = |words: &str| words.parse::<Self>().ok().filter(|jobs| jobs.count(cpus).is_ok());
        Ok(variable("PROCESSION_JOBS", ALLOWED, parse)?.unwrap_or(Self::All))
    }
}

/// Converts from all integer types. A number that is too large is an error when the pool is built.
macro_rules! from_numbers {
    ($($signed:ty)*; $($unsigned:ty)*) => {
        $(impl From<$signed> for Jobs {
            fn from(n: $signed) -> Self {
                Self::Signed(i64::try_from(n).unwrap_or(i64::MAX))
            }
        })*
        $(impl From<$unsigned> for Jobs {
            fn from(n: $unsigned) -> Self {
                Self::Exactly(usize::try_from(n).unwrap_or(usize::MAX))
            }
        })*
    };
}

from_numbers!(i8 i16 i32 i64 isize; u8 u16 u32 u64 usize);

impl From<NonZeroUsize> for Jobs {
    fn from(n: NonZeroUsize) -> Self {
        Self::Exactly(n.get())
    }
}

/// Parses a number of workers in the form that `Display` writes: `4`, `-2`, `all`, `all but 1`.
///
/// # Examples
///
/// ```
/// use procession::Jobs;
///
/// assert_eq!("all but 1".parse(), Ok(Jobs::AllBut(1)));
/// assert_eq!("-1".parse(), Ok(Jobs::Signed(-1)));
/// assert!("0.5".parse::<Jobs>().is_err());
/// ```
impl FromStr for Jobs {
    type Err = ParseJobsError;

    fn from_str(words: &str) -> Result<Self, ParseJobsError> {
        let words = words.trim();
        match words.strip_prefix("all") {
            Some("") => Ok(Self::All),
            Some(but) => match but.trim_start().strip_prefix("but ") {
                Some(n) => n.trim().parse().map(Self::AllBut).map_err(|_| ParseJobsError(())),
                None => Err(ParseJobsError(())),
            },
            None => words.parse().map(Self::Signed).map_err(|_| ParseJobsError(())),
        }
    }
}

/// The error of parsing a number of workers.
///
/// # Examples
///
/// ```
/// use procession::Jobs;
///
/// let error = "a few".parse::<Jobs>().unwrap_err();
/// assert!(error.to_string().contains("not a whole number"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseJobsError(());

impl fmt::Display for ParseJobsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a whole number; give one from 1, or -1 for all the CPUs")
    }
}

impl std::error::Error for ParseJobsError {}

impl fmt::Display for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::AllBut(n) => write!(f, "all but {n}"),
            Self::Exactly(n) => n.fmt(f),
            Self::Signed(n) => n.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::cpu::cpus;

    #[test]
    fn numbers_are_counted_as_joblib_counts_them() {
        let all = std::thread::available_parallelism().unwrap().get();
        assert_eq!(Jobs::from(-1).count(cpus).unwrap(), all);
        assert_eq!(Jobs::from(-2).count(cpus).unwrap(), all.saturating_sub(1).max(1));
        assert_eq!(Jobs::from(-10_000).count(cpus).unwrap(), 1);
        assert_eq!(Jobs::AllBut(1).count(cpus).unwrap(), all.saturating_sub(1).max(1));
        assert_eq!(Jobs::from(3usize).count(cpus).unwrap(), 3);
        assert!(Jobs::from(0).count(cpus).unwrap_err().to_string().contains("jobs = 0"));
        assert!(Jobs::from(1_000_000).count(cpus).is_err());
        assert!(Jobs::from(u64::MAX).count(cpus).is_err());
        assert!(Jobs::from(i64::MIN).count(cpus).is_ok_and(|n| n == 1));
    }

    #[test]
    fn a_displayed_number_of_jobs_is_parsed_to_the_same() {
        for jobs in [Jobs::All, Jobs::AllBut(2), Jobs::Signed(4), Jobs::Signed(-3)] {
            assert_eq!(jobs.to_string().parse(), Ok(jobs));
        }
        for words in ["", "x", "0.5", "1e3", "all but", "all but -1", "allbut1"] {
            assert!(words.parse::<Jobs>().is_err(), "{words}");
        }
    }
}
