//! The messages of a publisher that are not confirmed yet.

use super::error::PerfError;

/// When each unconfirmed message was sent, by delivery tag.
#[derive(Debug)]
pub(super) struct Window {
    limit: usize,
    /// A ring by the tag's low bits; 0 is a message that is confirmed.
    sent: Vec<u64>,
    /// The tag from which on any may be unconfirmed.
    oldest: u64,
    next: u64,
    open: usize,
}

impl Window {
    /// At most `limit` messages are unconfirmed.
    pub(super) fn new(limit: usize) -> Self {
        // More places than messages: confirms need not come in order.
        Self { limit, sent: vec![0; (limit * 4).next_power_of_two()], oldest: 1, next: 1, open: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Messages that may be sent now.
    pub(super) fn room(&self) -> usize {
        let places = self.sent.len() - usize::try_from(self.next - self.oldest).unwrap_or(self.sent.len());
        places.min(self.limit - self.open)
    }

    /// Notes `count` messages as sent at this time; there must be room.
    pub(super) fn send(&mut self, count: usize, nanoseconds: u64) {
        for _ in 0..count {
            let place = self.place(self.next);
            self.sent[place] = nanoseconds.max(1);
            self.next += 1;
        }
        self.open += count;
    }

    /// Confirms a message, or all up to it. `each` gets a time and how many messages were sent then; the result is how many
    /// messages were confirmed.
    ///
    /// # Errors
    /// [`PerfError::Malformed`] for a message that was not sent.
    pub(super) fn confirm(
        &mut self,
        tag: u64,
        multiple: bool,
        mut each: impl FnMut(u64, u64),
    ) -> Result<u64, PerfError> {
        if tag >= self.next || (tag == 0 && !multiple) {
            return Err(PerfError::Malformed);
        }
        let last = if tag == 0 { self.next - 1 } else { tag };
        let first = if multiple { self.oldest } else { last };
        let mut confirmed = 0;
        let (mut time, mut run) = (0, 0);
        for tag in first..=last {
            let place = self.place(tag);
            // A tag behind `oldest` shares its place with a later one.
            let sent = if tag < self.oldest { 0 } else { std::mem::take(&mut self.sent[place]) };
            if sent == 0 {
                continue;
            }
            if sent != time && run > 0 {
                each(time, run);
                run = 0;
            }
            (time, run) = (sent, run + 1);
            confirmed += 1;
        }
        if run > 0 {
            each(time, run);
        }
        while self.oldest < self.next && self.sent[self.place(self.oldest)] == 0 {
            self.oldest += 1;
        }
        self.open -= usize::try_from(confirmed).unwrap_or(self.open);
        Ok(confirmed)
    }

    #[inline]
    fn place(&self, tag: u64) -> usize {
        // The length is a power of two, so the low bits are all that counts.
        #[expect(clippy::cast_possible_truncation, reason = "the mask is applied at once")]
        let low = tag as usize;
        low & (self.sent.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirm(window: &mut Window, tag: u64, multiple: bool) -> (u64, Vec<(u64, u64)>) {
        let mut times = Vec::new();
        let confirmed = window.confirm(tag, multiple, |time, count| times.push((time, count))).unwrap();
        (confirmed, times)
    }

    #[test]
    fn the_limit_holds_and_confirms_make_room() {
        let mut window = Window::new(3);
        assert_eq!(window.room(), 3);
        window.send(2, 10);
        window.send(1, 20);
        assert_eq!(window.room(), 0);
        assert_eq!(confirm(&mut window, 3, true), (3, vec![(10, 2), (20, 1)]));
        assert!(window.is_empty() && window.room() == 3);
    }

    #[test]
    fn confirms_may_come_in_any_order_and_twice() {
        let mut window = Window::new(4);
        window.send(4, 1);
        assert_eq!(confirm(&mut window, 3, false), (1, vec![(1, 1)]));
        assert_eq!(confirm(&mut window, 3, false).0, 0);
        assert_eq!(confirm(&mut window, 4, true), (3, vec![(1, 3)]));
        assert_eq!(confirm(&mut window, 2, true).0, 0);
        window.send(1, 5);
        assert_eq!(confirm(&mut window, 0, true).0, 1);
    }

    #[test]
    fn a_late_first_confirm_stops_the_publisher_before_its_place_is_reused() {
        let mut window = Window::new(2);
        window.send(1, 1);
        let mut last = 1;
        while window.room() > 0 {
            window.send(1, 2);
            last += 1;
            assert_eq!(confirm(&mut window, last, false).0, 1);
        }
        assert_eq!(last, 8);
        assert_eq!(confirm(&mut window, 1, false), (1, vec![(1, 1)]));
        assert_eq!(window.room(), 2);
    }

    #[test]
    fn tags_that_were_never_sent_are_refused() {
        let mut window = Window::new(2);
        window.send(1, 1);
        assert!(window.confirm(2, false, |_, _| ()).is_err());
        assert!(window.confirm(0, false, |_, _| ()).is_err());
    }
}
