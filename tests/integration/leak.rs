//! The resources of a process that must not be left over: children, descriptors, threads, shared segments.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant},
};

use crate::event::until;

/// A joined thread is gone from the list of threads a moment after the join.
const THREADS_LINGER: Duration = Duration::from_secs(1);

/// The resources of this process at one time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// Each child, and whether it is a zombie.
    pub(crate) children: BTreeMap<u32, bool>,
    /// The target of each descriptor.
    pub(crate) descriptors: BTreeMap<u32, String>,
    /// Each thread's name.
    pub(crate) threads: BTreeMap<u32, String>,
    /// Mappings of segments without a name.
    pub(crate) segments: Vec<String>,
}

impl Snapshot {
    pub(crate) fn take() -> Self {
        Self { children: children(), descriptors: descriptors(), threads: threads(), segments: segments() }
    }

    /// Panics with the resources that are left over, unless the process has the same as then.
    #[track_caller]
    pub(crate) fn assert_same_now(&self) {
        let deadline = Instant::now() + THREADS_LINGER;
        let mut now = Self::take();
        // Only threads may take a moment; what concerns processes must be gone at once.
        assert_eq!(self.children, now.children, "children are left");
        assert_eq!(self.descriptors, now.descriptors, "descriptors are left");
        assert_eq!(self.segments, now.segments, "segments are left");
        while self.threads != now.threads && Instant::now() < deadline {
            std::thread::yield_now();
            now = Self::take();
        }
        assert_eq!(self.threads, now.threads, "threads are left");
    }
}

/// The numbers that a folder of /proc lists.
fn numbers(folder: &str) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(folder).expect("/proc is there");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The children of this process, by pid, and whether they are zombies.
pub(crate) fn children() -> BTreeMap<u32, bool> {
    children_of(std::process::id())
}

pub(crate) fn children_of(parent: u32) -> BTreeMap<u32, bool> {
    let parent = parent.to_string();
    numbers("/proc")
        .filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name, in parentheses, may hold anything; after it come state and parent.
            let (_, rest) = stat.rsplit_once(") ")?;
            let mut fields = rest.split(' ');
            let (state, of) = (fields.next()?, fields.next()?);
            (of == parent).then_some((pid, state == "Z"))
        })
        .collect()
}

/// A template has this name, and so has a worker that it has made ahead of its time.
fn has_name_of_template(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "fork-template\n")
}

/// The templates among the children of this process.
pub(crate) fn templates() -> Vec<u32> {
    children().into_keys().filter(|pid| has_name_of_template(*pid)).collect()
}

/// Waits until every template has made the worker that is wanted next: it does so by itself, a moment after the last.
pub(crate) fn settle() {
    let has_next = |template| children_of(template).into_keys().any(has_name_of_template);
    until("the next worker is made", || templates().into_iter().all(has_next));
}

/// The worker processes of this process's pools, whether it or a template of its own has made them.
pub(crate) fn workers() -> BTreeSet<u32> {
    let forked = templates().into_iter().flat_map(|template| children_of(template).into_keys());
    children().into_keys().chain(forked).filter(|pid| !has_name_of_template(*pid)).collect()
}

/// The descriptors of this process, without the one that lists them.
pub(crate) fn descriptors() -> BTreeMap<u32, String> {
    let listing = format!("/proc/{}/fd", std::process::id());
    numbers("/proc/self/fd")
        .filter_map(|fd| {
            let target = fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
            let target = target.to_string_lossy().into_owned();
            (target != listing).then_some((fd, target))
        })
        .collect()
}

/// The threads of this process, by number.
pub(crate) fn threads() -> BTreeMap<u32, String> {
    numbers("/proc/self/task")
        .filter_map(|tid| {
            let name = fs::read_to_string(format!("/proc/self/task/{tid}/comm")).ok()?;
            Some((tid, name.trim_end().to_owned()))
        })
        .collect()
}

fn segments() -> Vec<String> {
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc is there");
    maps.lines().filter(|line| line.contains("/memfd:")).map(str::to_owned).collect()
}
