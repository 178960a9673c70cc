//! The functions that the targets in `fuzz/` call. Compiled only with `--cfg fuzzing` and for this crate's own tests.

use crate::{
    codec::{Encoded, output::decode_result},
    frame::Frames,
    protocol::{Reply, Results, ToWorker},
    transport::{Incoming, play_frames},
};

/// Plays a script of what two ends of a ring and a hostile peer do.
///
/// # Panics
///
/// Something does not hold that must.
pub fn hostile_ring(script: &[u8]) {
    crate::ring::play_script(script);
}

/// Receives what a script has a hostile worker send, and decodes it as the host does, and as a worker would.
///
/// # Panics
///
/// Something does not hold that must.
pub fn hostile_frames(script: &[u8]) {
    play_frames(script, |received| match received {
        Incoming::Frames(frames) => {
            let first = frames.split_brief().map_or(0, |(head, ..)| head as u32);
            let (results, rest) = Results::split_from(frames, first, 100);
            let (count, results_len) = (results.len() as usize, results.as_bytes().len());
            assert_eq!(results.count(), count);
            assert!(Results::from_bytes(results.as_bytes(), results.len()).eq(results));
            for result in results {
                decode_as_result(Encoded::Short(result));
            }
            if let Some((frame, rest)) = rest.split_first() {
                decode_frame(frame, &[]);
                frames.as_bytes().len() - rest.as_bytes().len()
            } else {
                assert!(count > 0 || Frames::new(frames.as_bytes()).split_first().is_none());
                results_len
            }
        }
        Incoming::Large { head, body } => {
            decode_frame(&head, &body);
            if let Ok(Reply::Done { result, .. }) = Reply::decode_large(&head, body) {
                decode_as_result(result);
            }
            0
        }
        Incoming::Nothing | Incoming::Paused | Incoming::Closed => 0,
    });
}

fn decode_frame(frame: &[u8], body: &[u8]) {
    if let Ok(Reply::Done { result, .. }) = Reply::decode(frame) {
        decode_as_result(result);
    }
    if let Ok(ToWorker::Run(head, mut tasks)) = ToWorker::decode(frame, body) {
        let mut count = 0;
        while let Ok(Some(task)) = tasks.next() {
            assert_eq!(task.seq, head.first_seq.wrapping_add(count));
            assert!(task.args.len() <= frame.len() + body.len());
            count += 1;
            if count > 1000 {
                break;
            }
        }
    }
}

fn decode_as_result(encoded: Encoded<'_>) {
    match encoded {
        Encoded::Short(bytes) => {
            drop(decode_result::<Vec<u8>>(Encoded::Short(bytes)));
            drop(decode_result::<Vec<(u32, String)>>(Encoded::Short(bytes)));
            drop(decode_result::<Result<Option<u64>, String>>(Encoded::Short(bytes)));
        }
        Encoded::Large(head, body) => {
            drop(decode_result::<Vec<u8>>(Encoded::Large(head.clone(), body.clone())));
            drop(decode_result::<Vec<String>>(Encoded::Large(head, body)));
        }
        Encoded::Attached(_) => {}
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{
        frame::Prefix,
        protocol::{ReplyFrame, ReplyWire},
    };

    #[test]
    fn a_forged_length_reserves_no_more_than_has_arrived() {
        let mut script = vec![0];
        // 128 TiB, and then a little more than is put aside.
        script.extend([0x30, 255, 0x80]);
        script.extend([9; 254]);
        for _ in 0..400 {
            script.extend([0, 255]);
            script.extend([9; 255]);
        }
        hostile_frames(&script);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_from_a_peer_are_refused_or_decoded(script in vec(any::<u8>(), 0..600)) {
            hostile_frames(&script);
        }

        /// Whole frames of each kind of message, and frames that are longer than they say, or shorter.
        #[test]
        fn well_formed_frames_that_lie_are_refused_or_decoded_and_reserve_little(
            over_memory in any::<bool>(),
            frames in vec((any::<bool>(), 129u8..138, vec(any::<u8>(), 0..200)), 0..40),
        ) {
            let mut script = vec![u8::from(over_memory)];
            for (lies, tag, mut body) in frames {
                body.insert(0, tag);
                script.extend([if lies { 0x30 } else { 0x10 }, body.len() as u8]);
                script.extend(body);
            }
            hostile_frames(&script);
        }

        /// Whole replies, of which some bytes are others.
        #[test]
        fn replies_that_are_spoilt_are_refused_or_decoded(
            over_memory in any::<bool>(),
            spoilt in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            let (mut bytes, mut reply) = (Vec::new(), ReplyFrame::new());
            for seq in 1..9u32 {
                reply.make(seq, |result, _| {
                    result.extend((0..seq as u8).map(|n| n ^ 3));
                    Ok(())
                });
                let ReplyWire::Brief(head, body) = reply.wire() else { panic!("it is short") };
                bytes.extend_from_slice(&Prefix::Brief { head, len: body.len() }.to_bytes());
                bytes.extend_from_slice(body);
            }
            for (at, byte) in spoilt {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let mut script = vec![u8::from(over_memory)];
            for piece in bytes.chunks(100) {
                script.extend([0, piece.len() as u8]);
                script.extend_from_slice(piece);
            }
            hostile_frames(&script);
        }
    }
}
