//! What a worker makes of itself before it is ready: its folder, its niceness, its CPU, its name.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use super::{connect::refused, process_name::name_as_program};
use crate::{
    protocol::{Folder, Refused, Station},
    sys::{
        cpu::{add_niceness, pin_to, set_title},
        memory::limit_memory,
        process::enter,
    },
};

/// Takes up the station, for every thread that there is.
///
/// # Errors
///
/// Part of it cannot be had, in words for people.
pub(super) fn take_up(station: Station) -> Result<(), Refused> {
    let Station { folder, nice, cpu, title, memory } = station;
    if let Some(Folder { path, id }) = folder {
        let path = Path::new(OsStr::from_bytes(&path));
        enter(path, id)
            .map_err(|error| refused(format_args!("it cannot work in {}", path.display()), error))?;
    }
    if let Some(nice) = nice.filter(|&nice| nice != 0) {
        add_niceness(nice)
            .map_err(|error| refused(format_args!("its niceness cannot be changed by {nice}"), error))?;
    }
    if let Some(cpu) = cpu {
        pin_to(cpu).map_err(|error| refused(format_args!("it cannot be pinned to CPU {cpu}"), error))?;
    }
    if let Some(bytes) = memory {
        limit_memory(bytes)
            .map_err(|error| refused(format_args!("its memory cannot be limited to {bytes} bytes"), error))?;
    }
    // One that a template has made ahead of its time had the template's name.
    match title {
        Some(title) => set_title(&title),
        None => name_as_program(),
    }
    Ok(())
}
