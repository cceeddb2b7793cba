//! Arbitrary bytes after a scripted handshake, and instead of one. They never panic and never make the connection answer
//! without bound; and however the socket cuts them, the same requests and the same answers come out.
//!
//! Input: a byte that chooses the cuts and the broker's mischief, then what the client sends.

#![no_main]

use libfuzzer_sys::fuzz_target;
use warren_fuzz::{Answers, Peer, repair_body_frames};

fuzz_target!(|data: &[u8]| {
    let Some((&choice, sent)) = data.split_first() else { return };

    for mut peer in [Peer::opened(Answers::AtOnce, u64::from(choice)), Peer::new(Answers::AtOnce, 0)] {
        cut(sent, choice).for_each(|piece| peer.feed(piece));
        peer.end();
    }

    let mut sent = sent.to_vec();
    repair_body_frames(&mut sent);
    let whole = outcome([&sent[..]].into_iter());
    assert_eq!(whole, outcome(sent.chunks(1)), "one by one");
    assert_eq!(whole, outcome(cut(&sent, choice)), "cut by {choice}");
});

/// What the connection asks and says when the answers come after all input.
fn outcome<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, String) {
    let mut peer = Peer::opened(Answers::Late, 0);
    pieces.for_each(|piece| peer.feed(piece));
    peer.end();
    (peer.log, peer.output.escape_ascii().to_string())
}

/// Pieces whose lengths follow from `choice`.
fn cut(mut bytes: &[u8], choice: u8) -> impl Iterator<Item = &[u8]> {
    let mut state = u32::from(choice);
    std::iter::from_fn(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = (1 + (state >> 24) as usize % 41).min(bytes.len());
        let (piece, rest) = bytes.split_at(length);
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}
