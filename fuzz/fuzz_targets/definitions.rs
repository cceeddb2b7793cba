//! Durable definitions from arbitrary bytes: reading never panics, and what was read can be written and read again
//! without a change, as a change of its own and within a snapshot. Snapshots get a header that fits, as the checksum would
//! keep everything else out.

#![no_main]

use libfuzzer_sys::fuzz_target;
use warren::broker::definitions::{Change, decode_snapshot, encode_snapshot};

const HEADER_LENGTH: usize = 40;

fuzz_target!(|data: &[u8]| {
    let _ = decode_snapshot(data);
    if let Ok(change) = Change::decode(data) {
        check(&[change]);
    }
    let Some((count, changes)) = data.split_first() else {
        return;
    };
    if let Ok(snapshot) = decode_snapshot(&snapshot(*count, changes)) {
        assert_eq!(snapshot.through, 7);
        check(&snapshot.changes);
    }
});

/// What was read is written, read and written again. Compared as bytes, since not every number equals itself.
fn check(changes: &[Change]) {
    let first = encode_snapshot(changes, 7);
    match decode_snapshot(&first) {
        Ok(again) => assert_eq!(encode_snapshot(&again.changes, again.through), first),
        Err(error) => panic!("what was encoded does not decode: {error}"),
    }
}

/// A snapshot with a right header before these bytes.
fn snapshot(count: u8, changes: &[u8]) -> Vec<u8> {
    let mut bytes = encode_snapshot(&[], 7);
    bytes.truncate(HEADER_LENGTH);
    bytes.extend_from_slice(changes);
    let length = bytes.len() as u64;
    bytes[16..24].copy_from_slice(&length.to_le_bytes());
    bytes[32..40].copy_from_slice(&u64::from(count).to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[12..]);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    bytes
}
