//! Publishes a line with a topic, words with dots between them: emit_log_topic kern.critical "it burns".

use lapin::{
    BasicProperties, ExchangeKind,
    options::{BasicPublishOptions, ExchangeDeclareOptions},
    types::FieldTable,
};
use warren_examples::{CommandLine, Outcome, connect};

#[tokio::main]
async fn main() -> Outcome {
    let arguments = CommandLine::read()?;
    let topic = arguments.words.first().map_or("anonymous.info", String::as_str);
    let line = arguments.text(1, "Hello World!");
    let connection = connect().await?;
    let channel = connection.create_channel().await?;
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel.exchange_declare("topic_logs".into(), ExchangeKind::Topic, durable, FieldTable::default()).await?;

    // The topic is the routing key.
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default();
    channel.basic_publish("topic_logs".into(), topic.into(), options, line.as_bytes(), properties).await?;
    println!("sent {topic}: {line}");
    connection.close(200, "done".into()).await?;
    Ok(())
}
