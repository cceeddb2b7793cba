//! The numbers of queues, where everybody sees them.

use crate::model::entity::Queue;
use crate::model::ids::Timestamp;
use crate::model::statistics::QueueNumber;
use crate::queue::Tally;

use super::OwnedQueue;

/// Lets everybody see the queue's numbers.
pub(super) fn publish(owned: &OwnedQueue, now: Timestamp) {
    use QueueNumber as Number;
    let OwnedQueue { machine, definition, .. } = owned;
    let numbers = &definition.statistics.numbers;
    let (counts, stored, tally) = (machine.counts(), machine.stored(), machine.tally());
    let before = numbers.get(Number::Used);
    if before != 0 && numbers.get(Number::Consumers) > 0 {
        let passed = now.0.saturating_sub(before);
        numbers.add(Number::ConsumedMs, passed);
        if numbers.get(Number::ConsumersReady) != 0 {
            numbers.add(Number::ConsumersReadyMs, passed);
        }
    }
    for (number, value) in [
        (Number::Used, now.0),
        (Number::ConsumersReady, u64::from(machine.has_waiting_consumer())),
        (Number::Ready, counts.ready),
        (Number::Unacked, counts.unacked),
        (Number::Consumers, counts.consumers),
        (Number::ReadyBytes, counts.ready_bytes),
        (Number::UnackedBytes, counts.unacked_bytes),
        (Number::Persistent, stored.persistent),
        (Number::Cold, stored.cold),
        (Number::ColdBytes, stored.cold_bytes),
        (Number::Memory, owned.held),
        (Number::HeadArrived, machine.head_arrival().map_or(0, |arrival| now.0 - arrival.age_ms(now).min(now.0))),
        (
            Number::HeadTimestamp,
            machine.head_message().and_then(|head| head.properties().timestamp).unwrap_or_default(),
        ),
    ] {
        numbers.set(number, value);
    }
    publish_counters(definition, tally);
}

/// Lets everybody see what the queue has counted.
pub(super) fn publish_counters(definition: &Queue, tally: &Tally) {
    use QueueNumber as Number;
    let numbers = &definition.statistics.numbers;
    for (number, value) in [
        (Number::Published, tally.published),
        (Number::Delivered, tally.delivered),
        (Number::DeliveredAutoAck, tally.delivered_auto_ack),
        (Number::Got, tally.got),
        (Number::GotAutoAck, tally.got_auto_ack),
        (Number::GetEmpty, tally.get_empty),
        (Number::Redelivered, tally.redelivered),
        (Number::Acked, tally.acked),
        (Number::ExpiredDiscarded, tally.expired_discarded),
        (Number::DroppedDiscarded, tally.dropped_discarded),
        (Number::RejectedDiscarded, tally.rejected_discarded),
        (Number::Refused, tally.refused),
        (Number::ExpiredDeadLettered, tally.expired_dead_lettered),
        (Number::DroppedDeadLettered, tally.dropped_dead_lettered),
        (Number::RejectedDeadLettered, tally.rejected_dead_lettered),
    ] {
        numbers.set(number, value);
    }
    definition.statistics.in_queue.set(&tally.in_queue);
    definition.statistics.processing.set(&tally.processing);
}
