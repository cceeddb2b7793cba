//! How long things took, by class.

/// Upper bounds of the classes of `Durations`, in milliseconds; one more class has what took longer.
pub const DURATION_BOUNDS_MS: [u64; 11] = [1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576];
/// How many classes there are.
pub const CLASSES: usize = DURATION_BOUNDS_MS.len() + 1;

/// How many things took how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// By class, not summed up.
    pub counts: [u64; CLASSES],
    pub sum_ms: u64,
}

impl Durations {
    #[inline]
    pub fn add(&mut self, ms: u64) {
        // The bounds are powers of four.
        let bits = 64 - ms.saturating_sub(1).leading_zeros();
        let class = if ms <= 1 { 0 } else { bits.div_ceil(2) as usize };
        self.counts[class.min(CLASSES - 1)] += 1;
        self.sum_ms = self.sum_ms.saturating_add(ms);
    }

    /// Adds everything that others counted.
    pub fn add_all(&mut self, others: &Self) {
        for (count, others) in self.counts.iter_mut().zip(others.counts) {
            *count = count.wrapping_add(others);
        }
        self.sum_ms = self.sum_ms.saturating_add(others.sum_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_class_of_their_bound() {
        let class_of = |ms: u64| {
            let mut durations = Durations::default();
            durations.add(ms);
            durations.counts.iter().position(|count| *count == 1).unwrap()
        };
        assert_eq!(class_of(0), 0);
        for (class, bound) in DURATION_BOUNDS_MS.into_iter().enumerate() {
            assert_eq!(class_of(bound), class, "{bound} ms");
            assert_eq!(class_of(bound + 1), class + 1, "{bound} ms and one");
        }
        assert_eq!(class_of(u64::MAX), CLASSES - 1);
    }
}
