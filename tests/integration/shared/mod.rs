//! Memory, files and state that processes share.

mod channels;
mod deaths;
mod descriptors;
mod locks;
mod slices;
