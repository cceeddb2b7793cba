//! Prints every line published to the exchange `logs` from now on.

use futures_util::StreamExt;
use lapin::{
    ExchangeKind,
    options::{BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use warren_examples::{CommandLine, Outcome, connect};

#[tokio::main]
async fn main() -> Outcome {
    let count = CommandLine::read()?.count;
    let connection = connect().await?;
    let channel = connection.create_channel().await?;
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel.exchange_declare("logs".into(), ExchangeKind::Fanout, durable, FieldTable::default()).await?;

    // A queue of our own: the broker names it and removes it when this connection ends.
    let queue = channel.queue_declare("".into(), QueueDeclareOptions::exclusive(), FieldTable::default()).await?;
    let queue = queue.name().clone();
    let options = QueueBindOptions::default();
    channel.queue_bind(queue.clone(), "logs".into(), "".into(), options, FieldTable::default()).await?;
    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let consumer = channel.basic_consume(queue, "".into(), options, FieldTable::default()).await?;
    println!("waiting for logs");

    let mut lines = consumer.take(count);
    while let Some(line) = lines.next().await {
        println!("received {}", String::from_utf8_lossy(&line?.data));
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}
