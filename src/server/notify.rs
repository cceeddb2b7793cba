//! Telling systemd how far the broker is: the protocol of sd_notify(3), for units with `Type=notify`.
//!
//! Called by `serve` when it accepts connections and when it begins to stop. It never makes the broker fail: a service
//! manager that cannot be reached is told of in the log.

use std::ffi::{OsStr, OsString};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Where systemd tells a service to send its messages.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// What a stop may take beside the time that connections have to close: the last sync of the log.
const LAST_SYNC: Duration = Duration::from_secs(30);

/// Whoever started the broker and wants to know its state, if there is one.
pub(super) struct Supervisor {
    /// A path, or `@` and an abstract name.
    socket: Option<OsString>,
}

impl Supervisor {
    /// The one that `NOTIFY_SOCKET` names.
    pub(super) fn from_environment() -> Self {
        Self { socket: std::env::var_os(VARIABLE).filter(|socket| !socket.is_empty()) }
    }

    /// The broker accepts connections; `status` is one line for people.
    pub(super) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}\n"));
    }

    /// The broker stops and gives its connections `timeout` for that.
    pub(super) fn stopping(&self, timeout: Duration) {
        let microseconds = timeout.saturating_add(LAST_SYNC).as_micros();
        self.tell(&format!("STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC={microseconds}\n"));
    }

    fn tell(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = send(socket, message) {
            tracing::warn!(%error, socket = %socket.display(), "the service manager cannot be told of the broker's state");
        }
    }
}

fn send(socket: &OsStr, message: &str) -> Result<()> {
    let address = address(socket)?;
    let sender = UnixDatagram::unbound()?;
    // A full queue at the other end is no reason to hold the broker up.
    sender.set_nonblocking(true)?;
    sender.send_to_addr(message.as_bytes(), &address).map(|_| ())
}

fn address(socket: &OsStr) -> Result<SocketAddr> {
    match socket.as_encoded_bytes() {
        [b'@', name @ ..] => abstract_address(name),
        [b'/', ..] => SocketAddr::from_pathname(socket),
        _ => Err(Error::new(ErrorKind::Unsupported, "neither a path nor an abstract name")),
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> Result<SocketAddr> {
    Err(Error::new(ErrorKind::Unsupported, "abstract names exist on Linux alone"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What arrives at `receiver` when a manager at `socket` is told of everything.
    fn told(receiver: &UnixDatagram, socket: &OsStr) -> Vec<String> {
        receiver.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let supervisor = Supervisor { socket: Some(socket.to_owned()) };
        supervisor.ready("ready amqp=127.0.0.1:5672");
        supervisor.stopping(Duration::from_secs(10));
        let message = || {
            let mut buffer = [0; 256];
            let length = receiver.recv(&mut buffer).expect("a message");
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        vec![message(), message()]
    }

    const EXPECTED: [&str; 2] =
        ["READY=1\nSTATUS=ready amqp=127.0.0.1:5672\n", "STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC=40000000\n"];

    #[test]
    fn a_socket_at_a_path_is_told() {
        let path = std::env::temp_dir().join(format!("warren-notify-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let receiver = UnixDatagram::bind(&path).expect("a socket in the temporary directory");
        let messages = told(&receiver, path.as_os_str());
        let _ = std::fs::remove_file(&path);
        assert_eq!(messages, EXPECTED);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_socket_is_told() {
        let name = format!("@warren-notify-{}", std::process::id());
        let address = address(OsStr::new(&name)).expect("an abstract address");
        let receiver = UnixDatagram::bind_addr(&address).expect("an abstract socket");
        assert_eq!(told(&receiver, OsStr::new(&name)), EXPECTED);
    }

    #[test]
    fn a_socket_that_cannot_be_reached_is_an_error_and_no_end() {
        assert!(send(OsStr::new("/nonexistent/notify"), "READY=1").is_err());
        assert_eq!(send(OsStr::new("vsock:2:1"), "READY=1").map_err(|error| error.kind()), Err(ErrorKind::Unsupported));
        Supervisor { socket: Some("/nonexistent/notify".into()) }.ready("ready");
        Supervisor { socket: None }.ready("ready");
    }
}
