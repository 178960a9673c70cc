//! Memory, files and state that processes share.

mod arrays;
mod automatic;
mod awaiting;
mod channels;
mod deaths;
mod descriptors;
mod files;
mod lent;
mod locks;
mod manager;
mod messages;
mod moved;
mod parts;
mod results;
mod slices;
mod steps;
