//! Arbitrary method payloads on an open channel and on channel 0: they never panic, and every frame that answers them
//! is whole.
//!
//! Input: lines of a length octet and as many bytes of payload; the length's highest bit chooses channel 0.

#![no_main]

use libfuzzer_sys::fuzz_target;
use warren_fuzz::{Answers, Peer, method_frame};

fuzz_target!(|data: &[u8]| {
    let mut peer = Peer::opened(Answers::AtOnce, 0);
    let mut rest = data;
    while let Some((&length, tail)) = rest.split_first() {
        let (payload, tail) = tail.split_at(usize::from(length & 0x7F).min(tail.len()));
        peer.feed(&method_frame(u16::from(length < 0x80), payload));
        rest = tail;
    }
    peer.end();
    assert_whole_frames(&peer.output);
});

fn assert_whole_frames(mut output: &[u8]) {
    while let Some((head, rest)) = output.split_first_chunk::<7>() {
        let [kind, _, _, size @ ..] = *head;
        assert!(matches!(kind, 1 | 2 | 3 | 8), "frame type {kind}");
        let size = u32::from_be_bytes(size) as usize;
        assert_eq!(rest.get(size), Some(&0xCE), "frame of {size} bytes");
        output = &rest[size + 1..];
    }
    assert!(output.is_empty());
}
