//! Time that moves when the simulation says so.

use crate::model::ids::Timestamp;
use crate::model::random::Random;

pub(super) struct Clock(Timestamp);

impl Clock {
    pub(super) fn new() -> Self {
        Self(Timestamp(1_000_000))
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0
    }

    /// Some milliseconds pass, now and then more.
    pub(super) fn tick(&mut self, random: &mut Random) {
        let bits = random.next_bits();
        let passed = if bits.is_multiple_of(16) { 50 } else { bits >> 8 & 3 };
        self.0 = self.0.plus(passed);
    }
}
