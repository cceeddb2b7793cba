//! Stopping and restarting the broker under its clients. Only with a broker of our own.

use futures_util::{StreamExt, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Connection, ConnectionProperties, Consumer, ExchangeKind,
    options::{BasicAckOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueDeclareOptions},
    types::FieldTable,
};
use warren_client_tests::{
    broker::{self, Broker},
    scenario::{Session, assert_error, block_on, body, connect, connection_error, next, within},
};

/// Runs `test` with a broker of its own.
fn with_broker(test: impl AsyncFnOnce(Broker)) {
    if broker::external_uri().is_some() {
        return broker::skip("only a broker of our own is stopped");
    }
    block_on(test(Broker::start()));
}

#[test]
fn sigterm_closes_idle_and_busy_connections_with_320() {
    with_broker(async |mut broker| {
        let mut connections = Vec::new();
        for _ in 0..5 {
            let connection = connect(&broker.uri()).await;
            let channel = Session::open(&connection).await;
            let queue = channel.exclusive_queue(FieldTable::default()).await;
            channel.publish("", queue.as_str(), "unacknowledged").await;
            let mut consumer = channel.consume(&queue, FieldTable::default()).await;
            next(&mut consumer).await;
            connections.push((connection, channel, consumer));
        }
        let closed: FuturesUnordered<_> =
            connections.iter().map(|(connection, ..)| connection_error(connection.events_listener())).collect();
        broker.terminate();
        for error in closed.collect::<Vec<_>>().await {
            let text = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'";
            assert_error(&error, 320, text);
        }
        broker.assert_clean_exit();
    });
}

#[test]
fn sigterm_ends_a_broker_without_clients() {
    with_broker(async |mut broker| broker.stop());
}

#[test]
fn sigterm_while_publishing_ends_in_time() {
    with_broker(async |mut broker| {
        let connection = connect(&broker.uri()).await;
        let channel = Session::confirming(&connection).await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        let events = connection.events_listener();
        let body = vec![b'x'; 10_000];
        let publishing = async {
            let mut confirmed = 0;
            while channel.send("", queue.as_str(), &body, BasicProperties::default()).await.is_ok() {
                confirmed += 1;
                if confirmed == 20 {
                    broker.terminate();
                }
            }
            confirmed
        };
        assert!(publishing.await >= 20);
        let text = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'";
        assert_error(&connection_error(events).await, 320, text);
        broker.assert_clean_exit();
    });
}

#[test]
fn a_restarted_broker_has_what_is_durable_on_its_port() {
    with_broker(async |mut broker| {
        let port = broker.port();
        let connection = connect(&broker.uri()).await;
        let channel = Session::confirming(&connection).await;
        let none = FieldTable::default;
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel.exchange_declare("kept".into(), ExchangeKind::Fanout, durable, none()).await.unwrap();
        channel.queue_declare("kept".into(), QueueDeclareOptions::durable(), none()).await.unwrap();
        channel.queue_bind("kept".into(), "kept".into(), "".into(), Default::default(), none()).await.unwrap();
        channel.queue_declare("transient".into(), QueueDeclareOptions::default(), none()).await.unwrap();
        let persistent = || BasicProperties::default().with_delivery_mode(2);
        assert!(channel.send("kept", "", b"persistent", persistent()).await.unwrap().is_ack());
        assert!(channel.send("kept", "", b"transient", BasicProperties::default()).await.unwrap().is_ack());
        broker.stop();
        broker.start_again();
        assert_eq!(broker.port(), port);
        let connection = connect(&broker.uri()).await;
        Session::wait_gone(&connection, &"transient".into()).await;
        let channel = Session::confirming(&connection).await;
        assert!(channel.send("kept", "", b"routed again", persistent()).await.unwrap().is_ack());
        assert_eq!(channel.bodies(&"kept".into()).await, ["persistent", "routed again"]);
        broker.stop();
    });
}

/// Connects with the client's own recovery and declares an exchange, a queue and a consumer.
async fn recovering(uri: &str) -> (Connection, lapin::Channel, Consumer) {
    let properties = ConnectionProperties::default().enable_auto_recover();
    let connection = within(Connection::connect(uri, properties)).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let none = FieldTable::default;
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel.exchange_declare("logs".into(), ExchangeKind::Topic, durable, none()).await.unwrap();
    channel.queue_declare("inbox".into(), QueueDeclareOptions::durable(), none()).await.unwrap();
    channel.queue_bind("inbox".into(), "logs".into(), "#".into(), Default::default(), none()).await.unwrap();
    channel.confirm_select(Default::default()).await.unwrap();
    channel.basic_qos(5, Default::default()).await.unwrap();
    let consumer = channel.basic_consume("inbox".into(), "mine".into(), Default::default(), none()).await.unwrap();
    (connection, channel, consumer)
}

/// Publishes until the broker has confirmed, waiting for the recovery of the connection when there is an error.
async fn publish_until_confirmed(channel: &lapin::Channel, text: &str) {
    loop {
        let sent = async {
            let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
            let sent = channel.basic_publish("logs".into(), "a.b".into(), options, text.as_bytes(), properties);
            sent.await?.await
        };
        match within(sent).await {
            Ok(confirmation) => return assert!(confirmation.is_ack()),
            Err(error) => within(channel.wait_for_recovery(error)).await.expect("recovery"),
        }
    }
}

/// The next message; errors of a connection that is recovered are passed over.
async fn next_after_recovery(consumer: &mut Consumer) -> lapin::message::Delivery {
    loop {
        if let Ok(delivery) = within(consumer.next()).await.expect("the consumer goes on") {
            return delivery;
        }
    }
}

/// Waits until a queue is there and somebody consumes from it.
async fn wait_for_consumer(connection: &Connection, queue: &str) {
    within(async {
        loop {
            let channel = connection.create_channel().await.unwrap();
            let passive = QueueDeclareOptions { passive: true, ..Default::default() };
            let found = channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
            if found.is_ok_and(|queue| queue.consumer_count() > 0) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn recovers_after(end: impl FnOnce(&mut Broker), mut broker: Broker) {
    let (connection, channel, mut consumer) = recovering(&broker.uri()).await;
    publish_until_confirmed(&channel, "before").await;
    let message = next_after_recovery(&mut consumer).await;
    assert_eq!(body(&message), "before");
    message.ack(BasicAckOptions::default()).await.unwrap();
    end(&mut broker);
    broker.start_again();
    // The client publishes as soon as its channel is back, and consumes again only after that.
    let onlooker = connect(&broker.uri()).await;
    wait_for_consumer(&onlooker, "inbox").await;
    publish_until_confirmed(&channel, "after").await;
    let message = next_after_recovery(&mut consumer).await;
    assert_eq!(body(&message), "after");
    message.ack(BasicAckOptions::default()).await.unwrap();
    connection.close(200, "done".into()).await.unwrap();
    broker.stop();
}

#[test]
fn a_recovering_client_survives_a_restart() {
    with_broker(async |broker| recovers_after(Broker::stop, broker).await);
}

#[test]
fn a_recovering_client_survives_a_crash() {
    with_broker(async |broker| recovers_after(Broker::kill, broker).await);
}
