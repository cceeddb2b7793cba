//! Faults that the simulation must find, made between a turn and what becomes of its output.

use super::super::super::Broker;
use super::super::super::envelope::Envelope;
use super::super::super::shard::TurnOutput;
use crate::log::Batch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutation {
    None,
    /// Clients are told before what they are told of is durable.
    ConfirmEarly,
    /// A shard is told that letters are kept before they are durable, and so settles what they come from.
    SettleEarly,
    /// The definition of a queue is removed before what was done in it is in the log.
    RemoveEarly,
    /// The broker stops while letters are under way.
    StopEarly,
}

impl Mutation {
    pub(super) fn apply(self, broker: &Broker, output: &mut TurnOutput) {
        let held = &mut output.submission.held;
        match self {
            Self::None | Self::StopEarly => {}
            Self::ConfirmEarly => output.events.append(&mut held.events),
            Self::SettleEarly => {
                for (shard, letters) in held.letters.drain(..) {
                    broker.post(shard, Envelope::LettersKept(letters));
                }
            }
            Self::RemoveEarly => broker.remove_queues(&mut output.removed, &mut Batch::default()),
        }
    }
}
