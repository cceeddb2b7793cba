//! The methods of an open channel, one function per class: from amq-protocol's types to requests.

use amq_protocol::protocol::{AMQPClass, access, basic, channel, confirm, exchange, queue, tx};

use super::channel::{Channel, Pending, Phase, Turn, exchange_reply, queue_reply};
use super::method::{Method, cannot_decode};
use crate::model::entity::Destination;
use crate::model::exception::{Exception, ReplyCode};
use crate::model::names::{ConsumerTag, ExchangeName, QueueName, RoutingKey};
use crate::model::request::{Ask, BindingRequest, ConsumeRequest, DeclareExchange, DeclareQueue, Request};
use crate::model::table::FieldTable;

impl Channel {
    pub(super) fn dispatch(&mut self, turn: &mut Turn<'_>, method: Method) -> Result<(), Exception> {
        let Method { class, arguments } = method;
        match class {
            AMQPClass::Channel(method) => self.on_channel(turn, &method),
            AMQPClass::Access(access::AMQPMethod::Request(_)) => {
                self.ask(turn, Ask::Proceed, Pending::AccessGranted);
                Ok(())
            }
            AMQPClass::Exchange(method) => self.on_exchange(turn, method, arguments),
            AMQPClass::Queue(method) => self.on_queue(turn, method, arguments),
            AMQPClass::Basic(method) => self.on_basic(turn, method, arguments),
            AMQPClass::Tx(method) => self.on_tx(turn, &method),
            AMQPClass::Confirm(confirm::AMQPMethod::Select(select)) => {
                self.select_confirms()?;
                let reply = AMQPClass::Confirm(confirm::AMQPMethod::SelectOk(confirm::SelectOk {}));
                self.proceed(turn, (!select.nowait).then_some(reply));
                Ok(())
            }
            _ => Err(unimplemented_method()),
        }
    }

    fn on_channel(&mut self, turn: &mut Turn<'_>, method: &channel::AMQPMethod) -> Result<(), Exception> {
        match method {
            channel::AMQPMethod::Open(_) => Err(Exception::new(ReplyCode::ChannelError, "second 'channel.open' seen")),
            channel::AMQPMethod::Close(_) => {
                self.phase = Phase::Ending;
                turn.requests.push(Request::CloseChannel(self.reference));
                Ok(())
            }
            channel::AMQPMethod::Flow(flow) if !flow.active => {
                Err(Exception::new(ReplyCode::NotImplemented, "active=false"))
            }
            channel::AMQPMethod::Flow(_) => {
                let reply = channel::AMQPMethod::FlowOk(channel::FlowOk { active: true });
                self.proceed(turn, Some(AMQPClass::Channel(reply)));
                Ok(())
            }
            // Answers to what the broker never asks; a close-ok belongs to a channel that it is closing.
            channel::AMQPMethod::CloseOk(_) | channel::AMQPMethod::FlowOk(_) | channel::AMQPMethod::OpenOk(_) => {
                Err(unimplemented_method())
            }
        }
    }

    fn on_exchange(
        &mut self,
        turn: &mut Turn<'_>,
        method: exchange::AMQPMethod,
        arguments: FieldTable,
    ) -> Result<(), Exception> {
        match method {
            exchange::AMQPMethod::Declare(declare) => {
                let ask = Ask::DeclareExchange(DeclareExchange {
                    exchange: ExchangeName::new(&without_line_ends(declare.exchange.as_str())),
                    kind: declare.kind.into(),
                    passive: declare.passive,
                    durable: declare.durable,
                    auto_delete: declare.auto_delete,
                    internal: declare.internal,
                    arguments,
                });
                let reply = exchange::AMQPMethod::DeclareOk(exchange::DeclareOk {});
                self.ask(turn, ask, exchange_reply(reply, declare.nowait));
            }
            exchange::AMQPMethod::Delete(delete) => {
                let exchange = ExchangeName::new(&without_line_ends(delete.exchange.as_str()));
                let ask = Ask::DeleteExchange { exchange, if_unused: delete.if_unused };
                let reply = exchange::AMQPMethod::DeleteOk(exchange::DeleteOk {});
                self.ask(turn, ask, exchange_reply(reply, delete.nowait));
            }
            exchange::AMQPMethod::Bind(bind) => {
                let request = between_exchanges(&bind.source, &bind.destination, &bind.routing_key, arguments);
                let reply = exchange::AMQPMethod::BindOk(exchange::BindOk {});
                self.ask(turn, Ask::Bind(request), exchange_reply(reply, bind.nowait));
            }
            exchange::AMQPMethod::Unbind(unbind) => {
                let request = between_exchanges(&unbind.source, &unbind.destination, &unbind.routing_key, arguments);
                let reply = exchange::AMQPMethod::UnbindOk(exchange::UnbindOk {});
                self.ask(turn, Ask::Unbind(request), exchange_reply(reply, unbind.nowait));
            }
            _ => return Err(unimplemented_method()),
        }
        Ok(())
    }

    fn on_queue(
        &mut self,
        turn: &mut Turn<'_>,
        method: queue::AMQPMethod,
        arguments: FieldTable,
    ) -> Result<(), Exception> {
        match method {
            queue::AMQPMethod::Declare(declare) => {
                let ask = Ask::DeclareQueue(DeclareQueue {
                    queue: QueueName::new(&without_line_ends(declare.queue.as_str())),
                    passive: declare.passive,
                    durable: declare.durable,
                    exclusive: declare.exclusive,
                    auto_delete: declare.auto_delete,
                    arguments,
                });
                self.ask(turn, ask, Pending::DeclareQueue { nowait: declare.nowait });
            }
            queue::AMQPMethod::Bind(bind) => {
                let request = self.to_queue(&bind.queue, &bind.exchange, &bind.routing_key, arguments)?;
                let reply = queue::AMQPMethod::BindOk(queue::BindOk {});
                self.ask(turn, Ask::Bind(request), queue_reply(reply, bind.nowait));
            }
            queue::AMQPMethod::Unbind(unbind) => {
                let request = self.to_queue(&unbind.queue, &unbind.exchange, &unbind.routing_key, arguments)?;
                let reply = queue::AMQPMethod::UnbindOk(queue::UnbindOk {});
                self.ask(turn, Ask::Unbind(request), queue_reply(reply, false));
            }
            queue::AMQPMethod::Purge(purge) => {
                let queue = self.queue_name(&without_line_ends(purge.queue.as_str()))?;
                self.ask(turn, Ask::PurgeQueue { queue }, Pending::Purge { nowait: purge.nowait });
            }
            queue::AMQPMethod::Delete(delete) => {
                let queue = self.queue_name(&without_line_ends(delete.queue.as_str()))?;
                let ask = Ask::DeleteQueue { queue, if_unused: delete.if_unused, if_empty: delete.if_empty };
                self.ask(turn, ask, Pending::DeleteQueue { nowait: delete.nowait });
            }
            _ => return Err(unimplemented_method()),
        }
        Ok(())
    }

    /// An empty queue with an empty key means the last declared queue's name for both.
    fn to_queue(
        &self,
        queue: &amq_protocol::types::ShortString,
        exchange: &amq_protocol::types::ShortString,
        key: &amq_protocol::types::ShortString,
        arguments: FieldTable,
    ) -> Result<BindingRequest, Exception> {
        let name = self.queue_name(&without_line_ends(queue.as_str()))?;
        let key = if queue.as_str().is_empty() && key.as_str().is_empty() { name.as_str() } else { key.as_str() };
        Ok(BindingRequest {
            source: ExchangeName::new(&without_line_ends(exchange.as_str())),
            key: RoutingKey::new(key.as_bytes()),
            destination: Destination::Queue(name),
            arguments,
        })
    }

    fn on_basic(
        &mut self,
        turn: &mut Turn<'_>,
        method: basic::AMQPMethod,
        arguments: FieldTable,
    ) -> Result<(), Exception> {
        match method {
            basic::AMQPMethod::Consume(consume) => self.on_consume(turn, &consume, arguments),
            basic::AMQPMethod::Cancel(cancel) => {
                let tag = ConsumerTag::new(cancel.consumer_tag.as_str());
                match self.tags.get(&tag).copied() {
                    Some(consumer) => {
                        let ask = Ask::Cancel { consumer, tag: tag.clone() };
                        self.ask(turn, ask, Pending::Cancel { tag, consumer: Some(consumer), nowait: cancel.nowait });
                    }
                    None if cancel.nowait => {}
                    None => {
                        let reply = basic::CancelOk { consumer_tag: cancel.consumer_tag };
                        self.proceed(turn, Some(AMQPClass::Basic(basic::AMQPMethod::CancelOk(reply))));
                    }
                }
                Ok(())
            }
            basic::AMQPMethod::CancelOk(_) => Ok(()),
            basic::AMQPMethod::Get(get) => {
                let queue = self.queue_name(get.queue.as_str())?;
                let (no_ack, holder) = (get.no_ack, self.holder());
                self.ask(turn, Ask::Get { queue, no_ack, holder }, Pending::Get { no_ack });
                Ok(())
            }
            basic::AMQPMethod::Recover(recover) if recover.requeue => {
                let settlements = self.recover();
                let reply = basic::AMQPMethod::RecoverOk(basic::RecoverOk {});
                self.ask(turn, Ask::Recover { settlements }, Pending::Reply(Some(AMQPClass::Basic(reply))));
                Ok(())
            }
            basic::AMQPMethod::RecoverAsync(recover) if recover.requeue => {
                let settlements = self.recover();
                self.ask(turn, Ask::Recover { settlements }, Pending::Reply(None));
                Ok(())
            }
            basic::AMQPMethod::Recover(_) | basic::AMQPMethod::RecoverAsync(_) => {
                Err(Exception::new(ReplyCode::NotImplemented, "requeue=false"))
            }
            _ => Err(unimplemented_method()),
        }
    }

    /// Reads the fields itself: the library drops prefetch_size, which must be refused.
    pub(super) fn on_qos(&mut self, turn: &mut Turn<'_>, fields: &[u8]) -> Result<(), Exception> {
        let &[s0, s1, s2, s3, c0, c1, bits] = fields else {
            return Err(cannot_decode(fields));
        };
        let prefetch_size = u32::from_be_bytes([s0, s1, s2, s3]);
        let (prefetch_count, global) = (u16::from_be_bytes([c0, c1]), bits & 1 != 0);
        if prefetch_size != 0 {
            let text = format!("prefetch_size!=0 ({prefetch_size})");
            return Err(Exception::new(ReplyCode::NotImplemented, text));
        }
        let reply = AMQPClass::Basic(basic::AMQPMethod::QosOk(basic::QosOk {}));
        if global && turn.settings.global_qos {
            let ask = Ask::ChannelPrefetch { limit: prefetch_count };
            self.ask(turn, ask, Pending::Reply(Some(reply)));
        } else {
            self.set_prefetch(prefetch_count);
            self.proceed(turn, Some(reply));
        }
        Ok(())
    }

    fn on_consume(
        &mut self,
        turn: &mut Turn<'_>,
        consume: &basic::Consume,
        arguments: FieldTable,
    ) -> Result<(), Exception> {
        let queue = self.queue_name(consume.queue.as_str())?;
        let tag = match consume.consumer_tag.as_str() {
            "" => ConsumerTag::new(&turn.random.name("amq.ctag")),
            tag => ConsumerTag::new(tag),
        };
        if self.tags.contains_key(&tag) {
            return Err(Exception::not_allowed(format!("attempt to reuse consumer tag '{tag}'")));
        }
        let max = turn.settings.consumers_per_channel_max;
        if max != 0 && self.tags.len() >= max {
            return Err(Exception::not_allowed(format!("reached maximum ({max}) of consumers per channel")));
        }
        let consumer = self.add_consumer(turn, &tag, &queue, consume.no_ack);
        let reply = basic::ConsumeOk { consumer_tag: tag.as_str().into() };
        let ask = Ask::Consume(ConsumeRequest {
            consumer,
            queue,
            tag,
            prefetch: self.prefetch(),
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            arguments,
        });
        let reply = (!consume.nowait).then_some(AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(reply)));
        self.ask(turn, ask, Pending::Reply(reply));
        Ok(())
    }

    fn on_tx(&mut self, turn: &mut Turn<'_>, method: &tx::AMQPMethod) -> Result<(), Exception> {
        match method {
            tx::AMQPMethod::Select(_) => {
                self.select_transactions()?;
                self.proceed(turn, Some(AMQPClass::Tx(tx::AMQPMethod::SelectOk(tx::SelectOk {}))));
                Ok(())
            }
            tx::AMQPMethod::Commit(_) => self.commit(turn),
            tx::AMQPMethod::Rollback(_) => self.rollback(turn),
            _ => Err(unimplemented_method()),
        }
    }
}

fn between_exchanges(
    source: &amq_protocol::types::ShortString,
    destination: &amq_protocol::types::ShortString,
    key: &amq_protocol::types::ShortString,
    arguments: FieldTable,
) -> BindingRequest {
    BindingRequest {
        source: ExchangeName::new(&without_line_ends(source.as_str())),
        destination: Destination::Exchange(ExchangeName::new(&without_line_ends(destination.as_str()))),
        key: RoutingKey::new(key.as_str().as_bytes()),
        arguments,
    }
}

/// RabbitMQ strips carriage returns and line feeds from the names of what is declared, bound or deleted.
fn without_line_ends(name: &str) -> String {
    name.replace(['\r', '\n'], "")
}

fn unimplemented_method() -> Exception {
    Exception::new(ReplyCode::CommandInvalid, "unimplemented method")
}
