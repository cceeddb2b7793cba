//! Prints the messages of the queue `hello`.

use futures_util::StreamExt;
use lapin::{
    options::{BasicConsumeOptions, QueueDeclareOptions},
    types::FieldTable,
};
use warren_examples::{CommandLine, Outcome, connect};

#[tokio::main]
async fn main() -> Outcome {
    let count = CommandLine::read()?.count;
    let connection = connect().await?;
    let channel = connection.create_channel().await?;
    // Both programs declare the queue, so it does not matter which of them runs first.
    channel.queue_declare("hello".into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;

    // Without acknowledgement the broker forgets a message as soon as it has sent it.
    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let consumer = channel.basic_consume("hello".into(), "".into(), options, FieldTable::default()).await?;
    println!("waiting for messages");

    let mut messages = consumer.take(count);
    while let Some(message) = messages.next().await {
        println!("received {}", String::from_utf8_lossy(&message?.data));
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}
