//! Fills memory that becomes a segment which nobody can change.

use std::{
    fs::File,
    io::{self, Cursor, Read as _, Seek as _, SeekFrom, Write},
    os::fd::AsFd as _,
    sync::Arc,
};

use super::{
    Attachments, DATA_AT, Kind, NAME, Segment, SegmentId,
    header::{HEADER_BYTES, Header, ID_BYTES},
};
use crate::sys::memory::{self, View};

/// Memory that is being filled and will become a segment.
pub(crate) struct Draft {
    to: Target,
    kind: Kind,
    digest: u64,
    len_bytes: usize,
}

enum Target {
    File(File),
    /// If no file without a name can be made.
    Buffer(Cursor<Vec<u8>>),
}

impl Draft {
    /// Makes memory for this many bytes, zeroed.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(crate) fn new(kind: Kind, digest: u64, len_bytes: usize) -> io::Result<Self> {
        Self::in_file(kind, digest, len_bytes).or_else(|error| {
            if matches!(error.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::FileTooLarge) {
                return Err(error);
            }
            let total = len_bytes.checked_add(DATA_AT).ok_or(io::ErrorKind::InvalidInput)?;
            let mut buffer = Vec::new();
            buffer.try_reserve_exact(total).map_err(|_| io::ErrorKind::OutOfMemory)?;
            buffer.resize(total, 0);
            let mut buffer = Cursor::new(buffer);
            buffer.set_position(DATA_AT as u64);
            Ok(Self { to: Target::Buffer(buffer), kind, digest, len_bytes })
        })
    }

    /// Like [`new`](Self::new), for memory that is of use only if other processes can be given it.
    ///
    /// # Errors
    ///
    /// There is none, or it cannot be shared.
    pub(super) fn in_file(kind: Kind, digest: u64, len_bytes: usize) -> io::Result<Self> {
        let total = len_bytes.checked_add(DATA_AT).ok_or(io::ErrorKind::InvalidInput)?;
        let mut file = memory::create_file(NAME, total)?;
        file.seek(SeekFrom::Start(DATA_AT as u64))?;
        Ok(Self { to: Target::File(file), kind, digest, len_bytes })
    }

    /// Makes a segment of what was written.
    ///
    /// # Errors
    ///
    /// The memory cannot be sealed or mapped.
    pub(crate) fn finish(self, inner: Attachments) -> io::Result<Arc<Segment>> {
        let id = SegmentId::new();
        let header = Header {
            id,
            kind: self.kind,
            digest: self.digest,
            len_bytes: self.len_bytes,
            inner: inner.len(),
        };
        let mut header = header.to_bytes().to_vec();
        inner.iter().for_each(|segment| header.extend_from_slice(&segment.id.to_bytes()));
        if header.len() > DATA_AT {
            let most = (DATA_AT - HEADER_BYTES) / ID_BYTES;
            let words = format!("it contains more than {most} shared values: share them in groups");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
        }
        let segment = match self.to {
            Target::File(mut file) => {
                file.seek(SeekFrom::Start(0))?;
                file.write_all(&header)?;
                memory::seal(file.as_fd())?;
                Segment::map(file.into(), inner)
            }
            Target::Buffer(buffer) => {
                let mut bytes = buffer.into_inner();
                bytes[..header.len()].copy_from_slice(&header);
                Segment::of(View::of(&bytes)?, None, inner)
            }
        }?;
        // The digest says so.
        let _ = segment.is_text.set(true);
        Ok(segment)
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.to {
            Target::File(file) => file.write(bytes),
            Target::Buffer(buffer) => buffer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Draft {
    /// Copies at most `most` bytes of a file, in the kernel if that is possible. Returns how many there were.
    pub(crate) fn copy_from(&mut self, from: &mut File, most: u64) -> io::Result<u64> {
        match &mut self.to {
            Target::File(file) => io::copy(&mut from.take(most), file),
            Target::Buffer(buffer) => io::copy(&mut from.take(most), buffer),
        }
    }
}
