//! A ring between two threads of one process, in memory of its own.
#![expect(unsafe_code, reason = "memory that two ends share")]

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    ptr::NonNull,
    sync::Arc,
};

use super::{Consumer, HEADER_BYTES, Memory, Producer};

/// A ring whose ends share memory on the heap.
///
/// # Panics
///
/// The capacity is no power of two.
pub(crate) fn pair(capacity: usize) -> (Producer<Heap>, Consumer<Heap>) {
    let heap = Heap(Arc::new(Block::zeroed(HEADER_BYTES + capacity)));
    let producer = Producer::attach(Heap(heap.0.clone())).expect("fresh memory of a fitting size is a ring");
    let consumer = Consumer::attach(heap).expect("fresh memory of a fitting size is a ring");
    (producer, consumer)
}

/// One end's share of the memory.
#[derive(Debug)]
pub(crate) struct Heap(Arc<Block>);

// SAFETY: base and length are fixed when the block is made, it is aligned to a cache line and lives as long as either end, whose
// shares of it only `pair` makes: one for a producer, one for a consumer. No other process maps it.
unsafe impl Memory for Heap {
    fn base(&self) -> NonNull<u8> {
        self.0.base
    }

    fn len_bytes(&self) -> usize {
        self.0.layout.size()
    }
}

#[derive(Debug)]
struct Block {
    base: NonNull<u8>,
    layout: Layout,
}

impl Block {
    fn zeroed(len_bytes: usize) -> Self {
        let layout = Layout::from_size_align(len_bytes, 128).expect("a small size and a power of two");
        // SAFETY: the size is not zero: there is a header at least.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) });
        Self { base: base.unwrap_or_else(|| handle_alloc_error(layout)), layout }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: `zeroed` allocated it with this layout, and whoever drops it is the last to know of it.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

// SAFETY: plain memory, tied to no thread; whoever accesses it argues for that access.
unsafe impl Send for Block {}
// SAFETY: `&Block` gives out an address only.
unsafe impl Sync for Block {}
