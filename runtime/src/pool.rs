//! Pools.

/// How many workers.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Jobs {
    /// So many.
    Exactly(usize),
    /// All the CPUs but so many.
    AllBut(usize),
}

impl From<usize> for Jobs {
    fn from(n: usize) -> Self {
        Self::Exactly(n)
    }
}

impl From<i32> for Jobs {
    fn from(n: i32) -> Self {
        Self::Exactly(n as usize)
    }
}

/// A pool.
#[derive(Debug)]
pub struct Pool {}
