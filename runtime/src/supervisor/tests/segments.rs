//! The segments that tasks name.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{io::Write as _, sync::Arc};

use super::{MILLI, Pair, batch};
use crate::{
    batch::Batch,
    error::Exit,
    protocol::RunFlags,
    segment::{Attachments, Draft, Kind, Segment, SegmentId},
};

fn segment() -> Arc<Segment> {
    let mut draft = Draft::new(Kind::Slice, 0, 1).unwrap();
    draft.write_all(&[7]).unwrap();
    draft.finish(Attachments::default()).unwrap()
}

fn naming(first: u64, segments: &[&Arc<Segment>]) -> Batch {
    let mut attachments = Attachments::default();
    segments.iter().for_each(|segment| attachments.add(segment));
    let mut batch = batch(first, 1);
    batch.records = batch.records.with_attachments(&attachments);
    batch
}

fn started() -> Pair {
    let mut pair = Pair::new();
    start(&mut pair);
    pair
}

fn start(pair: &mut Pair) {
    pair.launch().unwrap();
    pair.worker().ready();
    pair.read();
}

fn finish(pair: &mut Pair, tasks: usize) {
    assert_eq!(pair.worker().run_all(MILLI), tasks);
    pair.read();
}

fn ids(segments: &[&Arc<Segment>]) -> Vec<SegmentId> {
    segments.iter().map(|segment| segment.id()).collect()
}

#[test]
fn a_worker_is_handed_each_segment_once_and_its_successor_again() {
    let mut pair = started();
    let (first, second) = (segment(), segment());
    pair.supervisor.run(naming(0, &[&first]), RunFlags::default());
    pair.supervisor.run(naming(1, &[&first, &second]), RunFlags::default());
    assert_eq!(pair.worker().segments(), ids(&[&first, &second]));
    finish(&mut pair, 2);
    pair.worker().end(Exit::from_code(0));
    drop(pair.reap());
    start(&mut pair);
    assert!(pair.worker().segments().is_empty());
    pair.supervisor.run(naming(2, &[&second]), RunFlags::default());
    assert_eq!(pair.worker().segments(), ids(&[&second]));
}

#[test]
fn a_worker_forgets_what_its_host_has_dropped_and_nothing_else() {
    let mut pair = started();
    let (first, second) = (segment(), segment());
    pair.supervisor.run(naming(0, &[&first, &second]), RunFlags::default());
    drop(first);
    pair.supervisor.forget_dropped();
    assert_eq!(pair.worker().segments().len(), 2, "the task in flight has it");
    finish(&mut pair, 1);
    pair.supervisor.forget_dropped();
    assert_eq!(pair.worker().segments(), ids(&[&second]));
    drop(second);
    pair.supervisor.forget_dropped();
    assert!(pair.worker().segments().is_empty());
}
