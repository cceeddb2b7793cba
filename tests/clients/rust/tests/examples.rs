//! Runs the programs of examples/rust against the broker and checks what they print.

use std::{
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{OnceLock, mpsc},
    thread,
};

use warren_client_tests::{
    PATIENCE, broker,
    scenario::{Session, block_on, connect},
};

/// Builds the examples on first use and returns the directory of their executables.
fn executables() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        // This test is in target/<profile>/deps.
        let test = env::current_exe().unwrap();
        let profile = test.ancestors().nth(2).unwrap();
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../examples/rust");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "--bins", "--manifest-path"]).arg(package.join("Cargo.toml"));
        cargo.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "the examples do not build");
        profile.to_owned()
    })
}

/// A running example.
struct Program {
    name: String,
    child: Child,
    /// What it prints, read by a thread of its own.
    lines: mpsc::Receiver<String>,
}

impl Program {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(executables().join(name));
        command.args(arguments).env("AMQP_URL", broker::shared_uri());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { name: name.into(), child, lines }
    }

    /// Starts a program and waits until it listens.
    fn listening(name: &str, arguments: &[&str]) -> Self {
        let program = Self::start(name, arguments);
        let line = program.line().unwrap_or_else(|| panic!("{name} ended early"));
        assert!(line.starts_with("waiting for "), "{name} printed {line:?}");
        program
    }

    /// The next line; `None` at the end of the output.
    fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("{} does not go on", self.name),
        }
    }

    /// What it prints until it ends, which it has to do without an error.
    fn finish(mut self) -> Vec<String> {
        let printed: Vec<_> = std::iter::from_fn(|| self.line()).collect();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{} ended with {status}: {printed:?}", self.name);
        printed
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Still running only when the test has failed.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs a program to its end.
fn run(name: &str, arguments: &[&str]) -> Vec<String> {
    Program::start(name, arguments).finish()
}

/// Runs `test` between two removals of what the examples declare.
fn with_examples(queues: &[&str], exchanges: &[&str], test: impl FnOnce()) {
    let remove = || {
        block_on(async {
            let connection = connect(broker::shared_uri()).await;
            let channel = Session::open(&connection).await;
            for queue in queues {
                channel.queue_delete((*queue).into(), Default::default()).await.unwrap();
            }
            for exchange in exchanges {
                channel.exchange_delete((*exchange).into(), Default::default()).await.unwrap();
            }
            connection.close(200, "done".into()).await.unwrap();
        });
    };
    remove();
    test();
    remove();
}

#[test]
fn send_and_receive() {
    with_examples(&["hello"], &[], || {
        assert_eq!(run("send", &[]), ["sent Hello World!"]);
        assert_eq!(run("send", &["and", "again"]), ["sent and again"]);
        let received = run("receive", &["--count", "2"]);
        assert_eq!(received, ["waiting for messages", "received Hello World!", "received and again"]);
    });
}

#[test]
fn new_task_and_worker() {
    with_examples(&["tasks"], &[], || {
        let busy = Program::listening("worker", &["--count", "1"]);
        // Two seconds of work, in which the other worker does the rest.
        run("new_task", &["long", "...................."]);
        let mut free = None;
        for task in ["a.", "b.", "c."] {
            assert_eq!(run("new_task", &[task]), [format!("sent {task}")]);
            if free.is_none() {
                free = Some(Program::listening("worker", &["--count", "3"]));
            }
        }
        let expected = ["a.", "b.", "c."].map(|task| [format!("received {task}"), format!("finished {task}")]).concat();
        assert_eq!(free.unwrap().finish(), expected);
        let long = "long ....................";
        assert_eq!(busy.finish(), [format!("received {long}"), format!("finished {long}")]);
    });
}

#[test]
fn emit_log_and_receive_logs() {
    with_examples(&[], &["logs"], || {
        let first = Program::listening("receive_logs", &["--count", "2"]);
        let second = Program::listening("receive_logs", &["--count", "1"]);
        run("emit_log", &[]);
        run("emit_log", &["error: disk full"]);
        assert_eq!(first.finish(), ["received info: Hello World!", "received error: disk full"]);
        assert_eq!(second.finish(), ["received info: Hello World!"]);
    });
}

#[test]
fn emit_log_direct_and_receive_logs_direct() {
    with_examples(&[], &["direct_logs"], || {
        let errors = Program::listening("receive_logs_direct", &["error", "--count", "1"]);
        let both = Program::listening("receive_logs_direct", &["--count", "2", "warning", "error"]);
        for severity in ["info", "warning", "error"] {
            let printed = run("emit_log_direct", &[severity, "disk", "full"]);
            assert_eq!(printed, [format!("sent {severity}: disk full")]);
        }
        assert_eq!(errors.finish(), ["received error: disk full"]);
        assert_eq!(both.finish(), ["received warning: disk full", "received error: disk full"]);
    });
}

#[test]
fn emit_log_topic_and_receive_logs_topic() {
    with_examples(&[], &["topic_logs"], || {
        let kernel = Program::listening("receive_logs_topic", &["kern.*", "--count", "2"]);
        let critical = Program::listening("receive_logs_topic", &["*.critical", "--count", "2"]);
        for topic in ["kern.info", "cron.critical", "kern.critical"] {
            run("emit_log_topic", &[topic, "it burns"]);
        }
        assert_eq!(kernel.finish(), ["received kern.info: it burns", "received kern.critical: it burns"]);
        let expected = ["received cron.critical: it burns", "received kern.critical: it burns"];
        assert_eq!(critical.finish(), expected);
    });
}

#[test]
fn rpc_client_and_rpc_server() {
    with_examples(&["rpc"], &[], || {
        let server = Program::listening("rpc_server", &["--count", "5"]);
        let answers = ["0 -> 0", "1 -> 1", "30 -> 832040", "pi -> not a number", "100 -> too large"];
        assert_eq!(run("rpc_client", &["0", "1", "30", "pi", "100"]), answers);
        assert_eq!(server.finish(), answers);
    });
}

#[test]
fn publisher_confirms() {
    with_examples(&[], &[], || {
        let printed = run("publisher_confirms", &["--count", "250"]);
        assert_eq!(printed.len(), 3);
        for (line, how) in printed.iter().zip(["one by one", "in batches", "as they come"]) {
            assert!(line.starts_with(&format!("confirmed 250 messages {how} in ")), "{line}");
        }
    });
}
