//! `warren perf` against a broker of the tests' own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

const WARREN: &str = env!("CARGO_BIN_EXE_warren");

struct Broker {
    process: Child,
    directory: PathBuf,
    uri: String,
}

impl Broker {
    fn start(test: &str) -> Self {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("perf-{test}-{}", std::process::id()));
        let mut process = Command::new(WARREN)
            .args(["serve", "--amqp-port", "0", "--management-port", "-1", "--prometheus-port", "-1", "--data-dir"])
            .arg(&directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let address = ready.split_whitespace().find_map(|word| word.strip_prefix("amqp=")).unwrap();
        Self { process, directory, uri: format!("amqp://guest:guest@{address}/") }
    }

    fn perf(&self, options: &str) -> Output {
        let words = options.split_whitespace();
        Command::new(WARREN).args(["perf", "--json", "--uri", &self.uri]).args(words).output().unwrap()
    }

    /// Runs to a good end; the summary.
    fn summary(&self, options: &str) -> Summary {
        let output = self.perf(options);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{options}: {errors}");
        let text = String::from_utf8(output.stdout).unwrap();
        Summary(serde_json::from_str(&text).unwrap())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

struct Summary(serde_json::Value);

impl Summary {
    fn count(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap_or_else(|| panic!("{name} is no count in {}", self.0))
    }

    fn number(&self, name: &str) -> f64 {
        self.0[name].as_f64().unwrap_or_else(|| panic!("{name} is no number in {}", self.0))
    }

    fn assert_measured(&self, latency: &str, messages: u64) {
        let at = |percentile: &str| self.0[latency][percentile].as_f64().unwrap();
        assert!(messages > 0 && at("p50") > 0.0, "{}", self.0);
        assert!(at("p50") <= at("p95") && at("p95") <= at("p99") && at("p99") <= at("p99.9"), "{}", self.0);
        assert!(at("p99.9") <= at("max") && at("max") < 60e6, "{}", self.0);
    }
}

#[test]
fn every_message_is_published_confirmed_and_delivered() {
    let broker = Broker::start("confirms");
    let options =
        "--messages 10001 --publishers 3 --consumers 2 --queues 2 --confirms 100 --ack-every 10 --prefetch 50";
    let summary = broker.summary(&format!("{options} --size 1KiB --persistent"));
    for name in ["published", "confirmed", "delivered"] {
        assert_eq!(summary.count(name), 10_001, "{name}");
    }
    assert_eq!(summary.count("refused"), 0);
    summary.assert_measured("confirm_latency_us", 10_001);
    summary.assert_measured("end_to_end_latency_us", 10_001);
    // Large bodies come in several frames, empty ones in none.
    assert_eq!(broker.summary("--messages 20 --size 300000 --confirms 2").count("delivered"), 20);
    assert_eq!(broker.summary("--messages 5000 --size 0").count("delivered"), 5_000);
}

#[test]
fn each_message_goes_where_its_exchange_sends_it() {
    let broker = Broker::start("exchanges");
    let fanout = broker.summary("--exchange fanout --queues 4 --consumers 4 --messages 3000");
    assert_eq!((fanout.count("published"), fanout.count("delivered")), (3_000, 12_000));
    for (exchange, bindings) in [("direct", 7), ("topic", 41), ("headers", 11)] {
        // Confirmed although unroutable would be counted too: only deliveries show that every binding matched once.
        let options = format!("--exchange {exchange} --bindings {bindings} --queues 3 --messages 3000 --consumers 2");
        let summary = broker.summary(&options);
        assert_eq!((summary.count("published"), summary.count("delivered")), (3_000, 3_000), "{exchange}");
    }
}

#[test]
fn the_rate_is_kept() {
    let broker = Broker::start("rate");
    let summary = broker.summary("--rate 2000 --publishers 2 --duration 1.5 --confirms 500");
    let published = summary.count("published");
    // Never faster; a busy machine may be slower.
    assert!((1_000..=3_050).contains(&published), "{published}");
    assert!(summary.number("publish_rate") <= 2_050.0);
    assert_eq!(summary.count("confirmed"), published);
    assert!(summary.count("delivered") <= published);
    summary.assert_measured("end_to_end_latency_us", published);
}

#[test]
fn a_run_can_be_split_between_processes() {
    let broker = Broker::start("split");
    assert_eq!(broker.summary("--name split --messages 500 --consumers 0 --keep").count("published"), 500);
    let consumed = broker.summary("--name split --messages 500 --publishers 0 --keep");
    assert_eq!((consumed.count("published"), consumed.count("delivered")), (0, 500));
    // The queue is still there as it was declared; another declaration is refused.
    let refused = broker.perf("--name split --messages 1 --queue-argument x-max-length=5");
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{errors}");
    assert!(errors.contains("the broker closed the channel: 406 PRECONDITION_FAILED"), "{errors}");
}

#[test]
fn refused_messages_are_counted() {
    let broker = Broker::start("refused");
    let limit = "--queue-argument x-max-length=10 --queue-argument x-overflow=reject-publish";
    let summary = broker.summary(&format!("--messages 100 --consumers 0 --confirms 10 {limit}"));
    assert_eq!((summary.count("confirmed"), summary.count("refused")), (100, 90));
}

#[test]
fn connections_can_be_held_and_churned() {
    let broker = Broker::start("connections");
    let summary = broker.summary("--publishers 0 --consumers 0 --idle 20 --churn 2 --duration 0.5");
    assert_eq!(summary.count("idle_connections"), 20);
    summary.assert_measured("connect_latency_us", summary.count("connections"));
    assert!(summary.number("connect_rate") > 0.0);
}

#[test]
fn failures_are_told() {
    let broker = Broker::start("failures");
    let run = |uri: &str, options: &str| {
        let output = Command::new(WARREN).args(["perf", "--uri", uri]).args(options.split(' ')).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let address = broker.uri.trim_start_matches("amqp://guest:guest@").trim_end_matches('/');
    let cases = [
        (format!("amqp://guest:wrong@{address}"), "403 ACCESS_REFUSED"),
        (format!("amqp://{address}/missing"), "530 NOT_ALLOWED"),
        ("amqp://127.0.0.1:1".to_owned(), "cannot connect to 127.0.0.1:1"),
    ];
    for (uri, part) in cases {
        let (code, errors) = run(&uri, "--messages 1");
        assert_eq!(code, Some(1), "{uri}: {errors}");
        assert!(errors.contains(part), "{uri}: {errors}");
    }
    let (code, errors) = run(&broker.uri, "--queues 0");
    assert_eq!(code, Some(64), "{errors}");
}
