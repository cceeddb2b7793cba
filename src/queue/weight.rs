//! What messages weigh: the sums that blocks, lanes and queues keep of what is in them.

use std::ops::{Add, AddAssign, Sub, SubAssign};

use super::backlog::Entry;

/// What some messages weigh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    /// Body bytes: what length limits and listings count.
    pub bytes: u64,
    /// Bytes of memory, with properties and bookkeeping: what budgets and windows count.
    pub memory: u64,
}

impl Weight {
    #[inline]
    pub(super) fn of(entry: &Entry) -> Self {
        let deaths = entry.deaths.as_ref().map_or(0, |deaths| deaths.memory());
        Self { bytes: entry.message.body_length() as u64, memory: entry.message.cost() as u64 + deaths }
    }
}

impl Add for Weight {
    type Output = Self;

    #[inline]
    fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, memory: self.memory + other.memory }
    }
}

impl Sub for Weight {
    type Output = Self;

    #[inline]
    fn sub(self, other: Self) -> Self {
        const WHOLE: &str = "a part weighs no more than the whole";
        let bytes = self.bytes.checked_sub(other.bytes).expect(WHOLE);
        Self { bytes, memory: self.memory.checked_sub(other.memory).expect(WHOLE) }
    }
}

impl AddAssign for Weight {
    #[inline]
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Weight {
    #[inline]
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl std::iter::Sum for Weight {
    fn sum<I: Iterator<Item = Self>>(weights: I) -> Self {
        weights.fold(Self::default(), Add::add)
    }
}
