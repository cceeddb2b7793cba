//! Runs the programs of examples/rust against the broker and checks what they print.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command as BlockingCommand, Stdio},
    sync::OnceLock,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};
use warren_client_tests::{
    broker,
    scenario::{Session, block_on, connect, within},
};

/// Builds the examples on first use and returns the directory of their executables.
fn executables() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        // This test is in target/<profile>/deps.
        let test = env::current_exe().unwrap();
        let profile = test.ancestors().nth(2).unwrap();
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../examples/rust");
        let mut cargo = BlockingCommand::new(env!("CARGO"));
        cargo
            .args(["build", "--quiet", "--locked", "--bins", "--manifest-path"])
            .arg(package.join("Cargo.toml"));
        cargo.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(
            cargo.status().unwrap().success(),
            "the examples do not build"
        );
        profile.to_owned()
    })
}

/// A running example.
struct Program {
    name: String,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(executables().join(name));
        command
            .args(arguments)
            .env("AMQP_URL", broker::shared_uri());
        let mut child = command
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            name: name.into(),
            child,
            lines,
        }
    }

    /// Starts a program and waits until it listens.
    async fn listening(name: &str, arguments: &[&str]) -> Self {
        let mut program = Self::start(name, arguments);
        let line = program.line().await;
        assert!(line.starts_with("waiting for "), "{name} printed {line:?}");
        program
    }

    async fn line(&mut self) -> String {
        let line = within(self.lines.next_line()).await.unwrap();
        line.unwrap_or_else(|| panic!("{} ended early", self.name))
    }

    /// What it prints until it ends, which it has to do without an error.
    async fn finish(mut self) -> Vec<String> {
        let mut printed = Vec::new();
        while let Some(line) = within(self.lines.next_line()).await.unwrap() {
            printed.push(line);
        }
        let status = within(self.child.wait()).await.unwrap();
        assert!(
            status.success(),
            "{} ended with {status}: {printed:?}",
            self.name
        );
        printed
    }
}

/// Runs a program to its end.
async fn run(name: &str, arguments: &[&str]) -> Vec<String> {
    Program::start(name, arguments).finish().await
}

/// Runs `test` between two removals of what the examples declare.
fn with_examples(queues: &[&str], exchanges: &[&str], test: impl AsyncFnOnce()) {
    let remove = async || {
        let connection = connect(broker::shared_uri()).await;
        let channel = Session::open(&connection).await;
        for queue in queues {
            channel
                .queue_delete((*queue).into(), Default::default())
                .await
                .unwrap();
        }
        for exchange in exchanges {
            channel
                .exchange_delete((*exchange).into(), Default::default())
                .await
                .unwrap();
        }
        connection.close(200, "done".into()).await.unwrap();
    };
    block_on(async {
        remove().await;
        test().await;
        remove().await;
    });
}

#[test]
fn send_and_receive() {
    with_examples(&["hello"], &[], async || {
        assert_eq!(run("send", &[]).await, ["sent Hello World!"]);
        assert_eq!(run("send", &["and", "again"]).await, ["sent and again"]);
        let received = run("receive", &["--count", "2"]).await;
        assert_eq!(
            received,
            [
                "waiting for messages",
                "received Hello World!",
                "received and again"
            ]
        );
    });
}

#[test]
fn new_task_and_worker() {
    with_examples(&["tasks"], &[], async || {
        let busy = Program::listening("worker", &["--count", "1"]).await;
        // Two seconds of work, in which the other worker does the rest.
        run("new_task", &["long", "...................."]).await;
        let mut free = None;
        for task in ["a.", "b.", "c."] {
            assert_eq!(run("new_task", &[task]).await, [format!("sent {task}")]);
            if free.is_none() {
                free = Some(Program::listening("worker", &["--count", "3"]).await);
            }
        }
        let expected = ["a.", "b.", "c."]
            .map(|task| [format!("received {task}"), format!("finished {task}")])
            .concat();
        assert_eq!(free.unwrap().finish().await, expected);
        let long = "long ....................";
        assert_eq!(
            busy.finish().await,
            [format!("received {long}"), format!("finished {long}")]
        );
    });
}

#[test]
fn emit_log_and_receive_logs() {
    with_examples(&[], &["logs"], async || {
        let first = Program::listening("receive_logs", &["--count", "2"]).await;
        let second = Program::listening("receive_logs", &["--count", "1"]).await;
        run("emit_log", &[]).await;
        run("emit_log", &["error: disk full"]).await;
        assert_eq!(
            first.finish().await,
            ["received info: Hello World!", "received error: disk full"]
        );
        assert_eq!(second.finish().await, ["received info: Hello World!"]);
    });
}

#[test]
fn emit_log_direct_and_receive_logs_direct() {
    with_examples(&[], &["direct_logs"], async || {
        let errors = Program::listening("receive_logs_direct", &["error", "--count", "1"]).await;
        let both =
            Program::listening("receive_logs_direct", &["--count", "2", "warning", "error"]).await;
        for severity in ["info", "warning", "error"] {
            let printed = run("emit_log_direct", &[severity, "disk", "full"]).await;
            assert_eq!(printed, [format!("sent {severity}: disk full")]);
        }
        assert_eq!(errors.finish().await, ["received error: disk full"]);
        assert_eq!(
            both.finish().await,
            ["received warning: disk full", "received error: disk full"]
        );
    });
}

#[test]
fn emit_log_topic_and_receive_logs_topic() {
    with_examples(&[], &["topic_logs"], async || {
        let kernel = Program::listening("receive_logs_topic", &["kern.*", "--count", "2"]).await;
        let critical =
            Program::listening("receive_logs_topic", &["*.critical", "--count", "2"]).await;
        for topic in ["kern.info", "cron.critical", "kern.critical"] {
            run("emit_log_topic", &[topic, "it burns"]).await;
        }
        assert_eq!(
            kernel.finish().await,
            [
                "received kern.info: it burns",
                "received kern.critical: it burns"
            ]
        );
        let expected = [
            "received cron.critical: it burns",
            "received kern.critical: it burns",
        ];
        assert_eq!(critical.finish().await, expected);
    });
}

#[test]
fn rpc_client_and_rpc_server() {
    with_examples(&["rpc"], &[], async || {
        let server = Program::listening("rpc_server", &["--count", "5"]).await;
        let answers = [
            "0 -> 0",
            "1 -> 1",
            "30 -> 832040",
            "pi -> not a number",
            "100 -> too large",
        ];
        assert_eq!(
            run("rpc_client", &["0", "1", "30", "pi", "100"]).await,
            answers
        );
        assert_eq!(server.finish().await, answers);
    });
}

#[test]
fn publisher_confirms() {
    with_examples(&[], &[], async || {
        let printed = run("publisher_confirms", &["--count", "250"]).await;
        assert_eq!(printed.len(), 3);
        for (line, how) in printed
            .iter()
            .zip(["one by one", "in batches", "as they come"])
        {
            assert!(
                line.starts_with(&format!("confirmed 250 messages {how} in ")),
                "{line}"
            );
        }
    });
}
