//! Unit tests of segments, which need no other process.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs::File,
    io::{self, Write as _},
    os::{fd::AsFd, unix::fs::FileExt as _},
};

use super::{header::HEADER_BYTES, *};
use crate::sys::memory;

fn slice_of(numbers: &[u32]) -> Arc<Segment> {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
    let mut draft = Draft::new(Kind::Slice, digest::<u32>(), bytes.len()).unwrap();
    draft.write_all(&bytes).unwrap();
    draft.finish(Attachments::default()).unwrap()
}

fn value_of(encoded: &[u8], inner: Attachments) -> Arc<Segment> {
    let mut draft = Draft::new(Kind::Value, digest::<u64>(), encoded.len()).unwrap();
    draft.write_all(encoded).unwrap();
    draft.finish(inner).unwrap()
}

fn ids(attachments: &Attachments) -> Vec<SegmentId> {
    attachments.iter().map(|segment| segment.id()).collect()
}

#[test]
fn a_segment_that_was_handed_over_is_the_same_elsewhere() {
    let segment = slice_of(&[1, 2, 3]);
    let fd = segment.file().unwrap().try_clone_to_owned().unwrap();
    let (id, other) = Segment::adopt(fd, &mut [].into_iter(), true, |_| None).unwrap();
    let other = other.unwrap();
    assert_eq!((id, other.data(), other.digest()), (segment.id(), segment.data(), segment.digest()));
    assert_ne!(other.data().as_ptr(), segment.data().as_ptr());
}

#[test]
fn a_segment_elsewhere_has_what_its_value_contains() {
    let inner = slice_of(&[1]);
    let mut within = Attachments::default();
    within.add(&inner);
    let outer = value_of(&[7], within);
    let fd = outer.file().unwrap().try_clone_to_owned().unwrap();
    let (_, other) =
        Segment::adopt(fd, &mut [].into_iter(), true, |id| (id == inner.id()).then(|| inner.clone()))
            .unwrap();
    assert_eq!(ids(other.unwrap().inner()), [inner.id()]);
}

#[test]
fn a_descriptor_travels_behind_the_page_that_names_it() {
    let (ours, theirs) = crate::sys::fd::pipe().unwrap();
    let segment = Segment::of_descriptor(7, theirs).unwrap();
    let mut files =
        segment.files().map(|fd| fd.try_clone_to_owned().unwrap()).collect::<Vec<_>>().into_iter();
    let adopted = Segment::adopt(files.next().unwrap(), &mut files, true, |_| None);
    assert_eq!(files.len(), 0, "it takes its descriptor");
    let (id, other) = adopted.unwrap();
    let other = other.unwrap();
    assert_eq!((id, other.kind(), other.digest()), (segment.id(), Kind::Descriptor, 7));
    assert!(other.data().is_empty() && slice_of(&[1]).descriptor().is_err());
    drop(segment);
    File::from(other.descriptor().unwrap().try_clone_to_owned().unwrap()).write_all(b"x").unwrap();
    drop(other);
    assert_eq!(io::read_to_string(File::from(ours)).unwrap(), "x");
    let page = Segment::of_descriptor(7, crate::sys::fd::pipe().unwrap().0).unwrap();
    let page = page.files().next().unwrap().try_clone_to_owned().unwrap();
    assert!(Segment::adopt(page, &mut [].into_iter(), true, |_| None).is_none(), "its descriptor was lost");
}

#[test]
fn a_mapped_file_travels_behind_its_page_from_the_host_only() {
    let whole: Vec<u8> = (0..=255).collect();
    let file = crate::sys::fd::file_of(NAME, &whole).unwrap();
    // SAFETY: nothing else knows the file, and it is shortened when it is not read any more.
    let segment = unsafe { Segment::of_file(digest::<u32>(), file, 256) }.unwrap();
    assert_eq!((segment.kind(), segment.data()), (Kind::Slice, &whole[..]));
    assert!(find::<u32>(Kind::Slice, segment.data().as_ptr().addr() + 4, 8).is_some());
    assert!(segment.can_go(To::Task) && !segment.can_go(To::Caller), "its file may change");
    let mut within = Attachments::default();
    within.add(&segment);
    let outer = value_of(&[7], within);
    assert!(outer.can_go(To::Several) && !outer.can_go(To::Caller), "what it contains may change");
    let adopt = |is_from_host| {
        let mut files =
            segment.files().map(|fd| fd.try_clone_to_owned().unwrap()).collect::<Vec<_>>().into_iter();
        let adopted = Segment::adopt(files.next().unwrap(), &mut files, is_from_host, |_| None);
        assert_eq!(files.len(), 0, "it takes its file");
        adopted.unwrap()
    };
    let (id, other) = adopt(true);
    let other = other.unwrap();
    assert_eq!((id, other.kind(), other.digest()), (segment.id(), Kind::Slice, segment.digest()));
    assert_eq!(other.data(), whole);
    assert_eq!(other.files().count(), 2, "it can be handed on");
    assert!(adopt(false).1.is_err());
    File::from(segment.files().nth(1).unwrap().try_clone_to_owned().unwrap()).set_len(255).unwrap();
    assert!(adopt(true).1.is_err(), "it is shorter than its page says");
}

#[test]
fn what_is_no_segment_or_can_be_changed_is_refused() {
    let header = |len_bytes| {
        let (id, kind, digest) = (SegmentId::new(), Kind::Slice, 0);
        Header { id, kind, digest, len_bytes, inner: 0 }.to_bytes()
    };
    let file = |bytes: &[u8], seal: bool| {
        let mut file = memory::create_file(NAME, DATA_AT + 8).unwrap();
        file.write_all(bytes).unwrap();
        if seal {
            memory::seal(file.as_fd()).unwrap();
        }
        Segment::adopt(file.into(), &mut [].into_iter(), true, |_| None)
    };
    assert!(file(&header(8), true).unwrap().1.is_ok());
    assert!(file(&header(8), false).unwrap().1.is_err(), "it can be changed");
    assert!(file(&header(9), true).unwrap().1.is_err(), "it claims to be longer than it is");
    assert!(file(&header(usize::MAX), true).unwrap().1.is_err());
    assert!(file(&[7; HEADER_BYTES], true).is_none(), "it is something else");
    let mut unknown = header(8);
    unknown[8] = 9;
    assert!(file(&unknown, true).is_none(), "its kind is unknown");
    let (ours, _theirs) = crate::sys::fd::pipe().unwrap();
    assert!(Segment::adopt(ours, &mut [].into_iter(), true, |_| None).is_none());
}

#[test]
fn elements_are_found_by_their_address_and_type_while_the_segment_lives() {
    let segment = slice_of(&[1, 2, 3, 4]);
    let start = segment.data().as_ptr().addr();
    let found = find::<u32>(Kind::Slice, start + 4, 8).unwrap();
    assert_eq!((found.segment.id(), found.offset_bytes), (segment.id(), 4));
    assert!(find::<u32>(Kind::Slice, start + 4, 16).is_none(), "beyond the end");
    assert!(find::<u32>(Kind::Slice, start, 0).is_none(), "nothing lies nowhere");
    assert!(find::<i32>(Kind::Slice, start, 4).is_none(), "another type");
    assert!(find::<u32>(Kind::Value, start, 4).is_none(), "not a value");
    drop((found, segment));
    assert!(find::<u32>(Kind::Slice, start, 4).is_none(), "its address may belong to anything by now");
}

#[test]
fn a_value_is_decoded_once_and_only_as_its_own_type() {
    let segment = value_of(&[7], Attachments::default());
    let mut decoded = 0;
    for _ in 0..3 {
        let value: &u64 = segment
            .value(|bytes| {
                decoded += 1;
                Ok(u64::from(bytes[0]))
            })
            .unwrap();
        assert_eq!(*value, 7);
    }
    assert_eq!(decoded, 1);
    let value: &u64 = segment.decoded().unwrap();
    assert!(find::<u64>(Kind::Value, std::ptr::from_ref(value).addr(), 8).is_some());
    let wrong = segment.value::<i64>(|_| unreachable!("it has another type")).unwrap_err();
    assert_eq!(wrong, "the shared value is not a `i64`");
    let failed = value_of(&[], Attachments::default());
    for _ in 0..2 {
        assert_eq!(failed.value::<u64>(|_| Err("empty".to_owned())).unwrap_err(), "empty");
    }
}

#[test]
fn attachments_have_each_segment_once_and_what_a_value_contains_before_it() {
    let (inner, other) = (slice_of(&[1]), slice_of(&[2]));
    let mut within = Attachments::default();
    within.add(&inner);
    let outer = value_of(&[1], within.clone());
    let mut all = Attachments::default();
    assert!(all.is_empty() && all.includes(&Attachments::default()));
    all.add(&outer);
    all.add(&inner);
    all.merge(&within);
    all.add(&other);
    assert_eq!(ids(&all), [inner.id(), outer.id(), other.id()]);
    assert!(all.includes(&within) && !within.includes(&all));
}

#[test]
fn a_value_that_encodes_others_while_it_is_encoded_keeps_its_own_attachments() {
    let (first, second) = (slice_of(&[1]), slice_of(&[2]));
    let (mut outer, mut inner) = (Attachments::default(), Attachments::default());
    attached_by(&mut outer, || {
        attach(&first);
        attached_by(&mut inner, || attach(&second));
        inlined(|| ());
    });
    assert_eq!((ids(&outer), ids(&inner)), (vec![first.id()], vec![second.id()]));
}

#[test]
fn a_value_is_dropped_where_code_of_users_may_run() {
    struct Loud<'a>(&'a std::cell::Cell<u32>);
    impl Drop for Loud<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let dropped = std::cell::Cell::new(0);
    let mut draft = Draft::new(Kind::Value, digest::<Loud<'_>>(), 1).unwrap();
    draft.write_all(&[0]).unwrap();
    let segment = draft.finish(Attachments::default()).unwrap();
    segment.value_or_decode(|_| Ok(Loud(&dropped))).unwrap();
    drop(segment);
    assert_eq!(dropped.get(), 0);
    // A test beside this one may do it as well.
    while dropped.get() == 0 {
        bury();
    }
}

#[test]
fn a_handle_is_attached_while_this_library_encodes_and_at_no_other_time() {
    let segment = slice_of(&[1]);
    assert_eq!(mode(), Mode::Closed);
    let mut attachments = Attachments::default();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        attached_by(&mut attachments, || {
            attach(&segment);
            panic!("a Serialize that panics");
        });
    }));
    assert!(panicked.is_err() && attachments.is_empty() && mode() == Mode::Closed);
    attached_by(&mut attachments, || assert_eq!(mode(), Mode::Attach { some: false, to: To::Several }));
    assert!(attachments.is_empty(), "what the panic has left belongs to nothing");
    attached_by(&mut attachments, || inlined(|| assert_eq!(mode(), Mode::Inline)));
    attached_by(&mut attachments, || attach(&segment));
    assert_eq!(ids(&attachments), [segment.id()]);
}

#[test]
fn a_handle_is_looked_up_among_what_came_with_its_bytes_and_nowhere_else() {
    let segment = slice_of(&[1]);
    let mut attachments = Attachments::default();
    attachments.add(&segment);
    assert!(look_up(segment.id()).unwrap_err().contains("did not come with the value"));
    let found = with_available(&attachments, || look_up(segment.id()));
    assert_eq!(found.unwrap().id(), segment.id());
    assert!(look_up(segment.id()).is_err());
}

#[test]
fn what_was_forgotten_before_it_arrived_is_not_kept() {
    let (first, second) = (slice_of(&[1]), slice_of(&[2]));
    let hand_over =
        |segment: &Segment| receive(vec![segment.file().unwrap().try_clone_to_owned().unwrap()], false);
    hand_over(&first);
    assert!(look_up(first.id()).is_ok());
    forget(first.id());
    assert!(look_up(first.id()).is_err());
    forget(second.id());
    hand_over(&second);
    assert!(look_up(second.id()).is_err());
    // It comes back from elsewhere, and is given again before the request to forget it arrives.
    hand_over(&second);
    hand_over(&second);
    forget(second.id());
    assert!(look_up(second.id()).is_ok());
    forget(second.id());
    assert!(look_up(second.id()).is_err());
}

fn claim_of(bytes: &[u8]) -> Claim {
    let mut claim = Claim::new(digest::<u8>(), bytes.len(), 1).unwrap();
    claim.part().bytes_mut().copy_from_slice(bytes);
    claim
}

fn adopted(segment: &Segment) -> Arc<Segment> {
    let fd = segment.file().unwrap().try_clone_to_owned().unwrap();
    Segment::adopt(fd, &mut std::iter::empty(), true, |_| None).unwrap().1.unwrap()
}

#[test]
fn what_is_written_is_seen_by_all_who_have_mapped_it() {
    let mut claim = claim_of(&[1, 2, 3]);
    let other = adopted(claim.place().0);
    let mut there = Claim::of(other.clone(), 1..3, 1).unwrap();
    there.part().bytes_mut()[0] = 7;
    assert_eq!(claim.bytes(), [1, 7, 3]);
    for _ in 0..2 {
        assert!(Claim::of(other.clone(), 2..3, 1).is_err(), "it has an owner there, which keeps it");
    }
    claim.part().bytes_mut()[2] = 8;
    assert_eq!(there.bytes(), [7, 8]);
}

#[test]
fn a_claim_is_split_and_joined_again_in_its_order_only() {
    let (left, right) = claim_of(&[1, 2, 3]).split(1);
    assert_eq!((left.bytes(), right.bytes()), (&[1][..], &[2, 3][..]));
    let (right, left) = right.join(left).unwrap_err();
    let (middle, last) = right.split(1);
    let (left, last) = left.join(last).unwrap_err();
    let all = left.join(middle).and_then(|both| both.join(last)).unwrap();
    assert_eq!(all.bytes(), [1, 2, 3]);
    assert!(claim_of(&[]).freeze().is_err(), "nothing is copied");
}

#[test]
fn frozen_elements_are_another_segment_that_is_not_mapped_to_write() {
    let frozen = claim_of(&[1, 2, 3]).freeze().unwrap().unwrap();
    assert_eq!((frozen.kind(), frozen.data()), (Kind::Slice, &[1, 2, 3][..]));
    assert_eq!(adopted(&frozen).data(), [1, 2, 3]);

    // A worker that has not forgotten it.
    let claim = claim_of(&[4, 5]);
    let (id, other) = (claim.place().0.id(), adopted(claim.place().0));
    let frozen = claim.freeze().unwrap().unwrap();
    assert_ne!(frozen.id(), id);
    assert_eq!((frozen.data(), adopted(&frozen).data()), (&[4, 5][..], &[4, 5][..]));
    assert_eq!(other.id(), id);
}

#[test]
fn a_claim_is_moved_to_a_task_when_it_is_dropped() {
    let claim = claim_of(&[1]);
    let (mut attachments, mut loans) = (Attachments::default(), Loans::default());
    assert!(attached_by(&mut attachments, || claim.attach()).is_err(), "several would have it");
    moved_by(To::Task, &mut attachments, &mut loans, || claim.attach()).unwrap();
    assert_eq!(attachments.len(), 1);
    assert!(loans.check().is_err(), "it exists here, too");
    let segment = claim.place().0.clone();
    drop(claim);
    loans.check().unwrap();
    assert!(Claim::of(segment.clone(), 0..1, 1).is_err(), "the task has it");
    loans.release().unwrap();
    assert_eq!(Claim::of(segment, 0..1, 1).unwrap().bytes(), [1]);
}

#[test]
fn elements_whose_memory_could_shrink_are_not_taken() {
    let claim = claim_of(&[1, 2, 3]);
    let mut page = vec![0; DATA_AT + 3];
    claim
        .place()
        .0
        .file
        .as_ref()
        .unwrap()
        .check()
        .unwrap()
        .try_clone_to_owned()
        .map(File::from)
        .unwrap()
        .read_exact_at(&mut page, 0)
        .unwrap();
    for is_fixed in [false, true] {
        let file = memory::create_file(NAME, page.len()).unwrap();
        file.write_all_at(&page, 0).unwrap();
        if is_fixed {
            memory::fix_size(file.as_fd()).unwrap();
        }
        let (_, segment) = Segment::adopt(file.into(), &mut std::iter::empty(), true, |_| None).unwrap();
        assert_eq!(segment.is_ok(), is_fixed);
    }
}

#[test]
fn elements_that_another_process_has_frozen_cannot_be_written_and_that_is_known() {
    let claim = claim_of(&[1, 2, 3]);
    let segment = claim.place().0;
    let there = Claim::of(adopted(segment), 0..3, 1).unwrap();
    let frozen = there.freeze().unwrap().unwrap();
    assert_eq!(frozen.data(), [1, 2, 3]);
    segment.set_given();
    let fd = segment.file().unwrap().try_clone_to_owned().unwrap();
    let (id, other) = Segment::adopt(fd, &mut std::iter::empty(), true, |_| None).unwrap();
    assert_eq!(id, segment.id());
    assert!(other.err().unwrap().to_string().contains("has frozen it"));
}

#[test]
fn memory_that_a_task_is_lent_is_not_created_before_it_is_written() {
    let len = 4 << 20;
    let claim = Claim::new(digest::<u8>(), len, 1).unwrap();
    let segment = claim.place().0.clone();
    let blocks = || nix::sys::stat::fstat(segment.file().unwrap()).unwrap().st_blocks;
    let before = blocks();
    let mut attachments = Attachments::default();
    attachments.add(&segment);
    let lend = || with_available(&attachments, || LentMut::<u8>::new(segment.id(), 1, len - 1)).unwrap();
    lend()[len / 2] = 7;
    assert!(blocks() < before + 100, "only what was written");
    lend().fill(1);
    assert_eq!(lend()[len - 2], 1);
    assert_eq!(claim.bytes()[..3], [0, 1, 1]);
}
