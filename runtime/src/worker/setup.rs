//! Applies the settings of a worker before it is ready: its folder, niceness, CPU, name and memory limit.
//!
//! `handshake` calls it once, with the [`WorkerSetup`] of the hello.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use super::connect::refused;
use crate::{
    protocol::{Folder, Refused, WorkerSetup},
    sys::{
        cpu::{add_niceness, name_as_program, pin_to, set_title},
        memory::limit_memory,
        process::enter,
    },
};

/// Applies the settings to the process and all of its threads.
///
/// # Errors
///
/// A setting cannot be applied. The error is a message for the user.
pub(super) fn take_up(setup: WorkerSetup) -> Result<(), Refused> {
    let WorkerSetup { folder, nice, cpu, title, memory_limit } = setup;
    if let Some(Folder { path, id }) = folder {
        let path = Path::new(OsStr::from_bytes(&path));
        enter(path, id).map_err(|error| {
            refused(format_args!("it cannot change to the directory {}", path.display()), error)
        })?;
    }
    if let Some(nice) = nice.filter(|&nice| nice != 0) {
        add_niceness(nice)
            .map_err(|error| refused(format_args!("its niceness cannot be changed by {nice}"), error))?;
    }
    if let Some(cpu) = cpu {
        pin_to(cpu).map_err(|error| refused(format_args!("it cannot be pinned to CPU {cpu}"), error))?;
    }
    if let Some(bytes) = memory_limit {
        limit_memory(bytes)
            .map_err(|error| refused(format_args!("its memory cannot be limited to {bytes} bytes"), error))?;
    }
    // A worker that a template forked ahead of time still has the template's name.
    match title {
        Some(title) => set_title(&title),
        None => name_as_program(),
    }
    Ok(())
}
