//! The errors a client can provoke, with their exact texts.

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Error, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, BasicRecoverOptions,
        ExchangeDeclareOptions, QueueDeclareOptions, QueuePurgeOptions,
    },
    types::FieldTable,
};
use warren_client_tests::scenario::{
    Scenario, Session, assert_error, connection_error, consumer_error, scenario, table, text, unique_name, within,
};

const DURABLE: ExchangeDeclareOptions =
    ExchangeDeclareOptions { passive: false, durable: true, auto_delete: false, internal: false, nowait: false };

/// Runs a call that fails on a channel of its own.
async fn failing<T>(scenario: &Scenario, call: impl AsyncFnOnce(&Channel) -> lapin::Result<T>) -> Error {
    let channel = scenario.channel().await;
    match within(call(&channel)).await {
        Ok(_) => panic!("the call was expected to fail"),
        Err(error) => error,
    }
}

#[test]
fn not_found() {
    scenario(async |scenario| {
        let queue = "NOT_FOUND - no queue 'nobody' in vhost '/'";
        let exchange = "NOT_FOUND - no exchange 'nobody' in vhost '/'";
        let none = FieldTable::default;
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        let error = failing(scenario, async |c| c.queue_declare("nobody".into(), passive, none()).await).await;
        assert_error(&error, 404, queue);
        let options = BasicConsumeOptions::default();
        let consume = async |c: &Channel| c.basic_consume("nobody".into(), "".into(), options, none()).await;
        assert_error(&failing(scenario, consume).await, 404, queue);
        let error = failing(scenario, async |c| c.basic_get("nobody".into(), Default::default()).await).await;
        assert_error(&error, 404, queue);
        let purge = async |c: &Channel| c.queue_purge("nobody".into(), QueuePurgeOptions::default()).await;
        assert_error(&failing(scenario, purge).await, 404, queue);
        let bind = async |c: &Channel| {
            c.queue_bind("nobody".into(), "amq.direct".into(), "".into(), Default::default(), none()).await
        };
        assert_error(&failing(scenario, bind).await, 404, queue);
        let channel = scenario.channel().await;
        let own = channel.exclusive_queue(none()).await;
        let bind = async |c: &Channel| c.queue_bind(own, "nobody".into(), "".into(), Default::default(), none()).await;
        assert_error(&failing(scenario, bind).await, 404, exchange);
        let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
        let declare =
            async |c: &Channel| c.exchange_declare("nobody".into(), ExchangeKind::Direct, passive, none()).await;
        assert_error(&failing(scenario, declare).await, 404, exchange);
        let error = failing(scenario, async |c| c.basic_get("".into(), Default::default()).await).await;
        assert_error(&error, 404, "NOT_FOUND - no previously declared queue");
    });
}

#[test]
fn access_refused() {
    scenario(async |scenario| {
        let none = FieldTable::default;
        let declare =
            async |c: &Channel| c.queue_declare("amq.mine".into(), QueueDeclareOptions::durable(), none()).await;
        let reserved = "name 'amq.mine' contains reserved prefix 'amq.*'";
        let error = failing(scenario, declare).await;
        assert_error(&error, 403, &format!("ACCESS_REFUSED - queue {reserved}"));
        let declare =
            async |c: &Channel| c.exchange_declare("amq.mine".into(), ExchangeKind::Fanout, DURABLE, none()).await;
        let error = failing(scenario, declare).await;
        assert_error(&error, 403, &format!("ACCESS_REFUSED - exchange {reserved}"));
        let default_exchange = "ACCESS_REFUSED - operation not permitted on the default exchange";
        let delete = async |c: &Channel| c.exchange_delete("".into(), Default::default()).await;
        assert_error(&failing(scenario, delete).await, 403, default_exchange);
        let channel = scenario.channel().await;
        let queue = channel.exclusive_queue(none()).await;
        let bind = async |c: &Channel| c.queue_bind(queue, "".into(), "k".into(), Default::default(), none()).await;
        assert_error(&failing(scenario, bind).await, 403, default_exchange);
        let delete = async |c: &Channel| c.exchange_delete("amq.topic".into(), Default::default()).await;
        let expected = "ACCESS_REFUSED - deletion of system exchange 'amq.topic' in vhost '/' not allowed";
        assert_error(&failing(scenario, delete).await, 403, expected);
    });
}

#[test]
fn publishing_to_an_internal_exchange_is_refused() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let sent = channel.send("amq.rabbitmq.trace", "", b"x", BasicProperties::default()).await;
        let expected = "ACCESS_REFUSED - cannot publish to internal exchange 'amq.rabbitmq.trace' in vhost '/'";
        assert_error(&sent.unwrap_err(), 403, expected);
    });
}

#[test]
fn inequivalent_exchanges() {
    scenario(async |scenario| {
        let channel = scenario.channel().await;
        let exchange = scenario.exchange(&channel, "direct", FieldTable::default()).await;
        let transient = ExchangeDeclareOptions { durable: false, ..DURABLE };
        let alternate = table([("alternate-exchange", text("other"))]);
        let cases = [
            (ExchangeKind::Topic, DURABLE, FieldTable::default(), "'type'", "received 'topic' but current is 'direct'"),
            (
                ExchangeKind::Direct,
                transient,
                FieldTable::default(),
                "'durable'",
                "received 'false' but current is 'true'",
            ),
            (
                ExchangeKind::Direct,
                DURABLE,
                alternate,
                "'alternate-exchange'",
                "received the value 'other' of type 'longstr' but current is none",
            ),
        ];
        for (kind, options, arguments, name, difference) in cases {
            let declare = async |c: &Channel| c.exchange_declare(exchange.clone(), kind, options, arguments).await;
            let expected = format!(
                "PRECONDITION_FAILED - inequivalent arg {name} for exchange '{exchange}' in vhost '/': {difference}"
            );
            assert_error(&failing(scenario, declare).await, 406, &expected);
        }
        let ignored = table([("x-anything", text("else"))]);
        channel.exchange_declare(exchange.clone(), ExchangeKind::Direct, DURABLE, ignored).await.unwrap();
    });
}

#[test]
fn unknown_exchange_type() {
    scenario(async |scenario| {
        let kind = ExchangeKind::Custom("x-no-such-type".into());
        let declare = async |c: &Channel| c.exchange_declare(unique_name(), kind, DURABLE, FieldTable::default()).await;
        let error = failing(scenario, declare).await;
        assert_error(&error, 406, "PRECONDITION_FAILED - unknown exchange type 'x-no-such-type'");
    });
}

#[test]
fn an_exchange_in_use_is_not_deleted() {
    scenario(async |scenario| {
        let channel = scenario.channel().await;
        let exchange = scenario.exchange(&channel, "fanout", FieldTable::default()).await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        channel.bind(&queue, &exchange, "", FieldTable::default()).await;
        let unused = lapin::options::ExchangeDeleteOptions { if_unused: true, ..Default::default() };
        let error = failing(scenario, async |c| c.exchange_delete(exchange.clone(), unused).await).await;
        assert_error(&error, 406, &format!("PRECONDITION_FAILED - exchange '{exchange}' in vhost '/' in use"));
        channel.queue_unbind(queue, exchange.clone(), "".into(), FieldTable::default()).await.unwrap();
        channel.exchange_delete(exchange.clone(), unused).await.unwrap();
        channel.exchange_delete(exchange, unused).await.unwrap();
    });
}

/// Acknowledges on a channel with a consumer and returns the error the consumer gets.
async fn ack_error(channel: &Session, tag: u64, options: BasicAckOptions) -> Error {
    let queue = channel.exclusive_queue(FieldTable::default()).await;
    let mut consumer = channel.consume(&queue, FieldTable::default()).await;
    channel.basic_ack(tag, options).await.unwrap();
    consumer_error(&mut consumer).await
}

#[test]
fn unknown_delivery_tags() {
    scenario(async |scenario| {
        let single = BasicAckOptions::default();
        for (tag, options) in [(0, single), (1, single), (99, BasicAckOptions { multiple: true })] {
            let channel = scenario.channel().await;
            let error = ack_error(&channel, tag, options).await;
            assert_error(&error, 406, &format!("PRECONDITION_FAILED - unknown delivery tag {tag}"));
        }
        let channel = scenario.confirming().await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        channel.publish("", queue.as_str(), "x").await;
        channel.get(&queue).await.unwrap();
        channel.basic_ack(1, single).await.unwrap();
        let error = ack_error(&channel, 1, single).await;
        assert_error(&error, 406, "PRECONDITION_FAILED - unknown delivery tag 1");
        let channel = scenario.channel().await;
        channel.basic_ack(0, BasicAckOptions { multiple: true }).await.unwrap();
        channel.exclusive_queue(FieldTable::default()).await;
    });
}

#[test]
fn bad_properties() {
    scenario(async |scenario| {
        let none = BasicProperties::default;
        let mine = "PRECONDITION_FAILED - user_id property set to 'somebody' but authenticated user was 'guest'";
        let channel = scenario.confirming().await;
        let sent = channel.send("", "q", b"x", none().with_user_id("somebody".into())).await;
        assert_error(&sent.unwrap_err(), 406, mine);
        for expiration in ["soon", "-1", "1.5", ""] {
            let channel = scenario.confirming().await;
            let sent = channel.send("", "q", b"x", none().with_expiration(expiration.into())).await;
            let Err(error) = sent else { panic!("expiration {expiration:?} was accepted") };
            let text = error.to_string();
            let start = format!("PRECONDITION_FAILED - invalid expiration '{expiration}'");
            assert!(text.contains(&start), "{text}");
        }
    });
}

/// Makes `call` on a connection of its own and returns what the broker closes the connection with.
async fn closing(scenario: &Scenario, call: impl AsyncFnOnce(&Channel)) -> Error {
    let connection = scenario.connect().await;
    let channel = connection.create_channel().await.unwrap();
    let events = connection.events_listener();
    call(&channel).await;
    connection_error(events).await
}

#[test]
fn not_implemented_closes_the_connection() {
    scenario(async |scenario| {
        let immediate = async |channel: &Channel| {
            let options = BasicPublishOptions { immediate: true, ..Default::default() };
            let sent = channel.basic_publish("".into(), "q".into(), options, b"x", BasicProperties::default()).await;
            sent.unwrap();
        };
        assert_error(&closing(scenario, immediate).await, 540, "NOT_IMPLEMENTED - immediate=true");
        let recover = async |channel: &Channel| {
            channel.basic_recover(BasicRecoverOptions { requeue: false }).await.unwrap_err();
        };
        assert_error(&closing(scenario, recover).await, 540, "NOT_IMPLEMENTED - requeue=false");
        let flow = async |channel: &Channel| {
            channel.channel_flow(lapin::options::ChannelFlowOptions { active: false }).await.unwrap_err();
        };
        assert_error(&closing(scenario, flow).await, 540, "NOT_IMPLEMENTED - active=false");
    });
}

#[test]
fn global_qos_is_accepted() {
    scenario(async |scenario| {
        let channel = scenario.channel().await;
        channel.basic_qos(10, BasicQosOptions { global: true }).await.unwrap();
        channel.exclusive_queue(FieldTable::default()).await;
    });
}

async fn refused(uri: &str) -> Error {
    match within(Connection::connect(uri, ConnectionProperties::default())).await {
        Ok(_) => panic!("connected to {uri}"),
        Err(error) => error,
    }
}

#[test]
fn a_wrong_password_is_refused() {
    scenario(async |scenario| {
        let (scheme, rest) = scenario.uri().split_once("://").unwrap();
        let (_, address) = rest.split_once('@').unwrap();
        let expected = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. \
                        For details see the broker logfile.";
        for user in ["guest:wrong", "nobody:guest", "guest:%20"] {
            assert_error(&refused(&format!("{scheme}://{user}@{address}")).await, 403, expected);
        }
    });
}

#[test]
fn an_unknown_virtual_host_is_refused() {
    scenario(async |scenario| {
        let (address, _) = scenario.uri().rsplit_once('/').unwrap();
        let error = refused(&format!("{address}/nowhere")).await;
        assert_error(&error, 530, "NOT_ALLOWED - vhost nowhere not found");
    });
}

#[test]
fn one_failing_channel_leaves_the_others_alone() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        for _ in 0..20 {
            failing(scenario, async |c| c.basic_get("nobody".into(), Default::default()).await).await;
            channel.publish("", queue.as_str(), "x").await;
        }
        assert_eq!(channel.counts(&queue).await.0, 20);
    });
}
