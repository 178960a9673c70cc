//! The static table of functions. The linker collects one [`Entry`] for each `#[worker]` from all crates of the executable.
//!
//! The ID of a function is the index of its entry. The index is the same in every process that runs the same executable, and only
//! there, so the handshake compares the [`build_id`]. Names, files and lines are for messages only.

use std::sync::OnceLock;

use crate::{
    codec::{Input, Output},
    error::Fault,
    id::FunctionId,
};

/// All `#[worker]` functions of this executable that were declared with this version of the crate.
#[procession_macros::gathered]
pub static WORKERS: [Entry];

/// One function: its name, and how it is run. Created by the expansion of `#[worker]`.
#[derive(Debug)]
pub struct Entry {
    /// The full path, as in `census::entropy`.
    pub name: &'static str,
    /// The file in which it is declared.
    pub file: &'static str,
    /// The line of its declaration.
    pub line: u32,
    /// Decodes the arguments, calls the function, and encodes its result.
    pub run: fn(Input<'_>, Output<'_>) -> Result<(), Fault>,
}

/// The table of unit tests, for which the linker gathers nothing.
#[cfg(test)]
pub(crate) static TESTED: [Entry; 2] = [
    Entry {
        name: "test::double",
        file: file!(),
        line: line!(),
        run: |mut args, mut result| {
            let n: u64 = args.take("n")?;
            args.finish()?;
            result.put(n.checked_mul(2).ok_or_else(|| Fault::codec("too much".to_owned()))?)
        },
    },
    Entry { name: "test::prepare", file: file!(), line: line!(), run: |_, mut result| result.put(()) },
];

fn table() -> &'static [Entry] {
    #[cfg(test)]
    return &TESTED;
    #[cfg(not(test))]
    WORKERS.static_slice()
}

/// Returns the ID of a function, or `None` if the linker did not put its entry into the table.
pub(crate) fn id_of(entry: &'static Entry) -> Option<FunctionId> {
    let table = table();
    let offset = std::ptr::from_ref(entry).addr().checked_sub(table.as_ptr().addr())?;
    let place = offset / size_of::<Entry>();
    (offset % size_of::<Entry>() == 0 && place < table.len()).then_some(())?;
    u32::try_from(place).ok().map(FunctionId)
}

/// Returns the function with this ID, if there is one.
pub(crate) fn find(id: FunctionId) -> Option<&'static Entry> {
    table().get(usize::try_from(id.without_handles().0).ok()?)
}

/// Returns a digest of the table and of where the linker put its functions, which identifies this build of the executable.
///
/// In two processes with equal digests, every ID means the same function.
pub(crate) fn build_id() -> u64 {
    static ID: OnceLock<u64> = OnceLock::new();
    *ID.get_or_init(|| {
        let table = table();
        let origin = (build_id as fn() -> u64 as *const ()).addr();
        let mut digest = Digest::new();
        digest.add(env!("CARGO_PKG_VERSION").as_bytes());
        digest.add(&table.len().to_le_bytes());
        for entry in table {
            digest.add(entry.name.as_bytes());
            digest.add(entry.file.as_bytes());
            digest.add(&entry.line.to_le_bytes());
            let place = (entry.run as *const ()).addr().wrapping_sub(origin);
            digest.add(&place.to_le_bytes());
        }
        digest.0
    })
}

/// FNV-1a, which returns the same in every process. The hashers of std do not guarantee that.
struct Digest(u64);

impl Digest {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes.iter().chain(&[0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_outside_the_table_has_no_id() {
        static STRAY: Entry = Entry { name: "stray", file: file!(), line: line!(), run: |_, _| Ok(()) };
        assert_eq!(id_of(&STRAY), None);
        assert!(find(FunctionId(u32::MAX)).is_none());
    }

    #[test]
    fn the_build_id_is_the_same_each_time() {
        assert_eq!(build_id(), build_id());
    }
}
