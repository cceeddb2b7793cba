//! Settings of broker.toml and of the environment that clients or operators notice.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use crate::{
    client::{Client, Handshake, PATIENCE, PROTOCOL_HEADER},
    harness::{Broker, is_warren, own_broker},
    methods::{basic, connection, queue},
    wire::{Properties, Table, Value, field, table},
};

fn none() -> Table {
    Table::new()
}

#[test]
fn a_delivery_that_is_not_acknowledged_in_time_closes_its_channel() {
    let Some(broker) = own_broker("[queues]\nconsumer_timeout = \"300ms\"\n") else { return };
    let mut client = broker.connect();
    client.open_channel(2);
    let name = client.exclusive_queue(1, &none());
    client.consume(2, &name, "c", 0, &none());
    client.publish(1, "", &name, "late");
    assert_eq!(client.expect_delivery(2).text(), "late");
    let text = "PRECONDITION_FAILED - delivery acknowledgement on channel 2 timed out. Timeout value used: 300 ms. \
                This timeout value can be configured, see consumers doc guide to learn more";
    client.expect_channel_close(2, 406, text, (0, 0));
    let again = client.wait_for_message(1, &name, 1);
    assert!(again.redelivered && again.text() == "late");
    // Acknowledged in time, a consumer stays.
    client.open_channel(2);
    client.consume(2, &name, "c", 0, &none());
    client.publish(1, "", &name, "in time");
    let tag = client.expect_delivery(2).tag;
    client.send(2, &basic::ack(tag, 0));
    assert!(client.try_recv(2, Duration::from_millis(700)).is_err());
}

fn ready_after_expiry(broker: &Broker) -> u32 {
    let mut client = broker.connect();
    let name = client.exclusive_queue(1, &none());
    client.publish(1, "", &name, "stays");
    client.publish_with(1, &basic::publish("", &name, 0), &Properties::with_expiration("50"), b"goes");
    client.publish_with(1, &basic::publish("", &name, 0), &Properties::with_expiration("60000"), b"stays too");
    client.wait_for_count(1, &name, 3);
    std::thread::sleep(Duration::from_millis(200));
    let ready = client.message_count(1, &name);
    // Never delivered after its time, wherever it was.
    assert_eq!(client.drain_queue(1, &name), ["stays", "stays too"]);
    ready
}

#[test]
fn messages_expire_at_the_head_or_exactly() {
    let Some(head) = own_broker("[queues]\nexpire = \"head\"\n") else { return };
    let Some(exact) = own_broker("[queues]\nexpire = \"exact\"\n") else { return };
    assert_eq!((ready_after_expiry(&head), ready_after_expiry(&exact)), (3, 2));
}

#[test]
fn compatibility_with_newer_brokers() {
    let settings = "[compatibility]\ntransient_nonexclusive_queues = false\nglobal_qos = false\n";
    let Some(broker) = own_broker(settings) else { return };
    let mut client = broker.connect();
    client.declare_queue(1, "durable", queue::DURABLE, &none());
    let name = client.exclusive_queue(1, &none());
    // Taken as a limit of each consumer.
    client.call(1, &basic::qos(0, 1, 1));
    for tag in ["a", "b"] {
        client.consume(1, &name, tag, 0, &none());
    }
    for _ in 0..3 {
        client.publish(1, "", &name, "x");
    }
    client.expect_delivery(1);
    client.expect_delivery(1);
    client.expect_silence(1);
    client.send(1, &queue::declare("transient", 0, &none()));
    let close = client.expect(0, connection::CLOSE).method;
    let (code, text, ids) = crate::client::close_arguments(&close);
    assert_eq!((code, ids), (541, (50, 10)));
    assert!(text.starts_with("INTERNAL_ERROR - Feature `transient_nonexcl_queues` is deprecated."), "{text}");
}

#[test]
fn a_default_prefetch_holds_until_the_client_sets_its_own() {
    let Some(broker) = own_broker("[amqp]\ndefault_consumer_prefetch = 2\n") else { return };
    let mut client = broker.connect();
    client.open_channel(2);
    let name = client.exclusive_queue(1, &none());
    for _ in 0..5 {
        client.publish(1, "", &name, "x");
    }
    client.wait_for_count(1, &name, 5);
    client.consume(1, &name, "c", 0, &none());
    client.expect_delivery(1);
    client.expect_delivery(1);
    client.expect_silence(1);
    client.call(2, &basic::qos(0, 0, 0));
    client.consume(2, &name, "d", 0, &none());
    for _ in 0..3 {
        client.expect_delivery(2);
    }
}

#[test]
fn the_start_method_follows_the_settings() {
    let settings = "[amqp]\nmechanisms = [\"ANONYMOUS\"]\nserver_properties = { datacentre = \"east\", platform = \"own\" }\n[defaults]\nuser = \"visitor\"\npassword = \"p\"\n";
    let Some(broker) = own_broker(settings) else { return };
    let mut client = Client::new(broker.socket());
    client.send_bytes(PROTOCOL_HEADER);
    let start = client.expect(0, connection::START).method;
    let mut reader = start.reader();
    reader.take(2);
    let properties = reader.table();
    assert_eq!(field(&properties, "datacentre"), Some(&Value::from("east")));
    assert_eq!(properties.iter().filter(|(name, _)| name == "platform").count(), 1, "each name once");
    assert_eq!(field(&properties, "platform"), Some(&Value::from("own")));
    assert_eq!(reader.long_string(), b"ANONYMOUS");
    let parameters = Handshake::default();
    client.send(0, &connection::start_ok(&parameters.client_properties(), "ANONYMOUS", b""));
    client.tune(&parameters);
    client.call(0, &connection::open("/"));
    client.open_channel(1);
    let name = client.exclusive_queue(1, &none());
    let own = Properties { user_id: Some("visitor".to_owned()), ..Properties::default() };
    client.publish_with(1, &basic::publish("", &name, 0), &own, b"x");
    client.wait_for_message(1, &name, 1);
}

/// A broker process whose arguments, environment and streams the test chooses.
struct Started {
    child: Child,
    directory: PathBuf,
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// `warren serve` with this broker.toml; the port is an argument unless the test sets it otherwise.
fn start(configuration: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Started {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let directory =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("settings-{}-{number}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join("broker.toml");
    fs::write(&file, configuration).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_warren"))
        .args(["serve", "--config"])
        .arg(&file)
        .arg("--data-dir")
        .arg(directory.join("data"))
        .args(["--management-port", "-1", "--prometheus-port", "-1"])
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Started { child, directory }
}

impl Started {
    /// The line that tells that it accepts connections.
    fn ready(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        line
    }

    fn signal(&self, name: &str) {
        let killed = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    /// Its exit code, which must come within `patience`.
    fn exit_code(&mut self, patience: Duration) -> Option<i32> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "still running after {patience:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Exit code and standard error of a start that fails.
    fn failure(mut self) -> (Option<i32>, String) {
        let code = self.exit_code(PATIENCE);
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (code, text)
    }
}

fn address_of(ready: &str) -> std::net::SocketAddr {
    ready.trim_end().strip_prefix("ready amqp=").expect("ready amqp=address:port").parse().unwrap()
}

#[test]
fn the_environment_names_the_first_user_and_the_port() {
    if !is_warren() {
        return;
    }
    let variables = [
        ("RABBITMQ_DEFAULT_USER", "first"),
        ("RABBITMQ_DEFAULT_PASS", "word"),
        ("RABBITMQ_DEFAULT_VHOST", "place"),
        ("RABBITMQ_NODE_PORT", "0"),
    ];
    let mut broker = start("", &[], &variables);
    let address = address_of(&broker.ready());
    assert_ne!(address.port(), 5672);
    let connect = || Client::new(std::net::TcpStream::connect(address).unwrap());
    let mut client = connect();
    client.ask_to_open("first", "word", "place");
    client.expect(0, connection::OPEN_OK);
    let mut elsewhere = connect();
    elsewhere.ask_to_open("first", "word", "/");
    elsewhere.expect_connection_close(530, "NOT_ALLOWED - vhost / not found", (10, 40));
    let mut guest = connect();
    guest.send_bytes(PROTOCOL_HEADER);
    guest.expect(0, connection::START);
    let properties = table([("capabilities", Value::Table(table([("authentication_failure_close", true.into())])))]);
    guest.send(0, &connection::start_ok(&properties, "PLAIN", b"\0guest\0guest"));
    assert_eq!(crate::client::close_arguments(&guest.expect(0, connection::CLOSE).method).0, 403);
}

#[test]
fn an_unknown_key_stops_the_start() {
    if !is_warren() {
        return;
    }
    let (code, text) = start("[amqp]\n\nheartbeet = \"5s\"\n", &["--amqp-port", "0"], &[]).failure();
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("broker.toml:3") && text.contains("heartbeet"), "{text}");
}

#[test]
fn a_port_in_use_is_named() {
    let Some(other) = own_broker("") else { return };
    let port = other.address.port().to_string();
    let (code, text) = start("", &["--amqp-port", &port], &[]).failure();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{text}");
}

#[test]
fn an_interrupt_stops_like_a_termination() {
    if !is_warren() {
        return;
    }
    let mut broker = start("", &["--amqp-port", "0"], &[]);
    let address = address_of(&broker.ready());
    let mut client = Client::new(std::net::TcpStream::connect(address).unwrap());
    client.handshake(&Handshake::default());
    broker.signal("-INT");
    let text = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'";
    client.expect_connection_close(320, text, (0, 0));
    assert_eq!(broker.exit_code(Duration::from_secs(5)), Some(0));
}

#[test]
fn a_client_that_never_answers_does_not_keep_the_broker() {
    if !is_warren() {
        return;
    }
    let mut broker = start("[shutdown]\ntimeout = \"500ms\"\n", &["--amqp-port", "0"], &[]);
    let address = address_of(&broker.ready());
    let mut client = Client::new(std::net::TcpStream::connect(address).unwrap());
    client.handshake(&Handshake::default());
    broker.signal("-TERM");
    client.expect(0, connection::CLOSE);
    assert_eq!(broker.exit_code(Duration::from_secs(5)), Some(0));
}
