//! Publisher confirms of one channel: which publishes wait for how many verdicts, and what may be told the client.
//!
//! ```text
//! publish ──► expect(1) ──► routed(n)? ──► settle(first..=last) ──► flush: ack multiple up to the first gap
//! ```

use std::collections::VecDeque;

/// One acknowledgement frame to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Acknowledgement {
    pub(super) sequence: u64,
    pub(super) multiple: bool,
    pub(super) confirmed: bool,
}

#[derive(Clone, Copy, Debug)]
enum PublishState {
    Waiting {
        verdicts: u32,
        rejected: bool,
    },
    /// Settled and not told yet.
    Settled {
        rejected: bool,
    },
    Told,
}

/// The window of publishes from the oldest that is not told.
#[derive(Debug)]
pub(super) struct Confirms {
    next: u64,
    base: u64,
    window: VecDeque<PublishState>,
    /// Sequences settled out of order since the last flush.
    settled: Vec<u64>,
    waiting: usize,
}

impl Default for Confirms {
    fn default() -> Self {
        Self { next: 1, base: 1, window: VecDeque::new(), settled: Vec::new(), waiting: 0 }
    }
}

impl Confirms {
    /// Numbers the next publish; it waits for one verdict until `routed` says otherwise.
    pub(super) fn expect(&mut self) -> u64 {
        let sequence = self.next;
        self.next += 1;
        self.waiting += 1;
        self.window.push_back(PublishState::Waiting { verdicts: 1, rejected: false });
        sequence
    }

    /// The publish has this many verdicts to come; none settles it.
    pub(super) fn routed(&mut self, sequence: u64, verdicts: u32) {
        if verdicts == 0 {
            return self.settle(sequence, sequence, true);
        }
        if let Some(PublishState::Waiting { verdicts: waiting, .. }) = self.entry(sequence) {
            *waiting = verdicts;
        }
    }

    /// One verdict on each of `first..=last`.
    pub(super) fn settle(&mut self, first: u64, last: u64, confirmed: bool) {
        for sequence in first..=last {
            let Some(entry) = self.entry(sequence) else { continue };
            let PublishState::Waiting { verdicts, rejected } = entry else { continue };
            *verdicts = verdicts.checked_sub(1).expect("no more verdicts come than were told of");
            *rejected |= !confirmed;
            if *verdicts == 0 {
                *entry = PublishState::Settled { rejected: *rejected };
                self.waiting = self.waiting.checked_sub(1).expect("a publish that waits is settled once");
                self.settled.push(sequence);
            }
        }
    }

    /// Publishes that some verdict is missing of.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Tells what has been settled: runs from the oldest as multiple, the rest one by one. Returns whether any was
    /// rejected.
    pub(super) fn flush(&mut self, mut tell: impl FnMut(Acknowledgement)) -> bool {
        let mut any_rejected = false;
        if self.settled.is_empty() {
            return false;
        }
        let mut run: Option<Acknowledgement> = None;
        while let Some(entry) = self.window.front() {
            let told = match *entry {
                PublishState::Waiting { .. } => break,
                PublishState::Told => None,
                PublishState::Settled { rejected } => Some(!rejected),
            };
            let sequence = self.base;
            self.base += 1;
            self.window.pop_front();
            let Some(confirmed) = told else { continue };
            any_rejected |= !confirmed;
            match &mut run {
                Some(run) if run.confirmed == confirmed => {
                    run.sequence = sequence;
                    run.multiple = true;
                }
                _ => {
                    run.take().into_iter().for_each(&mut tell);
                    run = Some(Acknowledgement { sequence, multiple: false, confirmed });
                }
            }
        }
        run.into_iter().for_each(&mut tell);
        self.tell_singles(&mut any_rejected, tell);
        any_rejected
    }

    fn tell_singles(&mut self, any_rejected: &mut bool, mut tell: impl FnMut(Acknowledgement)) {
        let mut settled = std::mem::take(&mut self.settled);
        for sequence in settled.drain(..) {
            let Some(entry) = self.entry(sequence) else { continue };
            if let PublishState::Settled { rejected } = *entry {
                *entry = PublishState::Told;
                *any_rejected |= rejected;
                tell(Acknowledgement { sequence, multiple: false, confirmed: !rejected });
            }
        }
        self.settled = settled;
        if self.window.is_empty() {
            self.window.shrink_to(64);
            self.settled.shrink_to(64);
        }
    }

    fn entry(&mut self, sequence: u64) -> Option<&mut PublishState> {
        self.window.get_mut(usize::try_from(sequence.checked_sub(self.base)?).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flushed(confirms: &mut Confirms) -> Vec<(u64, bool, bool)> {
        let mut told = Vec::new();
        confirms.flush(|a| told.push((a.sequence, a.multiple, a.confirmed)));
        told
    }

    #[test]
    fn settled_runs_are_told_as_multiple() {
        let mut confirms = Confirms::default();
        (0..5).for_each(|_| _ = confirms.expect());
        confirms.settle(1, 3, true);
        assert_eq!(flushed(&mut confirms), [(3, true, true)]);
        confirms.settle(5, 5, true);
        assert_eq!(flushed(&mut confirms), [(5, false, true)]);
        confirms.settle(4, 4, true);
        assert_eq!(flushed(&mut confirms), [(4, false, true)]);
        assert_eq!(confirms.waiting(), 0);
    }

    #[test]
    fn a_rejection_is_never_covered_by_an_ack() {
        let mut confirms = Confirms::default();
        (0..4).for_each(|_| _ = confirms.expect());
        confirms.settle(1, 2, true);
        confirms.settle(3, 3, false);
        confirms.settle(4, 4, true);
        assert_eq!(flushed(&mut confirms), [(2, true, true), (3, false, false), (4, false, true)]);
    }

    #[test]
    fn a_fan_out_waits_for_every_verdict_and_one_rejection_rejects() {
        let mut confirms = Confirms::default();
        let sequence = confirms.expect();
        confirms.routed(sequence, 3);
        confirms.settle(sequence, sequence, true);
        confirms.settle(sequence, sequence, false);
        assert_eq!(flushed(&mut confirms), []);
        confirms.settle(sequence, sequence, true);
        assert_eq!(flushed(&mut confirms), [(1, false, false)]);
    }

    #[test]
    fn an_unroutable_publish_is_confirmed() {
        let mut confirms = Confirms::default();
        let sequence = confirms.expect();
        confirms.routed(sequence, 0);
        assert_eq!(flushed(&mut confirms), [(1, false, true)]);
    }
}
