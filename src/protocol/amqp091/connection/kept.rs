//! What a connection keeps of its input: frames of channels that wait for an answer or for the end of an alarm, and bytes
//! that came while there was no credit.

use std::mem;

use super::super::channel::{Channel, Kept, take_off};
use super::super::codec::{BodyPiece, Frame};
use super::super::method;
use super::{Connection, OUTPUT_MAX, Phase, State};
use crate::model::ids::Timestamp;
use crate::model::request::Request;

impl Connection {
    /// Keeps what `receive` has left over, until the broker takes more requests.
    pub fn keep_input(&mut self, rest: &[u8]) {
        self.held.extend_from_slice(rest);
    }

    /// Whether there is something to be done by `go_on` before the socket is read, and it can be done.
    #[must_use]
    pub fn can_go_on(&self) -> bool {
        let has_frames = !self.held_back.is_empty() && !self.blocked && self.output.len() < OUTPUT_MAX;
        has_frames || !self.held.is_empty() && self.state != State::Header && self.wants_input()
    }

    /// Handles frames that were kept for want of credit, as far as they make requests to be handled at once. Returns input
    /// that was kept and is to be received before any other, once no frames are left; to be called while `can_go_on`.
    pub fn go_on(&mut self, now: Timestamp, requests: &mut Vec<Request>) -> Vec<u8> {
        if !self.blocked {
            self.replay_held_back(now, requests);
        }
        let has_frames = !self.held_back.is_empty() && !self.blocked;
        if has_frames || !self.wants_input() { Vec::new() } else { mem::take(&mut self.held) }
    }

    /// Handles the frames a channel kept while it waited, until it waits again.
    pub(super) fn replay(&mut self, number: u16, now: Timestamp, requests: &mut Vec<Request>) {
        loop {
            let Some(channel) = self.channels.get_mut(&number) else { return };
            if channel.phase != Phase::Open || channel.is_waiting() {
                return;
            }
            let is_publish = channel.kept.front().is_some_and(Kept::is_publish);
            if self.blocked && is_publish || requests.len() >= self.requests_max && !channel.kept.is_empty() {
                return self.hold_back(number);
            }
            let Some(kept) = channel.kept.pop_front() else { return };
            take_off(&mut self.kept, kept.cost());
            let frame = match &kept {
                Kept::Method(payload) => Frame::Method { channel: number, payload },
                Kept::Header(payload) => Frame::Header { channel: number, payload },
                Kept::Body { piece, left, end } => {
                    let body = BodyPiece { piece, start: false, left: *left, end: *end };
                    Frame::Body { channel: number, body }
                }
            };
            self.with_channel(number, now, requests, |channel, turn| channel.frame(turn, &frame));
        }
    }

    pub(super) fn hold_back(&mut self, number: u16) {
        if !self.held_back.contains(&number) {
            self.held_back.push(number);
        }
    }

    pub(super) fn replay_held_back(&mut self, now: Timestamp, requests: &mut Vec<Request>) {
        for number in mem::take(&mut self.held_back) {
            self.replay(number, now, requests);
        }
    }
}

/// Whether a channel that waits for no answer keeps the frame: behind others; of a blocked connection, publishes and what
/// follows one on its channel. Acknowledgements overtake those, so that consumers go on.
pub(super) fn keeps(channel: &Channel, frame: &Frame<'_>, blocked: bool) -> bool {
    if !blocked {
        return !channel.kept.is_empty();
    }
    const PUBLISH: (u16, u16) = (60, 40);
    const SETTLEMENTS: [(u16, u16); 3] = [(60, 80), (60, 90), (60, 120)];
    match *frame {
        Frame::Method { payload, .. } if SETTLEMENTS.contains(&method::ids(payload)) => false,
        Frame::Method { payload, .. } => !channel.kept.is_empty() || method::ids(payload) == PUBLISH,
        Frame::Header { .. } | Frame::Body { .. } | Frame::Heartbeat { .. } | Frame::Unknown { .. } => {
            !channel.kept.is_empty()
        }
    }
}

impl Kept {
    fn is_publish(&self) -> bool {
        matches!(self, Self::Method(payload) if method::ids(payload) == (60, 40))
    }

    pub(super) fn body(body: &BodyPiece<'_>) -> Self {
        Self::Body { piece: body.piece.into(), left: body.left, end: body.end }
    }

    /// Bytes it holds, bookkeeping included.
    pub(super) fn cost(&self) -> usize {
        let (Self::Method(bytes) | Self::Header(bytes) | Self::Body { piece: bytes, .. }) = self;
        bytes.len() + 32
    }
}
