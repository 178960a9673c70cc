//! [`StartMethod`]: how workers come to be.

use std::{fmt, str::FromStr};

use crate::{
    error::{Error, Result},
    setting::brief,
};

/// Their names.
pub(crate) const METHODS: &str = "`spawn`, `forkserver` or `fork`";

/// How a pool's workers come to be.
///
/// | | a worker is | a further one costs | shares memory | may be asked for |
/// |---|---|---|---|---|
/// | [`Spawn`](Self::Spawn) | the program, executed again | about as much as any program's start | nothing | anywhere |
/// | [`ForkServer`](Self::ForkServer) | a copy of a template | less than half of that | what the template has loaded | anywhere |
/// | [`Fork`](Self::Fork) | a copy of a copy of this process | the same | what this process had, too | with one thread |
///
/// The default is `PROCESSION_START_METHOD` (`spawn`, `forkserver` or `fork`), or else `Spawn`. A worker's own pools start their
/// workers by `ForkServer` where that says `fork`, for a worker has two threads.
///
/// # Examples
///
/// ```
/// use procession::{Pool, StartMethod, delayed, worker};
///
/// #[worker]
/// fn square(n: u64) -> u64 {
///     n * n
/// }
///
/// let pool = Pool::builder().jobs(2).start_method(StartMethod::ForkServer).build()?;
/// assert_eq!(pool.map((1..=3).map(|n| delayed!(square(n))))?, [1, 4, 9]);
/// # Ok::<(), procession::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StartMethod {
    /// Each worker is this executable, executed again. It costs the same however much memory this process has.
    #[default]
    Spawn,
    /// A template, which is this executable, executed again once, is copied for each worker. What its
    /// [`preload`](crate::Builder::preload) has loaded is shared by all of them, copy on write.
    ForkServer,
    /// As `ForkServer`, but the template is a copy of this process, made when the pool is built: workers see what this process had in
    /// memory by then.
    ///
    /// A copy has only the thread that made it, and what another had locked stays locked for ever. So building such a pool is an error
    /// in a process that has a second thread. Workers inherit what cannot be inherited elsewhere: a `log` logger that was set before
    /// stays in place in each of them, and what they log goes to their copy of it, not to this process; build the pool first, then
    /// set the logger.
    Fork,
}

impl fmt::Display for StartMethod {
    /// As in `PROCESSION_START_METHOD`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spawn => "spawn",
            Self::ForkServer => "forkserver",
            Self::Fork => "fork",
        })
    }
}

impl FromStr for StartMethod {
    type Err = Error;

    /// As in `PROCESSION_START_METHOD`.
    fn from_str(name: &str) -> Result<Self> {
        [Self::Spawn, Self::ForkServer, Self::Fork]
            .into_iter()
            .find(|method| method.to_string() == name)
            .ok_or_else(|| {
                let name = brief(name);
                Error::config(format!("`{name}` is no start method; give {METHODS}"))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_method_is_known_by_its_name() {
        for method in [StartMethod::Spawn, StartMethod::ForkServer, StartMethod::Fork] {
            assert_eq!(method.to_string().parse::<StartMethod>().unwrap(), method);
        }
        let error = "thread".parse::<StartMethod>().unwrap_err().to_string();
        assert!(error.contains("`thread`") && error.contains("`forkserver`"), "{error}");
    }
}
