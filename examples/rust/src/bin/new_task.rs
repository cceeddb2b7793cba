//! Puts a task into the work queue. Every dot in its text stands for 100 ms of work.

use lapin::{
    BasicProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::FieldTable,
};
use warren_examples::{CommandLine, Outcome, connect};

const PERSISTENT: u8 = 2;

#[tokio::main]
async fn main() -> Outcome {
    let task = CommandLine::read()?.text(0, "a task...");
    let connection = connect().await?;
    let channel = connection.create_channel().await?;
    channel.queue_declare("tasks".into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;

    // With publisher confirms we know that the broker has the task before we say so.
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    let sent = channel.basic_publish("".into(), "tasks".into(), options, task.as_bytes(), properties).await?;
    if !sent.await?.is_ack() {
        return Err("the broker refused the task".into());
    }
    println!("sent {task}");
    connection.close(200, "done".into()).await?;
    Ok(())
}
