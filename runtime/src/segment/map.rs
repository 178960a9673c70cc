//! Makes and maps segments of all kinds.
#![expect(unsafe_code, reason = "mapped files, which do not change: the caller of `map_file` promises it")]

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::FileExt as _,
    },
    sync::Arc,
};

use super::{
    Attachments, DATA_AT, Kind, Memory, NAME, Segment, SegmentId, State, digest,
    header::{HEADER_BYTES, Header, ID_BYTES},
};
use crate::sys::{
    identified::Identified,
    memory::{self, View},
};

impl Segment {
    /// Maps a segment.
    ///
    /// # Errors
    ///
    /// It is not a segment, it can be changed, or it cannot be mapped.
    pub(super) fn map(fd: OwnedFd, inner: Attachments) -> io::Result<Arc<Self>> {
        Self::of(View::new(fd.as_fd())?, Some(Identified::new(fd)), inner)
    }

    pub(super) fn of(view: View, file: Option<Identified>, inner: Attachments) -> io::Result<Arc<Self>> {
        let header = Header::from_bytes(view.bytes());
        let header =
            header.filter(|header| view.bytes().len().checked_sub(DATA_AT) == Some(header.len_bytes));
        // Bytes that a process may still have mapped writable must not be relied on. Elements may have any.
        let is_safe = |header: &Header| match header.kind {
            Kind::Value => view.is_sealed(),
            Kind::Slice => view.is_sealed() || header.digest != digest::<str>(),
            Kind::State | Kind::Descriptor | Kind::Mutable | Kind::File => false,
        };
        let Some(header) = header.filter(is_safe) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is not shared memory of this program",
            ));
        };
        let memory = Memory::Sealed(Arc::new(view));
        Ok(Self::new(&header, memory, file, inner))
    }

    /// Makes zeroed memory of this many bytes that several processes change.
    pub(super) fn new_state(digest: u64, len_bytes: usize) -> io::Result<Arc<Self>> {
        let header = Header { id: SegmentId::new(), kind: Kind::State, digest, len_bytes, inner: 0 };
        let total = len_bytes.checked_add(DATA_AT).ok_or(io::ErrorKind::InvalidInput)?;
        let file = File::from(memory::create(NAME, total)?);
        file.write_all_at(&header.to_bytes(), 0)?;
        Self::map_state(&header, file.into())
    }

    fn map_state(header: &Header, fd: OwnedFd) -> io::Result<Arc<Self>> {
        let state = State::map(fd.as_fd(), header.len_bytes)?;
        let file = Some(Identified::new(fd));
        Ok(Self::new(header, Memory::State(state), file, Attachments::default()))
    }

    /// Makes a segment with which a descriptor travels.
    ///
    /// # Errors
    ///
    /// No descriptor can be handed over here, or there is not enough memory.
    pub(crate) fn of_descriptor(digest: u64, descriptor: OwnedFd) -> io::Result<Arc<Self>> {
        let header = Header { id: SegmentId::new(), kind: Kind::Descriptor, digest, len_bytes: 0, inner: 0 };
        Self::with_descriptor(&header, Self::page(&header)?, descriptor)
    }

    /// Makes a page that names what travels with it.
    fn page(header: &Header) -> io::Result<OwnedFd> {
        let file = memory::create_file(NAME, DATA_AT)?;
        file.write_all_at(&header.to_bytes(), 0)?;
        memory::seal(file.as_fd())?;
        Ok(file.into())
    }

    /// Maps the first bytes of a file, which are elements.
    ///
    /// # Errors
    ///
    /// There are none, or they cannot be mapped.
    ///
    /// # Safety
    ///
    /// No process changes these bytes, or shortens the file, while one has mapped it.
    pub(crate) unsafe fn of_file(digest: u64, file: OwnedFd, len_bytes: usize) -> io::Result<Arc<Self>> {
        let header = Header { id: SegmentId::new(), kind: Kind::File, digest, len_bytes, inner: 0 };
        // Where memory cannot be shared, the contents are sent.
        let page = Self::page(&header).ok();
        // SAFETY: by this function's conditions.
        unsafe { Self::with_file(&header, page, file) }
    }

    /// # Safety
    ///
    /// That of [`of_file`](Self::of_file).
    unsafe fn with_file(header: &Header, page: Option<OwnedFd>, file: OwnedFd) -> io::Result<Arc<Self>> {
        // It has been read, but others will read it.
        page.as_ref().map(|page| View::new(page.as_fd())).transpose()?;
        // SAFETY: by this function's conditions.
        let view = unsafe { View::of_file(file.as_fd(), header.len_bytes) }?;
        let memory = Memory::File(view, Identified::new(file));
        let header = Header { kind: Kind::Slice, ..*header };
        Ok(Self::new(&header, memory, page.map(Identified::new), Attachments::default()))
    }

    fn with_descriptor(header: &Header, fd: OwnedFd, descriptor: OwnedFd) -> io::Result<Arc<Self>> {
        // It has been read, but others will read it.
        View::new(fd.as_fd())?;
        let memory = Memory::Descriptor(Identified::new(descriptor));
        Ok(Self::new(header, memory, Some(Identified::new(fd)), Attachments::default()))
    }

    /// Maps a segment that another process has made. Returns its identity, and why it cannot be mapped if it cannot. Returns `None` if it is
    /// not a segment.
    ///
    /// `next` are the descriptors that came after it. `find` finds the segments that this process has. One of them may be this one. A mapped
    /// file is accepted only if it comes from the host, because its sender promises that it does not change.
    pub(super) fn adopt(
        fd: OwnedFd,
        next: &mut impl Iterator<Item = OwnedFd>,
        is_from_host: bool,
        find: impl Fn(SegmentId) -> Option<Arc<Self>>,
    ) -> Option<(SegmentId, io::Result<Arc<Self>>)> {
        // To read from another file may take forever.
        memory::is_memory(fd.as_fd()).then_some(())?;
        let file = File::from(fd);
        let mut page = [0; DATA_AT];
        file.read_exact_at(&mut page, 0).ok()?;
        let header = Header::from_bytes(&page)?;
        let Header { id, inner: count, .. } = header;
        let has_descriptor = matches!(header.kind, Kind::Descriptor | Kind::File);
        let descriptor = if has_descriptor { Some(next.next()?) } else { None };
        if let Some(own) = find(id) {
            return Some((id, Ok(own)));
        }
        if header.kind == Kind::State {
            return Some((id, Self::map_state(&header, file.into())));
        }
        if let Some(descriptor) = descriptor {
            let segment = if header.kind == Kind::Descriptor {
                Self::with_descriptor(&header, file.into(), descriptor)
            } else if is_from_host && header.digest != digest::<str>() {
                // SAFETY: the caller of `SharedSlice::map_file` in the host has promised it for all processes that have the elements.
                unsafe { Self::with_file(&header, Some(file.into()), descriptor) }
            } else {
                Err(io::ErrorKind::InvalidData.into())
            };
            return Some((id, segment));
        }
        if header.kind == Kind::Mutable {
            let mapped = Self::map_mutable(&header, file.into());
            return Some((
                id,
                mapped.map_err(|error| match error.kind() {
                    io::ErrorKind::PermissionDenied => io::Error::other("a task that failed has frozen it"),
                    _ => error,
                }),
            ));
        }
        let (ids, _) = page[HEADER_BYTES..].as_chunks::<ID_BYTES>();
        let mut inner = Attachments::default();
        for id in ids.get(..count)? {
            // If one is missing, the code that decodes its handle reports it.
            find(SegmentId::from_bytes(*id)).iter().for_each(|segment| inner.add(segment));
        }
        Some((id, Self::map(file.into(), inner)))
    }
}
