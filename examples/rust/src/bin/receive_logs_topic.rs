//! Prints the lines whose topics match patterns: receive_logs_topic 'kern.*' '*.critical'.

use futures_util::StreamExt;
use lapin::{
    ExchangeKind,
    options::{BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use warren_examples::{CommandLine, Outcome, connect};

#[tokio::main]
async fn main() -> Outcome {
    let CommandLine { words: patterns, count } = CommandLine::read()?;
    if patterns.is_empty() {
        return Err("name the patterns to listen to".into());
    }
    let connection = connect().await?;
    let channel = connection.create_channel().await?;
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel.exchange_declare("topic_logs".into(), ExchangeKind::Topic, durable, FieldTable::default()).await?;
    let queue = channel.queue_declare("".into(), QueueDeclareOptions::exclusive(), FieldTable::default()).await?;
    let queue = queue.name().clone();

    // In a pattern `*` stands for one word and `#` for any number of words.
    for key in patterns {
        let (key, options) = (key.as_str().into(), QueueBindOptions::default());
        channel.queue_bind(queue.clone(), "topic_logs".into(), key, options, FieldTable::default()).await?;
    }
    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let consumer = channel.basic_consume(queue, "".into(), options, FieldTable::default()).await?;
    println!("waiting for logs");

    let mut lines = consumer.take(count);
    while let Some(line) = lines.next().await {
        let line = line?;
        println!("received {}: {}", line.routing_key, String::from_utf8_lossy(&line.data));
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}
