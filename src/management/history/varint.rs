//! Numbers of 7 bits a byte, the lowest first: small ones take one byte.

/// Appends a number: 1 byte below 128, at most 10.
pub(super) fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Appends a difference; small ones of either sign take few bytes.
pub(super) fn put_signed(bytes: &mut Vec<u8>, difference: u64) {
    let signed = difference as i64;
    put(bytes, ((signed << 1) ^ (signed >> 63)) as u64);
}

/// Reads a number at `at` and moves `at` behind it; none if the bytes end before it does or it has more than 64 bits.
pub(super) fn get(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

pub(super) fn get_signed(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let coded = get(bytes, at)?;
    Some((coded >> 1) ^ (coded & 1).wrapping_neg())
}

/// Reads a number that must fit 32 bits.
pub(super) fn get_u32(bytes: &[u8], at: &mut usize) -> Option<u32> {
    u32::try_from(get(bytes, at)?).ok()
}

/// Moves `at` behind one number; at the end it stays there.
pub(super) fn skip(bytes: &[u8], at: &mut usize) {
    while let Some(byte) = bytes.get(*at) {
        *at += 1;
        if *byte < 0x80 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_comes_back() {
        let numbers = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1_u64 << bit) + 1]).chain([u64::MAX]);
        for number in numbers {
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            put_signed(&mut bytes, number);
            let mut at = 0;
            assert_eq!(get(&bytes, &mut at), Some(number));
            let mut skipped = 0;
            skip(&bytes, &mut skipped);
            assert_eq!(skipped, at);
            assert_eq!(get_signed(&bytes, &mut at), Some(number));
            assert_eq!(at, bytes.len());
            assert_eq!(get(&bytes[..at - 1], &mut skipped), None, "cut short");
        }
        assert_eq!(get(&[0xff; 10], &mut 0), None, "more than 64 bits");
    }

    #[test]
    fn small_differences_take_one_byte() {
        for difference in [0_i64, 1, -1, 63, -64] {
            let mut bytes = Vec::new();
            put_signed(&mut bytes, difference as u64);
            assert_eq!(bytes.len(), 1, "{difference}");
        }
    }
}
