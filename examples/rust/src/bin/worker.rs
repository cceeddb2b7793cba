//! Works on the tasks of the work queue, one at a time. Start as many workers as you like.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::{
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions},
    types::FieldTable,
};
use warren_examples::{CommandLine, Outcome, connect};

const TIME_FOR_A_DOT: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() -> Outcome {
    let count = CommandLine::read()?.count;
    let connection = connect().await?;
    let channel = connection.create_channel().await?;
    channel.queue_declare("tasks".into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;

    // One unacknowledged task for each worker: the next one goes to whoever is free.
    channel.basic_qos(1, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume("tasks".into(), "".into(), options, FieldTable::default()).await?;
    println!("waiting for tasks");

    let mut tasks = consumer.take(count);
    while let Some(task) = tasks.next().await {
        let task = task?;
        let text = String::from_utf8_lossy(&task.data);
        println!("received {text}");
        let dots = text.chars().filter(|letter| *letter == '.').count();
        tokio::time::sleep(TIME_FOR_A_DOT * u32::try_from(dots)?).await;
        // A worker that ends before this leaves the task to another one.
        task.ack(BasicAckOptions::default()).await?;
        println!("finished {text}");
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}
