//! What befalls the broker: power losses, kills, stops, disks that fill up and fail.

use std::io::ErrorKind;

use super::World;
use crate::log::memory::Operation;

/// How a life of the broker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The power is lost.
    Crash,
    /// The process is killed, the disk goes on.
    Kill,
    /// As it should.
    Stop,
}

impl World {
    pub(super) fn end(&mut self) -> End {
        match self.below(5) {
            0 => End::Kill,
            1 | 2 => End::Crash,
            _ => End::Stop,
        }
    }

    /// The disk has this much room from now on, or enough.
    pub(super) fn disk_fills(&mut self) {
        let room = self.below(400_000) as u64;
        let full = (self.below(3) == 0).then_some(room);
        self.disk.set_capacity(full);
    }

    /// One of the next syncs or writes fails, which the broker does not survive.
    pub(super) fn disk_fails_soon(&mut self) {
        let operation = if self.below(2) == 0 { Operation::Sync } else { Operation::Write };
        let after = self.below(3) as u64;
        self.disk.fail_next(operation, ErrorKind::Other, after);
    }

    /// What is left on the disk after this end.
    pub(super) fn lose(&mut self, end: End) {
        self.watch(0, &end);
        match end {
            End::Crash => self.disk.crash(&mut self.random),
            End::Kill => self.disk.kill(),
            // Nothing depends on what was not synced.
            End::Stop if self.below(2) == 0 => self.disk.crash(&mut self.random),
            End::Stop => self.disk.kill(),
        }
        self.disk.set_capacity(None);
        if end != End::Stop {
            self.oracle.crash();
        }
    }
}
