//! A small seeded generator for names and random routing: reproducible from its seed, not for secrets.

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Random {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// `<prefix>-` and 22 characters of base64url: the form of RabbitMQ's generated names (128 random bits).
    pub fn name(&mut self, prefix: &str) -> String {
        let mut name = format!("{prefix}-");
        for _ in 0..2 {
            let mut bits = self.next_bits();
            for _ in 0..11 {
                name.push(char::from(ALPHABET[(bits & 63) as usize]));
                bits = bits.rotate_right(6);
            }
        }
        name
    }
}
