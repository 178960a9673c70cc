//! A ring between two threads of one process, in its own memory. The feed of a call (`scheduler/feed.rs`) is one.
#![expect(unsafe_code, reason = "lends memory")]

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    ptr::NonNull,
    sync::Arc,
};

use super::{Consumer, HEADER_BYTES, Memory, Producer};

/// Creates a ring of this capacity, a power of two, with its memory on the heap.
pub(crate) fn pair(capacity: usize) -> (Producer<Heap>, Consumer<Heap>) {
    let heap = Heap::new(HEADER_BYTES + capacity);
    let producer = Producer::attach(heap.clone()).expect("fresh memory of a fitting size is a ring");
    let consumer = Consumer::attach(heap).expect("fresh memory of a fitting size is a ring");
    (producer, consumer)
}

/// Memory that is zeroed at first and is freed by its last holder. One end of each kind is attached to it.
#[derive(Clone, Debug)]
pub(crate) struct Heap {
    base: NonNull<u8>,
    len_bytes: usize,
    _block: Arc<Block>,
}

#[derive(Debug)]
struct Block {
    base: NonNull<u8>,
    layout: Layout,
}

impl Heap {
    /// Allocates exactly this much, so that a tool that watches the heap notices any access outside of it.
    pub(super) fn new(len_bytes: usize) -> Self {
        let layout = Layout::from_size_align(len_bytes.max(1), 64).expect("a size that exists");
        // SAFETY: the layout is not of size zero.
        let base = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(base).unwrap_or_else(|| handle_alloc_error(layout));
        Self { base, len_bytes, _block: Arc::new(Block { base, layout }) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: `Heap::new` allocated it with this layout, and all users of it held the block.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

// SAFETY: the block is plain memory, tied to no thread.
unsafe impl Send for Block {}
// SAFETY: `&Block` gives out nothing.
unsafe impl Sync for Block {}
// SAFETY: the address is of plain memory, tied to no thread.
unsafe impl Send for Heap {}

// SAFETY: both fields never change; the block is aligned to 64, as long as said, initialized, and there until its last holder, of
// which this is one, is dropped; `pair` and tests attach one end of each kind, and what else tests write, they write through atomics, or while
// no end is at work.
unsafe impl Memory for Heap {
    fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}
