//! Signs of life: when to give one, and when one is missed. `connection` asks; nothing here sends or closes.

use super::codec::{FRAME_END, HEARTBEAT};
use crate::model::ids::Timestamp;

pub(super) const HEARTBEAT_FRAME: [u8; 8] = [HEARTBEAT, 0, 0, 0, 0, 0, 0, FRAME_END];

/// Checks without a sign of life after which a client is given up: two to three intervals after its last byte.
const SILENT_CHECKS_MAX: u8 = 2;

/// The heartbeats of one connection.
#[derive(Debug, Default)]
pub(super) struct Heartbeats {
    /// Milliseconds; 0 is off.
    interval: u64,
    /// When the next heartbeat is due, every half interval.
    next_beat: Timestamp,
    next_check: Timestamp,
    /// Bytes came since the last check.
    heard: bool,
    /// Bytes could not be heard at some time since the last check.
    deaf: bool,
    silent_checks: u8,
    /// The socket took something else than heartbeats since the last check.
    took: bool,
    /// Bytes of heartbeats that stand in front of the output.
    beat_bytes: usize,
}

impl Heartbeats {
    /// With this interval in milliseconds, from `now` on.
    pub(super) fn every(interval: u64, now: Timestamp) -> Self {
        Self { interval, next_beat: now.plus(interval / 2), next_check: now.plus(interval), ..Self::default() }
    }

    pub(super) fn note_heard(&mut self) {
        self.heard = true;
    }

    pub(super) fn note_deaf(&mut self) {
        self.deaf = true;
    }

    /// The socket took so many bytes. A heartbeat of ours is no sign of life of the client.
    pub(super) fn note_written(&mut self, bytes: usize) {
        let beats = self.beat_bytes.min(bytes);
        self.beat_bytes -= beats;
        if bytes > beats {
            self.took = true;
        }
    }

    /// When to look again; none without heartbeats.
    pub(super) fn next(&self) -> Option<Timestamp> {
        (self.interval != 0).then(|| self.next_beat.min(self.next_check))
    }

    /// Whether to send a heartbeat: nothing waits to be sent, which will tell the client as much once the socket takes it.
    /// What was sent lately keeps none back: until the one after it nearly a whole interval would pass in silence, which
    /// strict clients do not bear.
    pub(super) fn is_due(&mut self, now: Timestamp, waiting: usize) -> bool {
        if self.interval == 0 || now < self.next_beat {
            return false;
        }
        self.next_beat = now.plus(self.interval / 2);
        let is_due = waiting == 0;
        if is_due {
            self.beat_bytes = HEARTBEAT_FRAME.len();
        }
        is_due
    }

    /// Whether the client has been silent for too long. While it takes too little of the output, which is then `full`, the
    /// socket is not read: that some was taken is a sign of life, the only one there can be.
    pub(super) fn is_silent(&mut self, now: Timestamp, full: bool) -> bool {
        if self.interval == 0 || now < self.next_check {
            return false;
        }
        self.next_check = now.plus(self.interval);
        let took = std::mem::take(&mut self.took) && full;
        let deaf = std::mem::take(&mut self.deaf);
        let heard = std::mem::take(&mut self.heard);
        self.silent_checks = if heard || deaf || took { 0 } else { self.silent_checks + 1 };
        self.silent_checks >= SILENT_CHECKS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: u64 = 10_000;

    /// Looks whenever it is time to, with the output taken at once if the peer's system takes it; when the peer is given up.
    fn ends(takes: bool, heard_until: u64, mut also: impl FnMut(&mut Heartbeats, u64)) -> (Option<u64>, Vec<u64>) {
        let mut heartbeats = Heartbeats::every(INTERVAL, Timestamp(0));
        let (mut waiting, mut beats) = (0, Vec::new());
        while let Some(now) = heartbeats.next().filter(|now| now.0 <= 10 * INTERVAL) {
            if now.0 <= heard_until {
                heartbeats.note_heard();
            }
            also(&mut heartbeats, now.0);
            if heartbeats.is_due(now, waiting) {
                beats.push(now.0);
                waiting = HEARTBEAT_FRAME.len();
            }
            if takes {
                heartbeats.note_written(std::mem::take(&mut waiting));
            }
            if heartbeats.is_silent(now, false) {
                return (Some(now.0), beats);
            }
        }
        (None, beats)
    }

    #[test]
    fn an_idle_connection_beats_every_half_interval() {
        let (end, beats) = ends(true, u64::MAX, |_, _| {});
        assert_eq!(end, None);
        let expected: Vec<u64> = (1..=20).map(|half| half * INTERVAL / 2).collect();
        assert_eq!(beats, expected);
    }

    #[test]
    fn what_is_sent_keeps_no_heartbeat_back() {
        let (_, beats) = ends(true, u64::MAX, |heartbeats, _| heartbeats.note_written(1));
        assert_eq!(beats[..3], [INTERVAL / 2, INTERVAL, INTERVAL * 3 / 2]);
    }

    #[test]
    fn a_silent_peer_is_given_up_after_two_to_three_intervals() {
        for takes in [true, false] {
            for last in [0, INTERVAL, 3 * INTERVAL] {
                let (end, beats) = ends(takes, last, |_, _| {});
                let silence = end.map(|end| end - last);
                assert!(silence.is_some_and(|silence| (2 * INTERVAL..=3 * INTERVAL).contains(&silence)), "{end:?}");
                assert!(takes || beats.len() == 1, "heartbeats do not pile up: {beats:?}");
            }
        }
    }

    #[test]
    fn what_the_peers_system_takes_is_no_life_while_the_socket_is_read() {
        let (end, _) = ends(true, 0, |heartbeats, _| heartbeats.note_written(100));
        assert_eq!(end, Some(2 * INTERVAL));
    }

    #[test]
    fn nobody_is_missed_who_could_not_be_heard() {
        let (end, _) = ends(true, 0, |heartbeats, now| {
            if now <= 5 * INTERVAL {
                heartbeats.note_deaf();
            }
        });
        assert_eq!(end, Some(7 * INTERVAL));
    }
}
