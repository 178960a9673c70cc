//! Sets the name of this process in `ps` and `top`. Used by `connect` and `setup`.

use std::{ffi::CString, os::unix::ffi::OsStrExt};

/// Names this process after the program. It was executed as /proc/self/exe and would otherwise be called `exe`.
pub(super) fn name_as_program() {
    if let Some(name) = std::env::args_os().next() {
        let name = std::path::Path::new(&name).file_name().unwrap_or_default().as_bytes();
        let _ = CString::new(name).map(|name| nix::sys::prctl::set_name(&name));
    }
}
