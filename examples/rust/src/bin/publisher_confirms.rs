//! Three ways to learn that the broker has taken a message: one by one, in batches, and as they come.

use std::time::Instant;

use futures_util::{StreamExt, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Channel, Confirmation, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::{FieldTable, ShortString},
};
use warren_examples::{CommandLine, Outcome, connect};

const DEFAULT_COUNT: usize = 10_000;
const BATCH: usize = 100;

/// Hands a message to the client library; the result is its confirmation, which comes later.
async fn publish(channel: &Channel, queue: &ShortString, number: usize) -> lapin::Result<PublisherConfirm> {
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    let text = number.to_string();
    channel.basic_publish("".into(), queue.clone(), options, text.as_bytes(), properties).await
}

fn check(confirmation: &Confirmation) -> Outcome {
    if confirmation.is_ack() { Ok(()) } else { Err("the broker refused a message".into()) }
}

/// Simple and slow: every message waits for the way to the broker and back.
async fn one_by_one(channel: &Channel, queue: &ShortString, count: usize) -> Outcome {
    for number in 0..count {
        check(&publish(channel, queue, number).await?.await?)?;
    }
    Ok(())
}

/// Waits once for many messages; after a refusal we only know the batch.
async fn in_batches(channel: &Channel, queue: &ShortString, count: usize) -> Outcome {
    let mut batch = Vec::with_capacity(BATCH);
    for number in 0..count {
        batch.push(publish(channel, queue, number).await?);
        if batch.len() == BATCH || number + 1 == count {
            for confirmation in batch.drain(..) {
                check(&confirmation.await?)?;
            }
        }
    }
    Ok(())
}

/// Publishing goes on while confirmations arrive, with a limit to what is on its way.
async fn as_they_come(channel: &Channel, queue: &ShortString, count: usize) -> Outcome {
    let mut pending = FuturesUnordered::new();
    for number in 0..count {
        pending.push(publish(channel, queue, number).await?);
        if pending.len() >= BATCH
            && let Some(confirmation) = pending.next().await
        {
            check(&confirmation?)?;
        }
    }
    while let Some(confirmation) = pending.next().await {
        check(&confirmation?)?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome {
    let count = Some(CommandLine::read()?.count).filter(|count| *count != usize::MAX).unwrap_or(DEFAULT_COUNT);
    let connection = connect().await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let queue = channel.queue_declare("".into(), QueueDeclareOptions::exclusive(), FieldTable::default()).await?;
    let queue = queue.name();

    let start = Instant::now();
    one_by_one(&channel, queue, count).await?;
    println!("confirmed {count} messages one by one in {} ms", start.elapsed().as_millis());
    let start = Instant::now();
    in_batches(&channel, queue, count).await?;
    println!("confirmed {count} messages in batches in {} ms", start.elapsed().as_millis());
    let start = Instant::now();
    as_they_come(&channel, queue, count).await?;
    println!("confirmed {count} messages as they come in {} ms", start.elapsed().as_millis());
    connection.close(200, "done".into()).await?;
    Ok(())
}
