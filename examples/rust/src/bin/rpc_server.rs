//! Answers requests: a number in, the Fibonacci number of that place out.

use futures_util::StreamExt;
use lapin::{
    BasicProperties,
    options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, QueueDeclareOptions},
    types::FieldTable,
};
use warren_examples::{CommandLine, Outcome, connect};

/// The answer to a request; a text for people when there is none.
fn answer(request: &[u8]) -> String {
    let place = std::str::from_utf8(request).ok().and_then(|text| text.parse().ok());
    match place.map(fibonacci) {
        Some(Some(number)) => number.to_string(),
        Some(None) => "too large".into(),
        None => "not a number".into(),
    }
}

/// `None` when the number has more than 64 bits.
fn fibonacci(place: u32) -> Option<u64> {
    let (mut number, mut next) = (0_u64, Some(1_u64));
    for _ in 0..place {
        let following = next.and_then(|next| number.checked_add(next));
        number = next?;
        next = following;
    }
    Some(number)
}

#[tokio::main]
async fn main() -> Outcome {
    let count = CommandLine::read()?.count;
    let connection = connect().await?;
    let channel = connection.create_channel().await?;
    channel.queue_declare("rpc".into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
    channel.basic_qos(1, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume("rpc".into(), "".into(), options, FieldTable::default()).await?;
    println!("waiting for requests");

    let mut requests = consumer.take(count);
    while let Some(request) = requests.next().await {
        let request = request?;
        let answer = answer(&request.data);
        println!("{} -> {answer}", String::from_utf8_lossy(&request.data));
        if let Some(reply_to) = request.properties.reply_to().clone() {
            // The correlation id tells the client which of its requests this answers.
            let id = request.properties.correlation_id().clone().unwrap_or_default();
            let properties = BasicProperties::default().with_correlation_id(id);
            let options = BasicPublishOptions::default();
            channel.basic_publish("".into(), reply_to, options, answer.as_bytes(), properties).await?;
        }
        request.ack(BasicAckOptions::default()).await?;
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}
