//! Asks the server for Fibonacci numbers: rpc_client 10 20 30.

use futures_util::StreamExt;
use lapin::{
    BasicProperties,
    options::{BasicConsumeOptions, BasicPublishOptions},
    types::FieldTable,
};
use warren_examples::{CommandLine, Outcome, connect};

/// The broker gives replies sent here straight to the channel of the request, without a queue.
const REPLY_TO: &str = "amq.rabbitmq.reply-to";

#[tokio::main]
async fn main() -> Outcome {
    let requests = CommandLine::read()?.words;
    let connection = connect().await?;
    let channel = connection.create_channel().await?;

    // The consumer has to be there before the first request.
    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let mut replies = channel.basic_consume(REPLY_TO.into(), "".into(), options, FieldTable::default()).await?;
    for (number, request) in requests.iter().enumerate() {
        let properties =
            BasicProperties::default().with_reply_to(REPLY_TO.into()).with_correlation_id(number.to_string().into());
        let options = BasicPublishOptions::default();
        channel.basic_publish("".into(), "rpc".into(), options, request.as_bytes(), properties).await?;
    }

    // With several servers the replies may come in any order.
    for _ in &requests {
        let reply = replies.next().await.ok_or("the broker ended the replies")??;
        let id = reply.properties.correlation_id().as_ref().ok_or("a reply without correlation id")?;
        let request = requests.get(id.as_str().parse::<usize>()?).ok_or("a reply to no request of ours")?;
        println!("{request} -> {}", String::from_utf8_lossy(&reply.data));
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}
