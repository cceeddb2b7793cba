//! Changes and snapshots as bytes: there and back, damaged, made up.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::{DecodeError, SnapshotError, decode_snapshot, encode_snapshot};
use super::*;

#[test]
fn every_change_comes_back_as_it_was() {
    for change in one_of_each() {
        assert_eq!(Change::decode(&encoded(&change)).unwrap(), change);
    }
}

#[test]
fn exchanges_of_all_kinds_come_back() {
    use ExchangeKind::*;
    for kind in [Direct, Fanout, Topic, Headers, ConsistentHash, ModulusHash, Random, LocalRandom, RecentHistory] {
        let exchange = Arc::new(Exchange {
            name: kind.name().into(),
            kind,
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: FieldTable::default(),
            alternate: None,
        });
        let change = Change::AddExchange { vhost: "/".into(), exchange };
        assert_eq!(Change::decode(&encoded(&change)).unwrap(), change);
    }
}

/// The format is a promise to later versions: these bytes must be understood for ever.
#[test]
fn the_bytes_of_a_change_are_these() {
    let change = Change::RemoveQueue { vhost: "/".into(), queue: "ab".into(), id: QueueId(0x0102) };
    let expected = b"\x01\x06\x01\0\x01\0\0\0/\x02\0\x02\0\0\0ab\x03\0\x08\0\0\0\x02\x01\0\0\0\0\0\0";
    assert_eq!(encoded(&change), expected);
    let snapshot = encode_snapshot(&[change], 7);
    assert_eq!(&snapshot[..8], b"WARRNDEF");
    assert_eq!(snapshot[12..40], *b"\x01\0\0\0\x4b\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0");
    assert_eq!(snapshot[40..44], *b"\x1f\0\0\0");
    assert_eq!(snapshot[44..], *expected);
}

#[test]
fn unknown_fields_are_skipped_and_unknown_versions_named() {
    for change in one_of_each() {
        let mut bytes = encoded(&change);
        bytes.extend_from_slice(b"\xf0\xf0\x03\0\0\0new");
        assert_eq!(Change::decode(&bytes).unwrap(), change);
        bytes[0] = 9;
        let error = Change::decode(&bytes).unwrap_err();
        assert!(matches!(error, DecodeError::Version(9)) && error.to_string().contains('9'), "{error}");
    }
    for kind in [0, 14, 255] {
        assert!(matches!(Change::decode(&[1, kind]), Err(DecodeError::Kind(found)) if found == kind));
    }
}

#[test]
fn a_change_that_is_cut_off_is_no_change() {
    for change in one_of_each() {
        let bytes = encoded(&change);
        let mut boundaries = 0;
        for length in 0..bytes.len() {
            match Change::decode(&bytes[..length]) {
                Err(_) => {}
                // Cut between fields: what is left has all it needs, since the rest has defaults.
                Ok(shorter) => {
                    assert_ne!(shorter, change);
                    boundaries += 1;
                }
            }
        }
        assert!(boundaries <= 6, "{boundaries}: {change:?}");
    }
}

#[test]
fn password_hashes_of_another_kind_are_named() {
    let bytes = encoded(&Change::SetUser { user: Arc::new(user("u", &[], &[])) });
    let at = bytes.windows(4).position(|window| window == [1, 2, 3, 4]).unwrap() - 1;
    let mut other = bytes.clone();
    other[at] = 7;
    assert!(matches!(Change::decode(&other), Err(DecodeError::PasswordHash(7))));
    assert!(Change::decode(&bytes).is_ok());
}

fn small_snapshot() -> Vec<u8> {
    encode_snapshot(&one_of_each(), 42)
}

#[test]
fn a_snapshot_comes_back_as_it_was() {
    let snapshot = decode_snapshot(&small_snapshot()).unwrap();
    assert_eq!((snapshot.through, snapshot.changes), (42, one_of_each()));
    let empty = decode_snapshot(&encode_snapshot(&Metadata::new(&settings()).durable(), u64::MAX)).unwrap();
    assert_eq!((empty.through, empty.changes.len()), (u64::MAX, 1));
}

#[test]
fn every_flipped_bit_is_found() {
    let whole = small_snapshot();
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            let error = decode_snapshot(&bytes).unwrap_err();
            assert!(error.is_damage(), "bit {bit} of byte {at}: {error}");
        }
    }
}

#[test]
fn every_truncation_and_every_hole_is_found() {
    let whole = small_snapshot();
    for length in 0..whole.len() {
        assert!(decode_snapshot(&whole[..length]).unwrap_err().is_damage(), "{length} bytes");
    }
    let longer = [whole.as_slice(), &[0]].concat();
    assert!(decode_snapshot(&longer).unwrap_err().is_damage());
    // Runs of zeroes of every place and of several lengths, where they change anything.
    for length in [1, 16, 64, 512, whole.len()] {
        for start in 0..whole.len() {
            let mut bytes = whole.clone();
            let end = (start + length).min(whole.len());
            bytes[start..end].fill(0);
            assert!(bytes == whole || decode_snapshot(&bytes).unwrap_err().is_damage(), "{start}..{end}");
        }
    }
}

/// A snapshot with a right checksum.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = bytes.len() as u64;
    bytes[16..24].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[12..]);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

#[test]
fn a_newer_snapshot_is_refused_as_such() {
    let mut bytes = small_snapshot();
    bytes[12] = 2;
    let error = decode_snapshot(&sealed(bytes.clone())).unwrap_err();
    assert!(matches!(error, SnapshotError::Version(2)) && !error.is_damage());
    assert!(error.to_string().contains("newer"), "{error}");
    // A damaged version number is damage.
    assert!(decode_snapshot(&bytes).unwrap_err().is_damage());
}

#[test]
fn a_count_that_is_not_that_of_the_changes_is_found() {
    for count in [0, 1, 12, u64::MAX] {
        let mut bytes = small_snapshot();
        bytes[32..40].copy_from_slice(&count.to_le_bytes());
        assert!(matches!(decode_snapshot(&sealed(bytes)), Err(SnapshotError::Count)), "{count}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_danger(bytes in vec(prop_oneof![0u8..20, any::<u8>()], 0..200)) {
        let _ = Change::decode(&bytes);
        let _ = decode_snapshot(&bytes);
        let framed = [vec![0; 40], bytes.clone()].concat();
        let mut framed = sealed([&b"WARRNDEF"[..], &framed[8..]].concat());
        framed[32] = 3;
        let _ = decode_snapshot(&sealed(framed));
        for kind in 1..=9 {
            let change = [&[1, kind], bytes.as_slice()].concat();
            if let Ok(change) = Change::decode(&change) {
                let again = Change::decode(&encoded(&change)).unwrap();
                prop_assert_eq!(encoded(&again), encoded(&change));
            }
        }
    }

    #[test]
    fn damaged_changes_neither_panic_nor_confuse_a_replay(
        picks in vec((0usize..11, any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 0..40),
    ) {
        let mut metadata = Metadata::new(&settings());
        let _ = metadata.replay(Change::SetVhost { vhost: "/".into(), metadata: Arc::default() });
        for (which, at, byte, damage) in picks {
            let mut bytes = encoded(&one_of_each()[which]);
            let at = at.index(bytes.len());
            if damage {
                bytes[at] = byte;
            }
            if let Ok(change) = Change::decode(&bytes) {
                let _ = metadata.replay(change);
            }
        }
        // Whatever they made can be stored, and made again.
        let durable = metadata.durable();
        prop_assert_eq!(by_bytes(&rebuilt(&durable).durable()), by_bytes(&durable));
        prop_assert!(metadata.new_queue_id().0 >= 16);
    }
}
