//! Publishes a line with a severity: emit_log_direct error "disk full".

use lapin::{
    BasicProperties, ExchangeKind,
    options::{BasicPublishOptions, ExchangeDeclareOptions},
    types::FieldTable,
};
use warren_examples::{CommandLine, Outcome, connect};

#[tokio::main]
async fn main() -> Outcome {
    let arguments = CommandLine::read()?;
    let severity = arguments.words.first().map_or("info", String::as_str);
    let line = arguments.text(1, "Hello World!");
    let connection = connect().await?;
    let channel = connection.create_channel().await?;
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel.exchange_declare("direct_logs".into(), ExchangeKind::Direct, durable, FieldTable::default()).await?;

    // The severity is the routing key.
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default();
    channel.basic_publish("direct_logs".into(), severity.into(), options, line.as_bytes(), properties).await?;
    println!("sent {severity}: {line}");
    connection.close(200, "done".into()).await?;
    Ok(())
}
