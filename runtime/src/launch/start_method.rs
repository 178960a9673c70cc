//! Defines [`StartMethod`], which selects how workers are started.

use std::{fmt, str::FromStr};

use crate::{
    context::is_worker,
    error::{Error, Result},
    setting::{brief, variable},
};

/// The names of the start methods.
const METHODS: &str = "`spawn`, `forkserver` or `fork`";

/// The way in which workers are started.
///
/// | | a worker is | one more worker takes | shares memory with | available |
/// |---|---|---|---|---|
/// | [`Spawn`](Self::Spawn) | the program, executed again | about as long as starting any program | nothing | always |
/// | [`ForkServer`](Self::ForkServer) | a copy of a template process | less than half of that | the template, with all that it has loaded | always |
/// | [`Fork`](Self::Fork) | a copy of a copy of this process | the same | this process at the time of the copy | in processes with one thread |
///
/// The default is `PROCESSION_START_METHOD` (`spawn`, `forkserver` or `fork`), or else `Spawn`. If the variable is `fork`, pools
/// inside a worker use `ForkServer`, because a worker has two threads.
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
    /// Executes this program again for each worker. The cost does not depend on how much memory this process uses.
    #[default]
    Spawn,
    /// Executes this program again once, as a template, and forks the template for each worker.
    ///
    /// All workers share what the template's [`preload`](crate::Builder::preload) has loaded, copy on write.
    ForkServer,
    /// Like `ForkServer`, but the template is a copy of this process, made when the pool is built. Workers see what this process
    /// had in memory at that time.
    ///
    /// A copy has only the thread that made it, and locks held by other threads would stay locked forever. Building such a pool
    /// is therefore an error in a process with a second thread. Workers also inherit a `log` logger that was set before. They log
    /// to their own copy of it, and not to this process. Build the pool first and set the logger afterwards.
    Fork,
}

impl StartMethod {
    /// Returns the start method that `PROCESSION_START_METHOD` names, or the default. A worker has two threads and cannot be copied,
    /// so its own pools use a fork server instead of copies.
    pub(super) fn from_env() -> Result<Self> {
        let method = variable("PROCESSION_START_METHOD", METHODS, |words| words.parse().ok())?;
        Ok(match method.unwrap_or_default() {
            Self::Fork if is_worker() => Self::ForkServer,
            method => method,
        })
    }
}

impl fmt::Display for StartMethod {
    /// Writes the name as in `PROCESSION_START_METHOD`.
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

    /// Parses the name as in `PROCESSION_START_METHOD`.
    fn from_str(name: &str) -> Result<Self> {
        [Self::Spawn, Self::ForkServer, Self::Fork]
            .into_iter()
            .find(|method| method.to_string() == name)
            .ok_or_else(|| {
                let name = brief(name);
                Error::config(format!("`{name}` is not a start method; give {METHODS}"))
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
