//! Validates settings, of builders and of the environment. An invalid setting is refused before anything starts, with an error that
//! names the setting, its value and what is allowed.

use std::{fmt, sync::OnceLock, time::Duration};

use crate::{
    error::{Error, Result},
    escape::Escaped,
    sys::env::setting,
};

/// The longest time limit. A longer one counts as no limit.
pub(crate) const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The allowed times, as in errors.
pub(crate) const ABOVE_ZERO: &str = "a time above zero (from a year on it is no limit)";

/// The number of characters of a value that are repeated in an error.
const MOST_CHARS: usize = 60;

/// The least size in bytes of arguments that are shared without being asked. With less, the system calls take longer than copies.
pub(crate) const LEAST_SHARED_BYTES: usize = 64 << 10;

/// The size in bytes from which arguments are shared unless `PROCESSION_SHARE_BYTES` says otherwise.
const SHARED_BYTES: usize = 1 << 20;

/// Creates the error of a setting, as in `nice(20): niceness is no more than that; give a number from -20 to 19`.
pub(crate) fn refused(
    setting: impl fmt::Display,
    why: impl fmt::Display,
    allowed: impl fmt::Display,
) -> Error {
    Error::config(format!("{setting}: {why}; give {allowed}"))
}

/// Checks how many tasks are sent together.
///
/// # Errors
///
/// The number is zero.
pub(crate) fn batch(setting: &str, tasks: usize) -> Result<usize> {
    match tasks {
        0 => Err(refused(setting, "no task would be sent", "a number from 1")),
        tasks => Ok(tasks),
    }
}

/// Returns a value as short text on one line.
pub(crate) fn brief(value: impl fmt::Display) -> String {
    let value = Escaped(value).to_string();
    match value.char_indices().nth(MOST_CHARS) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value,
    }
}

/// Checks the time limit of a setting. Returns it, or a year if it is longer.
///
/// # Errors
///
/// It is zero.
pub(crate) fn limit(setting: impl fmt::Display, time: Duration, why: &str) -> Result<Duration> {
    if time.is_zero() {
        return Err(refused(setting, why, ABOVE_ZERO));
    }
    Ok(time.min(FOREVER))
}

/// Reads an environment variable. An empty one counts as not set.
///
/// # Errors
///
/// `parse` refuses it. The error contains what is `allowed`.
pub(crate) fn variable<T>(
    name: &str,
    allowed: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>> {
    let Some(value) = setting(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    match value.to_str().and_then(|value| parse(value.trim())) {
        Some(value) => Ok(Some(value)),
        None => Err(Error::config(format!("{name}={}: give {allowed}", brief(value.display())))),
    }
}

/// Returns the size in bytes from which arguments are shared without being asked: `PROCESSION_SHARE_BYTES`, or a megabyte.
///
/// # Errors
///
/// It is something else than a size or `never`.
pub(crate) fn shared_bytes_by_env() -> Result<usize> {
    static BYTES: OnceLock<std::result::Result<usize, String>> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| {
        let parse = |value: &str| match value {
            "never" => Some(usize::MAX),
            bytes => bytes.parse().ok().filter(|&bytes| bytes >= LEAST_SHARED_BYTES),
        };
        let allowed = "a number of bytes from 65536, or `never`";
        let bytes = variable("PROCESSION_SHARE_BYTES", allowed, parse).map_err(|error| error.to_string())?;
        Ok(bytes.unwrap_or(SHARED_BYTES))
    });
    bytes.clone().map_err(Error::config)
}

/// Reads an environment variable that is 0 or 1. Default: 0.
///
/// # Errors
///
/// It has another value.
pub(crate) fn flag(name: &str) -> Result<bool> {
    let parse = |value: &str| match value {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    };
    Ok(variable(name, "0 or 1", parse)?.unwrap_or(false))
}

/// Reads `PROCESSION_IN_PROCESS`, which tells to run every task in this process.
///
/// # Errors
///
/// It is neither 0 nor 1.
pub(crate) fn in_process_by_env() -> Result<bool> {
    flag("PROCESSION_IN_PROCESS")
}

/// Reads `PROCESSION_WAIT_FOR_DEBUGGER`, which tells workers to wait for a debugger before their first task.
///
/// # Errors
///
/// It is neither 0 nor 1.
pub(crate) fn waits_for_debugger() -> Result<bool> {
    flag("PROCESSION_WAIT_FOR_DEBUGGER")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_repeated_in_part_and_never_with_control_characters() {
        assert_eq!(brief("a\x1b\n"), "a\\u{1b}\\n");
        assert_eq!(brief("ż".repeat(60)), "ż".repeat(60));
        assert_eq!(brief("ż".repeat(61)), format!("{}…", "ż".repeat(60)));
    }

    #[test]
    fn a_limit_is_above_zero_and_at_most_a_year() {
        let error = limit("start_timeout(0ns)", Duration::ZERO, "no worker could start").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("start_timeout(0ns): no worker could start; give a time above zero")
        );
        assert_eq!(limit("x", Duration::from_nanos(1), "").unwrap(), Duration::from_nanos(1));
        assert_eq!(limit("x", Duration::MAX, "").unwrap(), FOREVER);
    }
}
