//! What the API does to exchanges, queues and messages it does as a client would: through a session, with the same checks
//! and the same texts.

use std::sync::Arc;

use crate::broker::{Broker, Outbox, Pending, Session};
use crate::model::exception::Exception;
use crate::model::ids::{ChannelRef, ConsumerId, Timestamp};
use crate::model::message::Message;
use crate::model::names::{QueueName, VhostName};
use crate::model::request::{Answer, Ask, Event, PublishRequest, Request, SettleOutcome, Settlement};

use super::identity::Identity;

/// Bytes that an operation may have under way: one message of the largest size.
const CREDIT: u64 = 1 << 30;
const CHANNEL: u16 = 1;

/// A session of the API, with one channel.
pub(crate) struct Operation {
    session: Session,
    outbox: Arc<Outbox>,
    channel: ChannelRef,
    events: Vec<Event>,
    now: Timestamp,
}

/// A message that was taken from a queue.
pub(crate) struct Got {
    pub message: Message,
    pub redelivered: bool,
    /// Messages that were left in the queue.
    pub left: u64,
    settlement: Settlement,
}

/// What became of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    Routed,
    Unroutable,
    /// A queue refused it.
    Rejected,
}

impl Operation {
    /// Enters a vhost as this user.
    pub(crate) fn begin(
        broker: &Arc<Broker>,
        identity: &Identity,
        vhost: &VhostName,
        now: Timestamp,
    ) -> Result<Self, Exception> {
        let connection = broker.new_connection_id();
        let outbox = Arc::new(Outbox::new(CREDIT, CREDIT));
        let channel = ChannelRef { connection, serial: 1, number: CHANNEL };
        let user = match identity {
            Identity::User(member) => Some(member.identity.clone()),
            Identity::LocalAdministrator | Identity::Anonymous => None,
        };
        let session = Session::of_the_broker(broker, &outbox, channel, user, vhost)?;
        Ok(Self { session, outbox, channel, events: Vec::new(), now })
    }

    /// Asks for one thing and waits for the answer.
    pub(crate) async fn ask(&mut self, ask: Ask) -> Result<Answer, Exception> {
        self.submit(Request::Ask { channel: self.channel, ask });
        loop {
            for event in self.take().await {
                match event {
                    Event::Answer { answer, .. } => return Ok(answer),
                    Event::Exception { exception, .. } => return Err(exception),
                    Event::Confirm { .. }
                    | Event::Routed { .. }
                    | Event::Return { .. }
                    | Event::PublishRefused { .. }
                    | Event::LoggedIn
                    | Event::LoginRefused
                    | Event::VhostOpened
                    | Event::SecretUpdated
                    | Event::Deliver { .. }
                    | Event::ConsumerTimeout { .. }
                    | Event::ConsumerCancelled { .. }
                    | Event::Blocked { .. }
                    | Event::Unblocked
                    | Event::ConnectionClosed
                    | Event::Shutdown { .. }
                    | Event::ForceClose { .. }
                    | Event::Internal(_) => {}
                }
            }
        }
    }

    /// Publishes a message and waits until its queues have it.
    pub(crate) async fn publish(&mut self, message: Message) -> Result<Published, Exception> {
        let channel = self.channel;
        self.submit(Request::Publish(PublishRequest {
            channel,
            message,
            mandatory: true,
            sequence: Some(1),
            transactional: false,
        }));
        let mut left = 1;
        let mut outcome = Published::Routed;
        loop {
            for event in self.take().await {
                match event {
                    Event::PublishRefused { exception, .. } | Event::Exception { exception, .. } => {
                        return Err(exception);
                    }
                    Event::Return { .. } => outcome = Published::Unroutable,
                    Event::Routed { verdicts, .. } => left += i64::from(verdicts) - 1,
                    Event::Confirm { confirmed, .. } => {
                        left -= 1;
                        if !confirmed {
                            outcome = Published::Rejected;
                        }
                    }
                    Event::Answer { .. }
                    | Event::LoggedIn
                    | Event::LoginRefused
                    | Event::VhostOpened
                    | Event::SecretUpdated
                    | Event::Deliver { .. }
                    | Event::ConsumerTimeout { .. }
                    | Event::ConsumerCancelled { .. }
                    | Event::Blocked { .. }
                    | Event::Unblocked
                    | Event::ConnectionClosed
                    | Event::Shutdown { .. }
                    | Event::ForceClose { .. }
                    | Event::Internal(_) => {}
                }
            }
            if left <= 0 {
                return Ok(outcome);
            }
        }
    }

    /// Takes a message from a queue; none when there is none.
    pub(crate) async fn get(&mut self, queue: &QueueName) -> Result<Option<Got>, Exception> {
        let ChannelRef { connection, serial, number } = self.channel;
        let holder = ConsumerId { connection, serial, channel: number };
        let answer = self.ask(Ask::Get { queue: queue.clone(), no_ack: false, holder }).await?;
        let Answer::Got { queue, index, redelivered, message, ready } = answer else { return Ok(None) };
        let settlement = Settlement { queue, consumer: holder, indexes: vec![index], outcome: SettleOutcome::Ack };
        Ok(Some(Got { message, redelivered, left: ready, settlement }))
    }

    /// Says what is to become of messages that were taken, and waits until their queues know.
    pub(crate) async fn settle(&mut self, got: Vec<Got>, outcome: SettleOutcome) -> Result<(), Exception> {
        for message in got {
            self.submit(Request::Settle(Settlement { outcome, ..message.settlement }));
        }
        self.ask(Ask::Recover { settlements: Vec::new() }).await.map(|_| ())
    }

    fn submit(&mut self, request: Request) {
        self.session.submit(&mut vec![request], &mut self.events, self.now);
    }

    /// What the broker has to say, waiting for it if there is nothing yet.
    async fn take(&mut self) -> Vec<Event> {
        loop {
            let mut arrived = Vec::new();
            self.outbox.take(&mut arrived);
            for event in arrived {
                match event {
                    Event::Internal(internal) => self.session.internal(&internal, &mut self.events, self.now),
                    event => self.events.push(event),
                }
            }
            match self.session.take_pending() {
                Some(Pending::Answer(answer)) => {
                    let verdict = answer.await;
                    self.session.resume(verdict, &mut self.events, self.now);
                }
                Some(Pending::Pause { then, .. }) => self.session.resume(then, &mut self.events, self.now),
                None => {}
            }
            if !self.events.is_empty() {
                return std::mem::take(&mut self.events);
            }
            self.outbox.changed().await;
        }
    }
}

impl Drop for Operation {
    /// What is not settled goes back to its queue.
    fn drop(&mut self) {
        self.session.abandon(self.now);
    }
}
