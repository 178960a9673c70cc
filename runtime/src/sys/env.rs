//! Environment variables, and what the kernel reports about the start of this program.
//!
//! [`has_env`] and [`is_privileged`] run before `main`, where std must not be used. The environment may be changed only while there
//! is one thread.
#![expect(unsafe_code, reason = "the environment and the program headers are raw memory")]

use std::{
    ffi::{CStr, CString, OsStr, OsString},
    os::unix::ffi::OsStrExt,
};

use nix::libc;

use super::procfs::field;

/// Returns whether this process runs with more rights than the user who started it (setuid, file capabilities).
pub(crate) fn is_privileged() -> bool {
    // SAFETY: getauxval reads the vector that the kernel made at exec, and takes any number.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Returns a setting of this library from the environment. A process with more rights than its user ignores the environment.
pub(crate) fn setting(name: &str) -> Option<OsString> {
    if is_privileged() { None } else { std::env::var_os(name) }
}

/// Returns whether a debugger is attached to this process.
pub(crate) fn is_traced() -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return false };
    field(&status, "TracerPid:").is_some_and(|tracer| tracer != "0")
}

/// Returns whether the address is in the main executable, and not in a shared library.
pub(crate) fn is_in_main_program(address: usize) -> bool {
    // SAFETY: getauxval reads the vector that the kernel made at exec, and takes any number.
    let headers = unsafe { libc::getauxval(libc::AT_PHDR) };
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::uninit();
    // SAFETY: dladdr looks the address up without reading it, and writes `info` if it returns non-zero.
    let known = unsafe { libc::dladdr(address as *const libc::c_void, info.as_mut_ptr()) };
    if known == 0 {
        // A static executable has no dynamic table, and all code is in it.
        return true;
    }
    // SAFETY: dladdr returned non-zero, so it wrote the whole of `info`.
    let info = unsafe { info.assume_init() };
    // The program headers are in the first page of the program's image.
    let base = info.dli_fbase.addr();
    headers == 0 || (base <= headers as usize && (headers as usize) - base < 0x1_0000)
}

/// Removes a variable from this process's environment and returns its value.
///
/// # Safety
///
/// No other thread may exist.
pub(crate) unsafe fn take_env(name: &CStr) -> Option<CString> {
    // SAFETY: `name` ends in a zero; no other thread can change the environment meanwhile (the caller's promise).
    let value = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: getenv returned it, so it is a string that ends in a zero, and nothing changes it before it is copied.
    let value = unsafe { CStr::from_ptr(value) }.to_owned();
    // SAFETY: as for getenv.
    unsafe { libc::unsetenv(name.as_ptr()) };
    Some(value)
}

/// Sets a variable in this process's environment, or removes it.
///
/// # Safety
///
/// No other thread may exist.
pub(crate) unsafe fn set_env(name: &OsStr, value: Option<&OsStr>) {
    let Ok(name) = CString::new(name.as_bytes()) else { return };
    match value.map(|value| CString::new(value.as_bytes())) {
        // SAFETY: both end in a zero and setenv copies them; no other thread reads the environment (the caller's promise).
        Some(Ok(value)) => unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) },
        Some(Err(_)) => 0,
        // SAFETY: `name` ends in a zero; no other thread reads the environment (the caller's promise).
        None => unsafe { libc::unsetenv(name.as_ptr()) },
    };
}

/// Returns whether a variable is set. Allocates nothing and changes nothing, because the hook calls it before `main`.
pub(crate) fn has_env(name: &CStr) -> bool {
    // SAFETY: `name` ends in a zero, and the pointer that comes back is only compared. Before main nothing else runs that could
    // change the environment.
    unsafe { !libc::getenv(name.as_ptr()).is_null() }
}
