//! One test's connection, its unique names, and the removal of what it declared.

use std::{
    ops::Deref,
    panic::{AssertUnwindSafe, resume_unwind},
    sync::Mutex,
};

use futures_util::{FutureExt, StreamExt};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, Error, ErrorKind, Event,
    ExchangeKind,
    message::{BasicGetMessage, Delivery},
    options::{
        BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        ExchangeBindOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::{FieldTable, ShortString},
};
use tokio::time::{Instant, sleep, timeout};

pub use crate::values::{body, header, headers, table, text, unique_name};
use crate::{PATIENCE, POLL, broker};

/// Runs `body` against the shared broker and removes what it declared, also when it panics.
pub fn scenario(body: impl AsyncFnOnce(&Scenario)) {
    block_on(async {
        let scenario = Scenario::new(broker::shared_uri()).await;
        let outcome = AssertUnwindSafe(timeout(PATIENCE * 4, body(&scenario))).catch_unwind().await;
        scenario.clean_up().await;
        match outcome {
            Ok(finished) => finished.expect("the scenario takes too long"),
            Err(panic) => resume_unwind(panic),
        }
    });
}

/// Runs a future on a runtime of its own.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

/// What a test works with; see [`scenario`].
pub struct Scenario {
    uri: String,
    connection: Connection,
    queues: Mutex<Vec<ShortString>>,
    exchanges: Mutex<Vec<ShortString>>,
}

impl Scenario {
    /// Connects to `uri`. Only [`scenario`] removes what is declared.
    pub async fn new(uri: &str) -> Self {
        let connection = connect(uri).await;
        Self { uri: uri.to_owned(), connection, queues: Mutex::default(), exchanges: Mutex::default() }
    }

    /// The broker's URI.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The scenario's own connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Opens a second connection.
    pub async fn connect(&self) -> Connection {
        connect(&self.uri).await
    }

    /// Opens a channel on the scenario's connection.
    pub async fn channel(&self) -> Session {
        Session::open(&self.connection).await
    }

    /// Opens a channel with publisher confirms: [`Session::publish`] returns when the queues have the message.
    pub async fn confirming(&self) -> Session {
        Session::confirming(&self.connection).await
    }

    /// Declares a durable queue that other connections can use too.
    pub async fn queue(&self, channel: &Session, arguments: FieldTable) -> ShortString {
        let name = unique_name();
        self.queues.lock().expect("not poisoned").push(name.clone());
        let declared = channel.queue_declare(name.clone(), QueueDeclareOptions::durable(), arguments).await;
        declared.expect("declare a queue");
        name
    }

    /// Declares a durable exchange of `kind`.
    pub async fn exchange(&self, channel: &Session, kind: &str, arguments: FieldTable) -> ShortString {
        self.try_exchange(channel, kind, arguments).await.expect("declare an exchange")
    }

    /// Declares a durable exchange of `kind`, which the broker may not know.
    pub async fn try_exchange(
        &self,
        channel: &Session,
        kind: &str,
        arguments: FieldTable,
    ) -> lapin::Result<ShortString> {
        let name = unique_name();
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel.exchange_declare(name.clone(), ExchangeKind::Custom(kind.into()), options, arguments).await?;
        self.exchanges.lock().expect("not poisoned").push(name.clone());
        Ok(name)
    }

    async fn clean_up(self) {
        // The test may have made the broker close the connection, so this takes a new one.
        let connection = connect(&self.uri).await;
        let channel = Session::open(&connection).await;
        let queues = self.queues.into_inner().expect("not poisoned");
        for queue in queues {
            channel.queue_delete(queue, QueueDeleteOptions::default()).await.expect("delete a queue");
        }
        let exchanges = self.exchanges.into_inner().expect("not poisoned");
        for exchange in exchanges {
            channel.exchange_delete(exchange, ExchangeDeleteOptions::default()).await.expect("delete an exchange");
        }
        connection.close(200, "done".into()).await.expect("close");
        // Closed already when the test provoked a connection error.
        let _ = self.connection.close(200, "done".into()).await;
    }
}

/// A channel with the calls most tests make.
pub struct Session(Channel);

impl Deref for Session {
    type Target = Channel;

    fn deref(&self) -> &Channel {
        &self.0
    }
}

impl Session {
    /// Opens a channel.
    pub async fn open(connection: &Connection) -> Self {
        Self(connection.create_channel().await.expect("open a channel"))
    }

    /// Opens a channel with publisher confirms.
    pub async fn confirming(connection: &Connection) -> Self {
        let session = Self::open(connection).await;
        session.confirm_select(ConfirmSelectOptions::default()).await.expect("confirm.select");
        session
    }

    /// Declares an exclusive queue with a name of the broker's choice.
    pub async fn exclusive_queue(&self, arguments: FieldTable) -> ShortString {
        let declared = self.queue_declare("".into(), QueueDeclareOptions::exclusive(), arguments).await;
        declared.expect("declare an exclusive queue").name().clone()
    }

    /// Binds a queue.
    pub async fn bind(&self, queue: &ShortString, exchange: &ShortString, key: &str, arguments: FieldTable) {
        let options = QueueBindOptions::default();
        let bound = self.queue_bind(queue.clone(), exchange.clone(), key.into(), options, arguments).await;
        bound.expect("bind a queue");
    }

    /// Binds `destination` so that it gets messages of the exchange `source`.
    pub async fn bind_exchange(&self, destination: &ShortString, source: &ShortString, key: &str) {
        let options = ExchangeBindOptions::default();
        let (destination, source) = (destination.clone(), source.clone());
        let bound = self.exchange_bind(destination, source, key.into(), options, FieldTable::default()).await;
        bound.expect("bind an exchange");
    }

    /// Publishes a text; on a confirming channel it returns when the message is confirmed.
    pub async fn publish(&self, exchange: &str, key: &str, body: &str) {
        self.publish_with(exchange, key, body, BasicProperties::default()).await;
    }

    /// Publishes a text with properties; a refusal by the broker fails the test.
    pub async fn publish_with(&self, exchange: &str, key: &str, body: &str, properties: BasicProperties) {
        let confirmation = self.send(exchange, key, body.as_bytes(), properties).await.expect("publish");
        assert!(!confirmation.is_nack(), "the broker refused {body:?}");
    }

    /// Publishes and returns what became of it.
    pub async fn send(
        &self,
        exchange: &str,
        key: &str,
        body: &[u8],
        properties: BasicProperties,
    ) -> lapin::Result<Confirmation> {
        let options = BasicPublishOptions::default();
        let sent = self.basic_publish(exchange.into(), key.into(), options, body, properties);
        within(async { sent.await?.await }).await
    }

    /// Publishes as mandatory and returns what became of it.
    pub async fn send_mandatory(&self, exchange: &str, key: &str, body: &str) -> lapin::Result<Confirmation> {
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let properties = BasicProperties::default();
        let sent = self.basic_publish(exchange.into(), key.into(), options, body.as_bytes(), properties);
        within(async { sent.await?.await }).await
    }

    /// Consumes with manual acknowledgement.
    pub async fn consume(&self, queue: &ShortString, arguments: FieldTable) -> Consumer {
        let options = BasicConsumeOptions::default();
        let consumer = self.basic_consume(queue.clone(), "".into(), options, arguments).await;
        consumer.expect("consume")
    }

    /// Consumes without acknowledgement.
    pub async fn consume_no_ack(&self, queue: &ShortString) -> Consumer {
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let consumer = self.basic_consume(queue.clone(), "".into(), options, FieldTable::default()).await;
        consumer.expect("consume")
    }

    /// Sets the prefetch of consumers that come later.
    pub async fn prefetch(&self, count: u16) {
        self.basic_qos(count, BasicQosOptions::default()).await.expect("qos");
    }

    /// Takes one message; it has to be acknowledged.
    pub async fn get(&self, queue: &ShortString) -> Option<BasicGetMessage> {
        let got = self.basic_get(queue.clone(), BasicGetOptions::default()).await;
        got.expect("get")
    }

    /// Takes everything that is ready without acknowledgement.
    pub async fn drain(&self, queue: &ShortString) -> Vec<Delivery> {
        let mut messages = Vec::new();
        let options = BasicGetOptions { no_ack: true };
        while let Some(message) = self.basic_get(queue.clone(), options).await.expect("get") {
            messages.push(message.delivery);
        }
        messages
    }

    /// The bodies of everything that is ready, taken without acknowledgement.
    pub async fn bodies(&self, queue: &ShortString) -> Vec<String> {
        self.drain(queue).await.iter().map(body).collect()
    }

    /// The numbers of ready messages and of consumers.
    pub async fn counts(&self, queue: &ShortString) -> (u32, u32) {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let queue = self.queue_declare(queue.clone(), options, FieldTable::default()).await;
        let queue = queue.expect("a queue that exists");
        (queue.message_count(), queue.consumer_count())
    }

    /// Waits until the queue has this many ready messages.
    pub async fn wait_ready(&self, queue: &ShortString, expected: u32) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (ready, _) = self.counts(queue).await;
            if ready == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{ready} messages are ready, not {expected}");
            sleep(POLL).await;
        }
    }

    /// Waits until a passive declare says that the queue is gone. The channel is closed afterwards.
    pub async fn wait_gone(connection: &Connection, queue: &ShortString) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let channel = Self::open(connection).await;
            let options = QueueDeclareOptions { passive: true, ..Default::default() };
            let Err(error) = channel.queue_declare(queue.clone(), options, FieldTable::default()).await else {
                assert!(Instant::now() < deadline, "queue {queue} is still there");
                sleep(POLL).await;
                continue;
            };
            return assert_error(&error, 404, &format!("NOT_FOUND - no queue '{queue}' in vhost '/'"));
        }
    }
}

/// Connects with default properties.
pub async fn connect(uri: &str) -> Connection {
    within(Connection::connect(uri, ConnectionProperties::default())).await.expect("connect")
}

/// The next delivery of a consumer.
pub async fn next(consumer: &mut Consumer) -> Delivery {
    within(consumer.next()).await.expect("the consumer goes on").expect("no error for the consumer")
}

/// The error a consumer ends with.
pub async fn consumer_error(consumer: &mut Consumer) -> Error {
    within(consumer.next()).await.expect("the consumer goes on").expect_err("an error for the consumer")
}

/// Waits for a cancelled consumer to end.
pub async fn ended(consumer: &mut Consumer) {
    assert!(within(consumer.next()).await.is_none(), "the consumer was cancelled");
}

/// Waits until the connection reports the error the broker closed it with. `events` has to be made before.
pub async fn connection_error(events: impl futures_util::Stream<Item = Event>) -> Error {
    let mut events = std::pin::pin!(events);
    loop {
        if let Event::Error(error) = within(events.next()).await.expect("an event") {
            return error;
        }
    }
}

/// The result of `future`, which has to come in time.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("an answer in time")
}

/// Asserts the reply code and the whole reply text of a channel or connection error.
#[track_caller]
pub fn assert_error(error: &Error, code: u16, text: &str) {
    let ErrorKind::ProtocolError(error) = error.kind() else {
        panic!("expected {code} {text}, but: {error}");
    };
    assert_eq!((error.get_id(), error.get_message().as_str()), (code, text));
}
