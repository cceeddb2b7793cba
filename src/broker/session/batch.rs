//! What a session has gathered for one shard. Publishes to one queue right behind each other are a run: they cross to the
//! shard as one thing.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::ids::QueueId;
use crate::queue::Publish;

use super::super::envelope::{Envelope, Recipients, Run};
use super::super::outbox::Outbox;

/// Messages in a run: what there is to do for an envelope is spread over enough of them.
const RUN_MAX: usize = 64;
/// For how many there is room in one at least.
const RUN_MIN: usize = 4;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct ShardBatch {
    envelopes: Vec<Envelope>,
    /// Bytes of credit of what is published among them.
    published: usize,
    /// The session has introduced itself to the shard.
    pub(super) is_attached: bool,
    /// Messages in the last run so far.
    run_length: usize,
    /// How long runs were lately.
    usual_length: usize,
}

impl ShardBatch {
    pub(super) fn is_empty(&self) -> bool {
        self.envelopes.is_empty()
    }

    pub(super) fn push(&mut self, envelope: Envelope) {
        self.envelopes.push(envelope);
    }

    /// Adds an envelope that costs so many bytes of credit to publish.
    pub(super) fn push_costly(&mut self, envelope: Envelope, cost: usize) {
        self.published += cost;
        self.envelopes.push(envelope);
    }

    /// Adds a message that costs so many bytes of credit.
    pub(super) fn publish(&mut self, recipients: &Recipients, publish: Publish, cost: usize) {
        self.published += cost;
        match recipients {
            Recipients::One(queue) => self.append(*queue, publish),
            Recipients::Many(_) => self.envelopes.push(recipients.envelope(publish, None)),
        }
    }

    fn append(&mut self, queue: QueueId, publish: Publish) {
        match self.envelopes.last_mut() {
            Some(Envelope::Run(run)) if run.queue == queue && self.run_length < RUN_MAX => {
                run.publishes.push_back(publish);
                self.run_length += 1;
            }
            Some(Envelope::Enqueue { queue: same, .. }) if *same == queue => self.begin_run(queue, publish),
            _ => self.envelopes.push(Envelope::Enqueue { queue, publish, ticket: None }),
        }
    }

    /// The last message and this one are a run.
    fn begin_run(&mut self, queue: QueueId, publish: Publish) {
        // Where runs are short each takes little memory, and where they are long it does not have to grow.
        self.usual_length = self.run_length.max(self.usual_length / 2).max(RUN_MIN);
        let mut publishes = VecDeque::with_capacity(self.usual_length);
        let Some(Envelope::Enqueue { publish: first, .. }) = self.envelopes.pop() else {
            unreachable!("a run begins with a message that was alone");
        };
        publishes.push_back(first);
        publishes.push_back(publish);
        self.run_length = 2;
        self.envelopes.push(Envelope::Run(Run { queue, publishes }));
    }

    /// The envelopes, with what takes the credit they cost at their end. Whoever gets them takes them all.
    pub(super) fn finish(&mut self, outbox: &Arc<Outbox>) -> &mut Vec<Envelope> {
        if self.published > 0 {
            outbox.spend_publish_credit(self.published);
            self.envelopes.push(Envelope::Taken { outbox: Arc::clone(outbox), bytes: self.published });
            self.published = 0;
        }
        &mut self.envelopes
    }

    /// Gives back memory beyond `keep` envelopes.
    pub(super) fn trim(&mut self, keep: usize) {
        self.envelopes.shrink_to(keep);
    }
}
