//! Memory, files and state that processes share.

mod deaths;
mod descriptors;
mod locks;
mod slices;
