//! Memory, files and state that processes share.

mod descriptors;
mod slices;
