//! The broker under test: one shared process, or one of a test's own with extra configuration.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use crate::{
    client::{Client, Handshake},
    methods::{connection, exchange, queue},
    wire::Table,
};

pub(crate) const MIB: u64 = 1024 * 1024;

/// How long a broker may take until it accepts connections.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// As the broker's arguments name ports.
const ANY_PORT: &str = "0";
const NO_PORT: &str = "-1";

/// Runs the broker as a child and ends it when standard input closes, which also happens when the test process dies.
const LIFELINE: &str = r#"dir=$1; log=$2; shift 2; sh -c 'echo "pid $$"; exec "$@"' broker "$@" 2>"$log" & pid=$!; read -r _
kill -TERM $pid 2>/dev/null; for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 $pid 2>/dev/null || break; sleep 0.1; done
kill -KILL $pid 2>/dev/null; rm -rf "$dir""#;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A running broker.
pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    /// Where its metrics are, if the tests started it.
    pub(crate) metrics: Option<SocketAddr>,
    /// Where its management API is, if the test wanted one.
    pub(crate) management: Option<SocketAddr>,
    /// None for a broker that the tests did not start.
    process: Option<Process>,
}

struct Process {
    pid: u32,
    shell: Child,
    lifeline: Option<ChildStdin>,
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let _ = self.shell.wait();
    }
}

/// The broker that all tests share.
pub(crate) fn broker() -> &'static Broker {
    static SHARED: OnceLock<Broker> = OnceLock::new();
    SHARED.get_or_init(|| match external_address() {
        Some(address) => Broker { address, metrics: None, management: None, process: None },
        None => Broker::start("", NO_PORT),
    })
}

fn external_address() -> Option<SocketAddr> {
    let text = std::env::var("WARREN_TEST_ADDR").ok()?;
    Some(text.parse().expect("WARREN_TEST_ADDR is an address and a port"))
}

/// False when the tests run against a broker that was already running, which may be another product: for Warren's documented differences.
pub(crate) fn is_warren() -> bool {
    external_address().is_none()
}

/// A broker of the test's own with `configuration` as its broker.toml; None when the tests use one that was already running.
pub(crate) fn own_broker(configuration: &str) -> Option<Broker> {
    is_warren().then(|| Broker::start(configuration, NO_PORT))
}

/// The same with a management API.
pub(crate) fn own_managed_broker(configuration: &str) -> Option<Broker> {
    is_warren().then(|| Broker::start(configuration, ANY_PORT))
}

/// Resident memory of `broker` above `before`, in bytes.
pub(crate) fn growth(broker: &Broker, before: u64) -> u64 {
    broker.resident_bytes().unwrap().saturating_sub(before)
}

/// The slowest of a few round trips on a connection of its own.
pub(crate) fn slowest_round_trip(broker: &Broker, count: usize) -> Duration {
    let mut client = broker.connect();
    let slowest = (0..count).map(|_| {
        let start = Instant::now();
        client.exclusive_queue(1, &Table::new());
        start.elapsed()
    });
    slowest.max().unwrap()
}

impl Broker {
    fn start(configuration: &str, management_port: &str) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let base = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let directory = base.join(format!("amqp-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let config_file = directory.join("broker.toml");
        fs::write(&config_file, configuration).unwrap();
        let mut shell = Command::new("sh")
            .args(["-c", LIFELINE, "broker"])
            .arg(&directory)
            .arg(base.join(format!("amqp-broker-{number}.log")))
            .args([env!("CARGO_BIN_EXE_warren"), "serve", "--config"])
            .arg(&config_file)
            .arg("--data-dir")
            .arg(directory.join("data"))
            .args(["--amqp-port", ANY_PORT, "--management-port", management_port, "--prometheus-port", ANY_PORT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell starts");
        let lines = read_lines(shell.stdout.take().unwrap());
        let pid = wait_for(&lines, "pid ").parse().unwrap();
        let process = Process { pid, lifeline: shell.stdin.take(), shell };
        let listeners = wait_for(&lines, "ready ");
        let listener = |name: &str| listeners.split_whitespace().find_map(|word| word.strip_prefix(name));
        let address = listener("amqp=").expect("the ready line names the AMQP listener").parse().unwrap();
        let metrics = listener("prometheus=").map(|address| address.parse().unwrap());
        let management = listener("management=").map(|address| address.parse().unwrap());
        Self { address, metrics, management, process: Some(process) }
    }

    /// A plain socket, before the protocol header.
    pub(crate) fn socket(&self) -> TcpStream {
        TcpStream::connect(self.address).expect("the broker accepts connections")
    }

    /// A connection that is open, with one open channel 1.
    pub(crate) fn connect(&self) -> Client {
        self.connect_with(&Handshake::default())
    }

    /// Like [`Self::connect`] with chosen parameters.
    pub(crate) fn connect_with(&self, handshake: &Handshake) -> Client {
        let mut client = Client::new(self.socket());
        client.handshake(handshake);
        client.open_channel(1);
        client
    }

    /// A connection of this user in this virtual host, with one open channel 1.
    pub(crate) fn connect_as(&self, user: &str, password: &str, virtual_host: &str) -> Client {
        let mut client = Client::new(self.socket());
        client.ask_to_open(user, password, virtual_host);
        client.expect(0, connection::OPEN_OK);
        client.open_channel(1);
        client
    }

    /// Resident memory of the broker's process in bytes; None when the tests did not start it.
    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        self.memory("VmRSS:")
    }

    /// The most that its resident memory ever was.
    pub(crate) fn most_resident_bytes(&self) -> Option<u64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> Option<u64> {
        let pid = self.process.as_ref()?.pid;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the broker still runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        Some(kibibytes * 1024)
    }
}

fn read_lines(output: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}

fn wait_for(lines: &mpsc::Receiver<String>, prefix: &str) -> String {
    let line =
        lines.recv_timeout(START_TIMEOUT).unwrap_or_else(|_| panic!("the broker did not print a line with {prefix:?}"));
    line.strip_prefix(prefix).unwrap_or_else(|| panic!("expected a line with {prefix:?}, got {line:?}")).to_owned()
}

/// Names that no other test uses; queues and exchanges named through it are deleted when it is dropped, so declare it before the clients.
pub(crate) struct Names {
    prefix: String,
    queues: Vec<String>,
    exchanges: Vec<String>,
}

impl Names {
    pub(crate) fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self { prefix: format!("test-{}-{number}", std::process::id()), queues: Vec::new(), exchanges: Vec::new() }
    }

    /// A name that needs no clean-up (exclusive queues, consumer tags, things never created).
    pub(crate) fn plain(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    pub(crate) fn queue(&mut self, name: &str) -> String {
        let name = self.plain(name);
        self.queues.push(name.clone());
        name
    }

    pub(crate) fn exchange(&mut self, name: &str) -> String {
        let name = self.plain(name);
        self.exchanges.push(name.clone());
        name
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        if self.queues.is_empty() && self.exchanges.is_empty() || std::thread::panicking() && is_warren() {
            return;
        }
        let mut client = broker().connect();
        let mut bytes = Vec::new();
        for name in &self.queues {
            bytes.extend(queue::delete(name, queue::DELETE_NOWAIT).frame(1));
        }
        for name in &self.exchanges {
            bytes.extend(exchange::delete(name, exchange::DELETE_NOWAIT).frame(1));
        }
        let _ = client.stream.write_all(&bytes);
        client.close();
    }
}
