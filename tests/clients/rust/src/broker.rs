//! Starting and stopping the broker under test.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use crate::{PATIENCE, POLL};

/// Runs the broker until its standard input ends, which is when the test process ends, however it ends; then stops
/// it with SIGTERM, removes the data directory and notes the exit code where `WARREN_EXIT_LOG` says.
const KEEPER: &str = r#"
log="$1"; directory="$2"; shift 2
note() { [ -z "$log" ] || echo "$*" >>"$log"; }
note started "$@"
"$@" 2>"$directory/stderr" & broker=$!
cat >/dev/null
kill -TERM "$broker"; wait "$broker"; note stopped with exit code "$?"
rm -rf "$directory"
"#;

/// The URI of the broker every scenario of this process uses: `AMQP_URL` when it is set, else a broker of our own
/// that is started on first use.
pub fn shared_uri() -> &'static str {
    static URI: OnceLock<String> = OnceLock::new();
    URI.get_or_init(|| external_uri().unwrap_or_else(start_shared))
}

/// The URI in `AMQP_URL`: a broker that is not ours to stop and that may lack Warren's exchange types.
pub fn external_uri() -> Option<String> {
    env::var("AMQP_URL").ok().filter(|uri| !uri.is_empty())
}

/// Says on the real standard error (not the captured one) that a test did not run.
pub fn skip(reason: &str) {
    let name = thread::current().name().unwrap_or("test").to_owned();
    // Nothing can be done about a closed standard error.
    let _ = writeln!(std::io::stderr(), "skipped {name}: {reason}");
}

fn start_shared() -> String {
    let directory = data_directory();
    let mut keeper = Command::new("/bin/sh");
    keeper.args(["-c", KEEPER, "keeper"]);
    keeper.arg(env::var("WARREN_EXIT_LOG").unwrap_or_default());
    keeper.arg(&directory);
    keeper.arg(executable()).args(arguments(&directory, 0));
    let mut child = spawn(&mut keeper, Stdio::piped());
    let port = wait_ready(&mut child, &directory);
    // The keeper's standard input has to stay open for as long as this process lives.
    std::mem::forget(child.stdin.take());
    uri(port)
}

/// A broker of a test's own, stopped with SIGTERM when dropped.
pub struct Broker {
    child: Child,
    directory: PathBuf,
    port: u16,
}

impl Broker {
    /// Starts a broker with an empty data directory on a free port.
    #[must_use]
    pub fn start() -> Self {
        let directory = data_directory();
        let (child, port) = launch(&directory, 0);
        Self { child, directory, port }
    }

    /// Starts the broker again after [`Broker::stop`] or [`Broker::kill`], with the data and on the port it had.
    pub fn start_again(&mut self) {
        (self.child, self.port) = launch(&self.directory, self.port);
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URI clients connect with.
    #[must_use]
    pub fn uri(&self) -> String {
        uri(self.port)
    }

    /// Sends SIGTERM without waiting for the end.
    pub fn terminate(&self) {
        signal(&self.child, "-TERM");
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill the broker");
        self.child.wait().expect("wait for the broker");
    }

    /// Stops with SIGTERM and asserts that the broker ends with exit code 0 in time.
    pub fn stop(&mut self) {
        self.terminate();
        self.assert_clean_exit();
    }

    /// Waits for the end after [`Broker::terminate`] and asserts exit code 0.
    pub fn assert_clean_exit(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait for the broker") {
                assert_eq!(status.code(), Some(0), "exit of the broker: {}", log(&self.directory));
                return;
            }
            assert!(Instant::now() < deadline, "the broker did not stop within {PATIENCE:?} of SIGTERM");
            thread::sleep(POLL);
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Already ended unless the test failed.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn launch(directory: &Path, port: u16) -> (Child, u16) {
    let stderr = fs::File::create(directory.join("stderr")).expect("a log file");
    let mut command = Command::new(executable());
    command.args(arguments(directory, port)).stderr(stderr);
    let mut child = spawn(&mut command, Stdio::null());
    let port = wait_ready(&mut child, directory);
    (child, port)
}

fn uri(port: u16) -> String {
    format!("amqp://guest:guest@127.0.0.1:{port}/%2f")
}

fn executable() -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target/release/warren");
    env::var_os("WARREN_BIN").map_or_else(built, PathBuf::from)
}

fn arguments(directory: &Path, port: u16) -> Vec<String> {
    let directory = directory.join("data").display().to_string();
    let port = port.to_string();
    ["serve", "--data-dir", &directory, "--amqp-port", &port, "--management-port", "-1", "--prometheus-port", "-1"]
        .map(str::to_owned)
        .to_vec()
}

fn data_directory() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let directory = env::temp_dir().join(format!("warren-rust-{}-{number}", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory for the broker's data");
    directory
}

fn spawn(command: &mut Command, stdin: Stdio) -> Child {
    command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {}: {error} (WARREN_BIN names it)", executable().display()))
}

/// Reads the `ready ` line and returns the AMQP port in it.
fn wait_ready(child: &mut Child, directory: &Path) -> u16 {
    let stdout = child.stdout.take().expect("standard output is a pipe");
    let (sender, receiver) = mpsc::channel();
    // Keeps reading to the end: a broker that prints more must not block or break on a closed pipe.
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let line = receiver.recv_timeout(PATIENCE);
    let line = line.unwrap_or_else(|_| panic!("the broker did not become ready: {}", log(directory)));
    amqp_port(&line).unwrap_or_else(|| panic!("not a ready line: {line}"))
}

fn amqp_port(line: &str) -> Option<u16> {
    let listeners = line.strip_prefix("ready ")?;
    let address = listeners.split_whitespace().find_map(|listener| listener.strip_prefix("amqp="))?;
    address.rsplit_once(':')?.1.parse().ok()
}

fn log(directory: &Path) -> String {
    fs::read_to_string(directory.join("stderr")).unwrap_or_else(|error| format!("(no log: {error})"))
}

fn signal(child: &Child, signal: &str) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()), "cannot send {signal}");
}
