//! Publishes a line to everybody who listens to the exchange `logs`.

use lapin::{
    BasicProperties, ExchangeKind,
    options::{BasicPublishOptions, ExchangeDeclareOptions},
    types::FieldTable,
};
use warren_examples::{CommandLine, Outcome, connect};

#[tokio::main]
async fn main() -> Outcome {
    let line = CommandLine::read()?.text(0, "info: Hello World!");
    let connection = connect().await?;
    let channel = connection.create_channel().await?;
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel.exchange_declare("logs".into(), ExchangeKind::Fanout, durable, FieldTable::default()).await?;

    // A fanout exchange ignores the routing key. Without listeners the line is lost, which is what we want here.
    let options = BasicPublishOptions::default();
    channel.basic_publish("logs".into(), "".into(), options, line.as_bytes(), BasicProperties::default()).await?;
    println!("sent {line}");
    connection.close(200, "done".into()).await?;
    Ok(())
}
