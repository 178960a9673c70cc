//! The segments that tasks name.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{io::Write as _, os::fd::OwnedFd, sync::Arc};

use super::{MILLI, Pair, batch};
use crate::{
    batch::Batch,
    error::Exit,
    protocol::RunFlags,
    segment::{Attachments, Draft, Kind, Segment, SegmentId},
    sys::fd::pipe,
    transport::AGAIN_AFTER,
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
    pair.supervisor.forget_dropped(pair.now);
    assert_eq!(pair.worker().segments().len(), 2, "the task in flight has it");
    finish(&mut pair, 1);
    pair.supervisor.forget_dropped(pair.now);
    assert_eq!(pair.worker().segments(), ids(&[&second]));
    drop(second);
    pair.supervisor.forget_dropped(pair.now);
    assert!(pair.worker().segments().is_empty());
}

#[test]
fn segments_for_which_the_system_has_no_room_are_handed_over_later() {
    let mut pair = started();
    let (first, second) = (segment(), segment());
    pair.worker().set_short(true);
    pair.supervisor.run(naming(0, &[&first, &second]), RunFlags::default());
    pair.supervisor.ring(pair.now);
    for _ in 0..3 {
        assert!(pair.worker().segments().is_empty() && pair.supervisor.is_live());
        assert_eq!(pair.supervisor.deadline(), Some(pair.now + AGAIN_AFTER));
        pair.now += AGAIN_AFTER;
        pair.read();
    }
    pair.worker().set_short(false);
    pair.now = pair.supervisor.deadline().unwrap();
    pair.read();
    assert_eq!(pair.worker().segments(), ids(&[&first, &second]));
    assert!(pair.supervisor.deadline() > Some(pair.now + AGAIN_AFTER), "there is nothing more to send");
    finish(&mut pair, 1);
}

fn files(segments: &[&Arc<Segment>]) -> Vec<OwnedFd> {
    segments
        .iter()
        .flat_map(|segment| {
            segment.files().map(|file| file.try_clone_to_owned().unwrap()).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn segments_that_a_worker_sends_come_with_the_result_of_their_task() {
    let mut pair = started();
    let (first, second) = (segment(), segment());
    pair.run(4);
    pair.seen.clear();
    pair.worker().begin();
    pair.worker().finish(MILLI);
    // The segments of the next result may be seen first.
    pair.worker().return_segments(2, 2, files(&[&first, &second]), false);
    pair.worker().return_segments(3, 1, files(&[&first]), false);
    finish(&mut pair, 3);
    assert_eq!(pair.seen, ["done 0", "done 1 with segments", "done 2 with segments", "done 3"]);
}

#[test]
fn a_result_whose_segments_this_process_may_not_have_is_an_error_of_its_task() {
    let mut pair = started();
    pair.run(2);
    pair.seen.clear();
    pair.worker().return_segments(1, 2, files(&[&segment()]), true);
    finish(&mut pair, 2);
    assert_eq!(pair.seen, ["failed 0", "done 1"]);
}

#[test]
fn a_worker_that_lies_about_segments_is_killed() {
    let check = |lie: &dyn Fn(&mut Pair)| {
        let mut pair = started();
        pair.run(2);
        lie(&mut pair);
        pair.read();
        assert!(!pair.supervisor.is_live());
        pair.until_ended();
        assert!(pair.reap().killed);
    };
    let one = || files(&[&segment()]);
    check(&|pair| pair.worker().return_segments(1, 1, Vec::new(), false));
    check(&|pair| pair.worker().return_segments(1, 2, one(), false));
    check(&|pair| pair.worker().return_segments(1, 0, one(), false));
    check(&|pair| pair.worker().return_segments(3, 1, one(), false));
    check(&|pair| pair.worker().return_segments(0, 1, one(), false));
    check(&|pair| pair.worker().return_segments(1, 1, vec![pipe().unwrap().0], false));
    check(&|pair| {
        pair.worker().return_segments(1, 1, one(), false);
        pair.worker().return_segments(1, 1, one(), false);
    });
}
