//! One channel: assembles publishes, numbers deliveries, tracks confirms, and turns methods into requests.
//!
//! A method that needs the broker's answer makes the channel wait: what the client sends meanwhile on it is kept and
//! replayed, so methods of a channel are always carried out in order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use amq_protocol::protocol::{AMQPClass, basic, channel, exchange, queue};

use super::codec::{BodyPiece, Frame, METHOD_IDS_SIZE, Output};
use super::confirms::Confirms;
use super::consumers::{Consumer, Consumers};
use super::content::{self, Assembly, ContentHeader, PayloadMax, PublishMethod};
use super::unacked::{Unacked, UnackedWindow, gather, joins};
use super::{AmqpSettings, method};
use crate::model::exception::{Exception, ReplyCode};
use crate::model::ids::{ChannelRef, ConsumerId, QueueId};
use crate::model::message::{Message, Properties};
use crate::model::names::{ConsumerTag, QueueName};
use crate::model::random::Random;
use crate::model::request::{Answer, Ask, Delivery, PublishRequest, Request, SettleOutcome, Settlement};
use crate::model::statistics::{ChannelNumber, ChannelRecord};
use crate::model::table::check_table;

/// The largest body RabbitMQ's framing accepts.
const BODY_MAX: u64 = 536_870_912;

/// Bytes of unfinished messages that every connection may have, however small the largest message.
const ASSEMBLING_MIN: u64 = 16 * 1024 * 1024;

/// What a channel works with while it handles something.
pub(super) struct Turn<'a> {
    pub(super) settings: &'a AmqpSettings,
    pub(super) output: &'a mut Output,
    pub(super) requests: &'a mut Vec<Request>,
    pub(super) consumers: &'a mut Consumers,
    pub(super) scratch: &'a mut Vec<u8>,
    pub(super) random: &'a mut Random,
    pub(super) limit: PayloadMax,
    /// Whether a publish was taken in this turn.
    pub(super) published: &'a mut bool,
    /// Bytes of bodies that have arrived in part, over all channels of the connection.
    pub(super) assembling: &'a mut usize,
}

impl Turn<'_> {
    pub(super) fn send(&mut self, channel: u16, class: &AMQPClass) {
        self.output.append(|out| method::encode(out, channel, class));
    }
}

/// Takes what a channel no longer holds off the sum of its connection.
pub(super) fn take_off(sum: &mut usize, bytes: usize) {
    *sum = sum.checked_sub(bytes).expect("what a connection holds is the sum of what its channels hold");
}

/// Where a channel is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// The client closed it; the broker is cleaning up.
    Ending,
    /// The broker closed it; everything is ignored until close-ok.
    Closing,
}

/// What the channel waits for, and with it what to tell the client.
#[derive(Debug)]
pub(super) enum Pending {
    /// A fixed reply; none with nowait.
    Reply(Option<AMQPClass>),
    DeclareQueue {
        nowait: bool,
    },
    Purge {
        nowait: bool,
    },
    DeleteQueue {
        nowait: bool,
    },
    Cancel {
        tag: ConsumerTag,
        consumer: Option<ConsumerId>,
        nowait: bool,
    },
    Get {
        no_ack: bool,
    },
    AccessGranted,
    Commit,
    /// The commit is submitted; its publishes' verdicts are awaited.
    Committed,
}

/// Frames kept while the channel waits.
#[derive(Debug)]
pub(super) enum Kept {
    Method(Box<[u8]>),
    Header(Box<[u8]>),
    /// A piece of a body frame, as `BodyPiece` has it.
    Body {
        piece: Box<[u8]>,
        left: usize,
        end: bool,
    },
}

#[derive(Debug, Default)]
struct Transaction {
    publishes: Confirms,
    settlements: Vec<Settlement>,
    /// What is settled within the transaction, to be restored by a rollback.
    taken: Vec<(u64, Unacked)>,
}

#[derive(Debug)]
enum Mode {
    Plain,
    Confirm(Confirms),
    Transaction(Box<Transaction>),
}

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) reference: ChannelRef,
    pub(super) phase: Phase,
    /// Ids of the method being handled, for the close method.
    pub(super) current: (u16, u16),
    pub(super) pending: Option<Pending>,
    pub(super) kept: VecDeque<Kept>,
    assembly: Option<Assembly>,
    mode: Mode,
    pub(super) unacked: UnackedWindow,
    pub(super) tags: BTreeMap<ConsumerTag, ConsumerId>,
    prefetch: u16,
    pub(super) last_queue: Option<QueueName>,
    pub(super) record: Arc<ChannelRecord>,
}

impl Channel {
    pub(super) fn new(reference: ChannelRef, prefetch: u16, record: Arc<ChannelRecord>) -> Self {
        record.statistics.set(ChannelNumber::Prefetch, prefetch.into());
        Self {
            reference,
            phase: Phase::Open,
            current: (0, 0),
            pending: None,
            kept: VecDeque::new(),
            assembly: None,
            mode: Mode::Plain,
            unacked: UnackedWindow::default(),
            tags: BTreeMap::new(),
            prefetch,
            last_queue: None,
            record,
        }
    }

    pub(super) fn number(&self) -> u16 {
        self.reference.number
    }

    /// Whether a whole publish may be taken right now.
    pub(super) fn takes_publishes(&self) -> bool {
        self.phase == Phase::Open && self.pending.is_none() && self.assembly.is_none() && self.kept.is_empty()
    }

    /// Whether frames must be kept for later.
    pub(super) fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    /// Handles one frame of an open channel.
    pub(super) fn frame(&mut self, turn: &mut Turn<'_>, frame: &Frame<'_>) -> Result<(), Exception> {
        match *frame {
            Frame::Method { payload, .. } => self.on_method(turn, payload),
            Frame::Header { payload, .. } => self.on_header(turn, payload),
            Frame::Body { body, .. } => self.on_body(turn, &body),
            Frame::Heartbeat { .. } | Frame::Unknown { .. } => Ok(()),
        }
    }

    fn on_method(&mut self, turn: &mut Turn<'_>, payload: &[u8]) -> Result<(), Exception> {
        self.expect_method()?;
        self.current = method::ids(payload);
        let (ids, fields) = payload.split_at_checked(METHOD_IDS_SIZE).unwrap_or((payload, &[]));
        match <[u8; METHOD_IDS_SIZE]>::try_from(ids).unwrap_or_default() {
            content::BASIC_PUBLISH => self.begin_publish(fields),
            content::BASIC_ACK => self.on_ack(turn, fields),
            content::BASIC_NACK | content::BASIC_REJECT => self.on_nack(turn, fields),
            content::BASIC_QOS => self.on_qos(turn, fields),
            _ => {
                let decoded = method::decode(payload).inspect_err(|exception| self.forget_method(exception))?;
                self.dispatch(turn, decoded)
            }
        }
    }

    /// Text that is none is found before it is known whose it is: RabbitMQ names no method then.
    fn forget_method(&mut self, exception: &Exception) {
        if exception.text == method::MALFORMED_TEXT {
            self.current = (0, 0);
        }
    }

    /// 505 in the middle of a message.
    fn expect_method(&self) -> Result<(), Exception> {
        match &self.assembly {
            None => Ok(()),
            Some(assembly) if assembly.awaits_header() => Err(unexpected_frame(NO_HEADER)),
            Some(_) => Err(unexpected_frame(NO_BODY)),
        }
    }

    fn begin_publish(&mut self, fields: &[u8]) -> Result<(), Exception> {
        let method = PublishMethod::parse(fields).ok_or_else(|| method::cannot_decode(fields))?;
        if method.immediate {
            return Err(Exception::new(ReplyCode::NotImplemented, "immediate=true"));
        }
        self.assembly = Some(Assembly::new(&method));
        Ok(())
    }

    fn on_header(&mut self, turn: &mut Turn<'_>, payload: &[u8]) -> Result<(), Exception> {
        self.take_header(payload, turn.settings.max_message_size)?;
        self.finish_publish(turn)
    }

    fn take_header(&mut self, payload: &[u8], size_max: u64) -> Result<(), Exception> {
        let Some(assembly) = &mut self.assembly else {
            self.current = (0, 0);
            return Err(unexpected_frame(NO_METHOD));
        };
        if !assembly.awaits_header() {
            return Err(unexpected_frame(NO_BODY));
        }
        let Some(header) = ContentHeader::parse(payload).filter(|header| header.weight == 0) else {
            return Err(unexpected_frame(NO_HEADER));
        };
        if header.class != 60 {
            let class = header.class;
            let text = format!("expected content header for class 60, got one for class {class} instead");
            return Err(unexpected_frame(text));
        }
        if header.body_size > BODY_MAX {
            let text = format!("content body size {} exceeds maximum allowed size {BODY_MAX}", header.body_size);
            return Err(Exception::new(ReplyCode::FrameError, text));
        }
        assembly.header(&header, size_max);
        Ok(())
    }

    fn on_body(&mut self, turn: &mut Turn<'_>, body: &BodyPiece<'_>) -> Result<(), Exception> {
        *turn.assembling += self.take_body(body)?;
        // Nothing is published before its last frame is known to be whole.
        if body.end {
            self.finish_publish(turn)?;
        }
        check_assembling(turn)
    }

    /// How many more bytes the message holds.
    fn take_body(&mut self, body: &BodyPiece<'_>) -> Result<usize, Exception> {
        let Some(assembly) = &mut self.assembly else {
            self.current = (0, 0);
            return Err(unexpected_frame(NO_METHOD));
        };
        if assembly.awaits_header() {
            return Err(unexpected_frame(NO_HEADER));
        }
        if !assembly.body(body.piece, body.left) {
            let text = "content body frame exceeds remaining content size";
            return Err(Exception::new(ReplyCode::FrameError, text));
        }
        Ok(if assembly.is_refused() { 0 } else { body.piece.len() })
    }

    /// Takes a frame of a channel that is closing: it has no effect, but it must be a frame that could have one. Messages
    /// that were on their way are read to their end. The ids of a method.
    pub(super) fn discard(&mut self, frame: &Frame<'_>) -> Result<Option<(u16, u16)>, Exception> {
        match *frame {
            Frame::Method { payload, .. } => {
                self.expect_method()?;
                self.current = method::ids(payload);
                method::check(payload).inspect_err(|exception| self.forget_method(exception))?;
                if let Some(fields) = payload.strip_prefix(&content::BASIC_PUBLISH) {
                    self.assembly = PublishMethod::parse(fields).map(|method| Assembly::new(&method));
                }
                return Ok(Some(self.current));
            }
            Frame::Header { payload, .. } => self.take_header(payload, 0)?,
            Frame::Body { body, .. } => _ = self.take_body(&body)?,
            Frame::Heartbeat { .. } | Frame::Unknown { .. } => {}
        }
        if !matches!(*frame, Frame::Body { body, .. } if !body.end) {
            self.assembly.take_if(|assembly| assembly.is_complete());
        }
        Ok(None)
    }

    /// Keeps only as much of a publish that has arrived in part as it takes to see where it ends; returns the body bytes
    /// it held.
    pub(super) fn refuse_publish(&mut self) -> usize {
        self.assembly.as_mut().map_or(0, Assembly::refuse)
    }

    fn finish_publish(&mut self, turn: &mut Turn<'_>) -> Result<(), Exception> {
        let Some(assembly) = self.assembly.take_if(|assembly| assembly.is_complete()) else { return Ok(()) };
        take_off(turn.assembling, assembly.held());
        check_size(turn.settings, assembly.body_size())?;
        let raw = assembly.raw_properties();
        let properties = parse_properties(&raw)?;
        let mandatory = assembly.mandatory;
        let message = assembly.finish(turn.scratch, &properties);
        self.submit(turn, message, mandatory);
        Ok(())
    }

    /// Takes a publish whose frames came in one piece.
    pub(super) fn publish_whole(
        &mut self,
        turn: &mut Turn<'_>,
        publish: &content::WholePublish<'_>,
    ) -> Result<(), Exception> {
        self.current = (60, 40);
        if publish.method.immediate {
            return Err(Exception::new(ReplyCode::NotImplemented, "immediate=true"));
        }
        check_size(turn.settings, publish.body.len() as u64)?;
        let properties = parse_properties(publish.properties)?;
        let message = Message::new(turn.scratch, publish.method.envelope, &properties, publish.body);
        self.submit(turn, message, publish.method.mandatory);
        Ok(())
    }

    fn submit(&mut self, turn: &mut Turn<'_>, message: Message, mandatory: bool) {
        *turn.published = true;
        let statistics = &self.record.statistics;
        statistics.add(ChannelNumber::Published, 1);
        statistics.count_size(message.body_length());
        let (sequence, transactional) = match &mut self.mode {
            Mode::Plain => (None, false),
            Mode::Confirm(confirms) => {
                statistics.add(ChannelNumber::PublishedConfirm, 1);
                (Some(confirms.expect()), false)
            }
            Mode::Transaction(transaction) => {
                statistics.add(ChannelNumber::Uncommitted, 1);
                (Some(transaction.publishes.expect()), true)
            }
        };
        let channel = self.reference;
        turn.requests.push(Request::Publish(PublishRequest { channel, message, mandatory, sequence, transactional }));
    }

    fn on_ack(&mut self, turn: &mut Turn<'_>, fields: &[u8]) -> Result<(), Exception> {
        let (tag, bits) = tag_and_bits(fields)?;
        self.settle(turn, tag, bits & 1 != 0, SettleOutcome::Ack)
    }

    fn on_nack(&mut self, turn: &mut Turn<'_>, fields: &[u8]) -> Result<(), Exception> {
        let (tag, bits) = tag_and_bits(fields)?;
        let is_nack = self.current.1 == 120;
        let (multiple, requeue) = if is_nack { (bits & 1 != 0, bits & 2 != 0) } else { (false, bits & 1 != 0) };
        self.settle(turn, tag, multiple, if requeue { SettleOutcome::Requeue } else { SettleOutcome::Reject })
    }

    fn settle(
        &mut self,
        turn: &mut Turn<'_>,
        tag: u64,
        multiple: bool,
        outcome: SettleOutcome,
    ) -> Result<(), Exception> {
        if let Mode::Transaction(transaction) = &mut self.mode {
            self.record.statistics.add(ChannelNumber::AcksUncommitted, 1);
            return self.unacked.settle(tag, multiple, |tag, delivery| {
                transaction.taken.push((tag, delivery));
                gather(&mut transaction.settlements, delivery, outcome);
            });
        }
        let requests = &mut *turn.requests;
        let before = self.unacked.outstanding();
        let outcome_of_settling = self.unacked.settle(tag, multiple, |_, delivery| match requests.last_mut() {
            Some(Request::Settle(last)) if last.outcome == outcome && joins(last, delivery) => {
                last.indexes.push(delivery.index);
            }
            _ => requests.push(Request::Settle(Settlement {
                queue: delivery.queue,
                consumer: delivery.consumer,
                indexes: vec![delivery.index],
                outcome,
            })),
        });
        let left = self.unacked.outstanding();
        let statistics = &self.record.statistics;
        if outcome == SettleOutcome::Ack {
            statistics.add(ChannelNumber::Acked, (before - left) as u64);
        }
        statistics.set(ChannelNumber::Unacked, left as u64);
        outcome_of_settling
    }

    /// Makes the channel wait for the answer to `ask`.
    pub(super) fn ask(&mut self, turn: &mut Turn<'_>, ask: Ask, pending: Pending) {
        self.pending = Some(pending);
        turn.requests.push(Request::Ask { channel: self.reference, ask });
    }

    /// Replies to a method that needs nothing of the broker, once what was asked before is known to have succeeded.
    pub(super) fn proceed(&mut self, turn: &mut Turn<'_>, reply: Option<AMQPClass>) {
        self.ask(turn, Ask::Proceed, Pending::Reply(reply));
    }

    /// The queue a method names; empty means the one declared last on this channel.
    pub(super) fn queue_name(&self, name: &str) -> Result<QueueName, Exception> {
        if !name.is_empty() {
            return Ok(QueueName::new(name));
        }
        self.last_queue.clone().ok_or_else(|| Exception::new(ReplyCode::NotFound, "no previously declared queue"))
    }

    /// Sets the prefetch of consumers that start from now on.
    pub(super) fn set_prefetch(&mut self, prefetch: u16) {
        self.record.statistics.set(ChannelNumber::Prefetch, prefetch.into());
        self.prefetch = prefetch;
    }

    pub(super) fn prefetch(&self) -> u16 {
        self.prefetch
    }

    pub(super) fn select_confirms(&mut self) -> Result<(), Exception> {
        match self.mode {
            Mode::Transaction(_) => Err(Exception::precondition_failed("cannot switch from tx to confirm mode")),
            Mode::Confirm(_) => Ok(()),
            Mode::Plain => {
                self.mode = Mode::Confirm(Confirms::default());
                self.record.statistics.set(ChannelNumber::Mode, 1);
                Ok(())
            }
        }
    }

    pub(super) fn select_transactions(&mut self) -> Result<(), Exception> {
        match self.mode {
            Mode::Confirm(_) => Err(Exception::precondition_failed("cannot switch from confirm to tx mode")),
            Mode::Transaction(_) => Ok(()),
            Mode::Plain => {
                self.mode = Mode::Transaction(Box::default());
                self.record.statistics.set(ChannelNumber::Mode, 2);
                Ok(())
            }
        }
    }

    pub(super) fn commit(&mut self, turn: &mut Turn<'_>) -> Result<(), Exception> {
        let Mode::Transaction(transaction) = &mut self.mode else { return Err(not_transactional()) };
        transaction.taken.clear();
        self.record.statistics.set(ChannelNumber::Uncommitted, 0);
        self.record.statistics.set(ChannelNumber::AcksUncommitted, 0);
        let settlements = std::mem::take(&mut transaction.settlements);
        self.ask(turn, Ask::Commit { settlements }, Pending::Commit);
        Ok(())
    }

    pub(super) fn rollback(&mut self, turn: &mut Turn<'_>) -> Result<(), Exception> {
        let Mode::Transaction(transaction) = &mut self.mode else { return Err(not_transactional()) };
        let Transaction { taken, .. } = *std::mem::take(transaction);
        self.unacked.restore(taken);
        let reply = AMQPClass::Tx(amq_protocol::protocol::tx::AMQPMethod::RollbackOk(
            amq_protocol::protocol::tx::RollbackOk {},
        ));
        self.ask(turn, Ask::Rollback, Pending::Reply(Some(reply)));
        Ok(())
    }

    /// Everything unacknowledged, as a requeue.
    pub(super) fn recover(&mut self) -> Vec<Settlement> {
        let mut settlements = Vec::new();
        for delivery in self.unacked.take_all() {
            gather(&mut settlements, delivery, SettleOutcome::Requeue);
        }
        settlements
    }

    /// Adds a consumer that the broker is asked for.
    pub(super) fn add_consumer(
        &mut self,
        turn: &mut Turn<'_>,
        tag: &ConsumerTag,
        queue: &QueueName,
        no_ack: bool,
    ) -> ConsumerId {
        let consumer = turn.consumers.add(self.reference, tag, queue, no_ack);
        self.tags.insert(tag.clone(), consumer);
        self.count_consumers();
        consumer
    }

    /// Lets listings see how many consumers there are.
    pub(super) fn count_consumers(&self) {
        self.record.statistics.set(ChannelNumber::Consumers, self.tags.len() as u64);
    }

    /// The broker's answer to what the channel waits for.
    pub(super) fn answer(&mut self, turn: &mut Turn<'_>, answer: Answer) -> Result<(), Exception> {
        let number = self.number();
        match (self.pending.take(), answer) {
            (Some(Pending::Reply(Some(reply))), _) => turn.send(number, &reply),
            (Some(Pending::Reply(None)), _) => {}
            (Some(Pending::DeclareQueue { nowait }), Answer::QueueDeclared { queue: name, ready, consumers }) => {
                if !nowait {
                    let reply = queue::DeclareOk {
                        queue: name.as_str().into(),
                        message_count: u32::try_from(ready).unwrap_or(u32::MAX),
                        consumer_count: u32::try_from(consumers).unwrap_or(u32::MAX),
                    };
                    turn.send(number, &AMQPClass::Queue(queue::AMQPMethod::DeclareOk(reply)));
                }
                self.last_queue = Some(name);
            }
            (Some(Pending::Purge { nowait: false }), Answer::Messages(count)) => {
                let message_count = u32::try_from(count).unwrap_or(u32::MAX);
                let reply = queue::AMQPMethod::PurgeOk(queue::PurgeOk { message_count });
                turn.send(number, &AMQPClass::Queue(reply));
            }
            (Some(Pending::DeleteQueue { nowait: false }), Answer::Messages(count)) => {
                let message_count = u32::try_from(count).unwrap_or(u32::MAX);
                let reply = queue::AMQPMethod::DeleteOk(queue::DeleteOk { message_count });
                turn.send(number, &AMQPClass::Queue(reply));
            }
            (Some(Pending::Cancel { tag, consumer, nowait }), _) => {
                if let Some(consumer) = consumer {
                    self.tags.remove(&tag);
                    self.count_consumers();
                    turn.consumers.remove(consumer);
                }
                if !nowait {
                    let reply = basic::CancelOk { consumer_tag: tag.as_str().into() };
                    turn.send(number, &AMQPClass::Basic(basic::AMQPMethod::CancelOk(reply)));
                }
            }
            (Some(Pending::AccessGranted), _) => {
                // The library has no ticket field: request-ok carries ticket 1, written by hand.
                turn.output.append(|out| {
                    let [c0, c1] = number.to_be_bytes();
                    out.extend_from_slice(&[1, c0, c1, 0, 0, 0, 6, 0, 30, 0, 11, 0, 1, super::codec::FRAME_END]);
                });
            }
            (Some(Pending::Get { no_ack }), answer) => self.got(turn, no_ack, answer),
            (Some(Pending::Commit), _) => {
                self.pending = Some(Pending::Committed);
                return self.finish_commit(turn);
            }
            (Some(Pending::Purge { nowait: true } | Pending::DeleteQueue { nowait: true }), Answer::Messages(_)) => {}
            (
                pending @ (None
                | Some(
                    Pending::DeclareQueue { .. }
                    | Pending::Purge { .. }
                    | Pending::DeleteQueue { .. }
                    | Pending::Committed,
                )),
                answer,
            ) => unreachable!("the broker answers what was asked, once: {answer:?} for {pending:?}"),
        }
        Ok(())
    }

    fn got(&mut self, turn: &mut Turn<'_>, no_ack: bool, answer: Answer) {
        let statistics = &self.record.statistics;
        let Answer::Got { queue, index, redelivered, message, ready } = answer else {
            statistics.add(ChannelNumber::GetEmpty, 1);
            let reply = basic::AMQPMethod::GetEmpty(basic::GetEmpty {});
            return turn.send(self.number(), &AMQPClass::Basic(reply));
        };
        statistics.add(ChannelNumber::Redelivered, u64::from(redelivered));
        let tag = if no_ack {
            statistics.add(ChannelNumber::GotAutoAck, 1);
            self.unacked.pass()
        } else {
            statistics.add(ChannelNumber::Got, 1);
            self.unacked.deliver(Unacked { queue, consumer: self.holder(), index })
        };
        content::get_ok(turn.output, self.number(), (tag, redelivered), ready, &message, turn.limit);
    }

    /// Under whose name this channel's gets are unacknowledged.
    pub(super) fn holder(&self) -> ConsumerId {
        let ChannelRef { connection, serial, number } = self.reference;
        ConsumerId { connection, serial, channel: number }
    }

    /// Numbers a delivery and writes it.
    pub(super) fn deliver(
        &mut self,
        consumer: &Consumer,
        output: &mut Output,
        limit: PayloadMax,
        queue: QueueId,
        delivery: &Delivery,
    ) {
        let statistics = &self.record.statistics;
        if delivery.redelivered {
            statistics.add(ChannelNumber::Redelivered, 1);
        }
        let tag = if consumer.no_ack {
            statistics.add(ChannelNumber::DeliveredAutoAck, 1);
            self.unacked.pass()
        } else {
            statistics.add(ChannelNumber::Delivered, 1);
            let Delivery { consumer, index, .. } = *delivery;
            let tag = self.unacked.deliver(Unacked { queue, consumer, index });
            statistics.set(ChannelNumber::Unacked, self.unacked.outstanding() as u64);
            tag
        };
        let front = (self.number(), &*consumer.prefix);
        content::deliver(output, front, (tag, delivery.redelivered), &delivery.message, limit);
    }

    /// A verdict on publishes.
    pub(super) fn confirm(&mut self, first: u64, last: u64, confirmed: bool) {
        if let Some(confirms) = self.confirms() {
            confirms.settle(first, last, confirmed);
        }
    }

    pub(super) fn routed(&mut self, sequence: u64, verdicts: u32) {
        if let Some(confirms) = self.confirms() {
            confirms.routed(sequence, verdicts);
        }
    }

    fn confirms(&mut self) -> Option<&mut Confirms> {
        match &mut self.mode {
            Mode::Plain => None,
            Mode::Confirm(confirms) => Some(confirms),
            Mode::Transaction(transaction) => Some(&mut transaction.publishes),
        }
    }

    /// Tells the client what has been confirmed since the last call.
    pub(super) fn flush_confirms(&mut self, turn: &mut Turn<'_>) -> Result<(), Exception> {
        let number = self.number();
        match &mut self.mode {
            Mode::Confirm(confirms) => {
                confirms.flush(|a| content::acknowledge(turn.output, number, a.sequence, a.multiple, a.confirmed));
                let statistics = &self.record.statistics;
                let waiting = confirms.waiting() as u64;
                statistics.set(ChannelNumber::Unconfirmed, waiting);
                statistics.set(ChannelNumber::Confirmed, statistics.get(ChannelNumber::PublishedConfirm) - waiting);
                Ok(())
            }
            Mode::Transaction(_) => self.finish_commit(turn),
            Mode::Plain => Ok(()),
        }
    }

    fn finish_commit(&mut self, turn: &mut Turn<'_>) -> Result<(), Exception> {
        let Mode::Transaction(transaction) = &mut self.mode else { return Ok(()) };
        if !matches!(self.pending, Some(Pending::Committed)) || transaction.publishes.waiting() > 0 {
            return Ok(());
        }
        let rejected = transaction.publishes.flush(|_| {});
        self.pending = None;
        self.current = (90, 20);
        if rejected {
            return Err(Exception::precondition_failed("partial tx completion"));
        }
        let reply = amq_protocol::protocol::tx::AMQPMethod::CommitOk(amq_protocol::protocol::tx::CommitOk {});
        turn.send(self.number(), &AMQPClass::Tx(reply));
        Ok(())
    }
}

/// The reply of a simple exchange method, unless nowait.
pub(super) fn exchange_reply(reply: exchange::AMQPMethod, nowait: bool) -> Pending {
    Pending::Reply((!nowait).then_some(AMQPClass::Exchange(reply)))
}

/// The reply of a simple queue method, unless nowait.
pub(super) fn queue_reply(reply: queue::AMQPMethod, nowait: bool) -> Pending {
    Pending::Reply((!nowait).then_some(AMQPClass::Queue(reply)))
}

pub(super) fn channel_close(exception: &Exception, (class_id, method_id): (u16, u16)) -> AMQPClass {
    AMQPClass::Channel(channel::AMQPMethod::Close(channel::Close {
        reply_code: exception.code.code(),
        reply_text: exception.reply_text().into(),
        class_id,
        method_id,
    }))
}

const NO_METHOD: &str = "expected method frame, got non method frame instead";
const NO_HEADER: &str = "expected content header for class 60, got non content header frame instead";
const NO_BODY: &str = "expected content body, got non content body frame instead";

/// 505: a frame of another kind had to come.
pub(super) fn unexpected_frame(text: impl Into<String>) -> Exception {
    Exception::new(ReplyCode::UnexpectedFrame, text)
}

/// 505 for what should have been a method.
pub(super) fn no_method() -> Exception {
    unexpected_frame(NO_METHOD)
}

fn not_transactional() -> Exception {
    Exception::precondition_failed("channel is not transactional")
}

fn check_size(settings: &AmqpSettings, size: u64) -> Result<(), Exception> {
    let max = settings.max_message_size;
    if size <= max {
        return Ok(());
    }
    let configured = if max == BODY_MAX { "" } else { "configured " };
    Err(Exception::precondition_failed(format!("message size {size} is larger than {configured}max size {max}")))
}

/// One message of the largest size may arrive on each of a few channels at a time; a client that begins thousands and
/// finishes none is refused before it fills the memory, since no credit covers what is not published yet.
fn check_assembling(turn: &Turn<'_>) -> Result<(), Exception> {
    let max = turn.settings.max_message_size.saturating_mul(4).max(ASSEMBLING_MIN);
    if *turn.assembling as u64 <= max {
        return Ok(());
    }
    let text = format!("more than {max} bytes of unfinished messages on the channels of this connection");
    Err(Exception::new(ReplyCode::ResourceError, text))
}

fn parse_properties(raw: &[u8]) -> Result<Properties<'_>, Exception> {
    let properties = Properties::parse(raw).map_err(|_| method::cannot_decode(raw))?;
    if let Some(headers) = properties.headers {
        check_table(headers)
            .map_err(|error| Exception::new(ReplyCode::SyntaxError, format!("malformed headers: {error}")))?;
    }
    Ok(properties)
}

fn tag_and_bits(fields: &[u8]) -> Result<(u64, u8), Exception> {
    match fields.split_first_chunk::<8>() {
        Some((tag, [bits])) => Ok((u64::from_be_bytes(*tag), *bits)),
        _ => Err(method::cannot_decode(fields)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "what a connection holds is the sum of what its channels hold")]
    fn a_channel_gives_back_no_more_than_was_counted() {
        let mut sum = 7;
        take_off(&mut sum, 7);
        assert_eq!(sum, 0);
        take_off(&mut sum, 1);
    }
}
