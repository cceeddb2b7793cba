//! Sends one message to the queue `hello`.

use lapin::{
    BasicProperties,
    options::{BasicPublishOptions, QueueDeclareOptions},
    types::FieldTable,
};
use warren_examples::{CommandLine, Outcome, connect};

#[tokio::main]
async fn main() -> Outcome {
    let text = CommandLine::read()?.text(0, "Hello World!");
    let connection = connect().await?;
    let channel = connection.create_channel().await?;
    channel.queue_declare("hello".into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;

    // The default exchange puts a message into the queue its routing key names.
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default();
    channel.basic_publish("".into(), "hello".into(), options, text.as_bytes(), properties).await?;
    println!("sent {text}");

    // Closing sends what is still in the client's buffers.
    connection.close(200, "done".into()).await?;
    Ok(())
}
