//! A connection's socket, plain or with TLS over it, with the same reads and writes that never wait.

use std::cell::RefCell;
use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;

/// Ciphertext read at once, into a buffer that all connections of a thread share. Together with one record that had arrived
/// in part it fits, decrypted, into what callers read into: nothing is left over.
const CIPHERTEXT_READ: usize = 64 * 1024;
/// Ciphertext read at once during a handshake: what the client sends along with the end of it stays in the session, which
/// has room for no more.
const HANDSHAKE_READ: usize = 8 * 1024;
/// How long a closed socket is read on, so that the peer gets what was written last: what is unread when a socket closes
/// makes the system discard what the peer has not read.
pub(super) const LINGER: Duration = Duration::from_secs(1);
/// Reads of at most 4 KiB while a closed socket lingers.
const LINGER_READS: usize = 64;
/// Ciphertext that may wait for the socket.
const CIPHERTEXT_WAITING: usize = 64 * 1024;

thread_local! {
    static CIPHERTEXT: RefCell<Vec<u8>> = RefCell::new(vec![0; CIPHERTEXT_READ]);
}

/// Plain sockets pay for TLS with a match.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

/// A session of rustls, which only transforms bytes, and the socket under it.
pub(super) struct TlsStream {
    socket: TcpStream,
    session: ServerConnection,
    /// The client has said that nothing more comes.
    is_closed: bool,
    /// The session may have input for the caller that came without the socket becoming readable again.
    has_input: bool,
}

/// Why there is no TLS on a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("AMQP without TLS on the TLS port")]
    PlainAmqp,
    #[error("HTTP without TLS on the TLS port")]
    PlainHttp,
    #[error("the client speaks nothing newer than TLS 1.1")]
    OldVersion,
    #[error("the client closed the connection")]
    Closed,
    #[error("{0}")]
    Refused(rustls::Error),
    #[error("{0}")]
    Socket(io::Error),
}

impl Stream {
    /// The socket, to wait for it. It is not to be read or written.
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.socket,
        }
    }

    /// Reads what is there; for TLS `buffer` must be empty room for [`CIPHERTEXT_READ`] and a record. Ok(0) is the end.
    pub(super) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.try_read(buffer),
            Self::Tls(tls) => tls.try_read(buffer),
        }
    }

    pub(super) fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, slices) {
            (Self::Plain(socket), [slice]) => socket.try_write(slice),
            (Self::Plain(socket), slices) => socket.try_write_vectored(slices),
            (Self::Tls(tls), slices) => tls.try_write(slices),
        }
    }

    /// Writes the ciphertext that waits, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => match tls.flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                outcome => outcome,
            },
        }
    }

    /// Whether ciphertext waits for the socket.
    pub(super) fn wants_write(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.session.wants_write(),
        }
    }

    /// Whether there is something to read although the socket may stay silent.
    pub(super) fn has_input(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.has_input,
        }
    }

    /// Says that nothing more comes, and sees to it that the peer gets what was written before: at most for [`LINGER`].
    pub(super) async fn close(&mut self) {
        let closed = async {
            let socket = match self {
                Self::Plain(socket) => socket,
                Self::Tls(tls) => {
                    tls.session.send_close_notify();
                    tls.flush_all().await?;
                    &mut tls.socket
                }
            };
            discard_input(socket).await
        };
        // Whatever went wrong, the connection is over.
        let _ = tokio::time::timeout(LINGER, closed).await;
    }

    /// Answers the peer that has closed its side. What the socket does not take at once is lost.
    pub(super) fn answer_close(&mut self) {
        if let Self::Tls(tls) = self {
            tls.session.send_close_notify();
            let _ = tls.flush();
        }
    }
}

impl TlsStream {
    /// The handshake. The caller limits the time.
    pub(super) async fn accept(socket: TcpStream, config: Arc<ServerConfig>) -> Result<Box<Self>, HandshakeError> {
        let mut session = ServerConnection::new(config).map_err(HandshakeError::Refused)?;
        session.set_buffer_limit(Some(CIPHERTEXT_WAITING));
        let mut tls = Box::new(Self { socket, session, is_closed: false, has_input: true });
        let mut is_first = true;
        while tls.session.is_handshaking() {
            let interest = match tls.session.wants_write() {
                true => Interest::READABLE | Interest::WRITABLE,
                false => Interest::READABLE,
            };
            tls.socket.ready(interest).await.map_err(HandshakeError::Socket)?;
            match tls.receive_handshake(is_first) {
                Ok(received) => is_first &= !received,
                Err(error) => {
                    // The alert that tells the client why.
                    let _ = tls.flush();
                    let _ = tokio::time::timeout(LINGER, discard_input(&mut tls.socket)).await;
                    return Err(error);
                }
            }
            tls.flush().or_else(unless_blocked).map_err(HandshakeError::Socket)?;
        }
        tls.flush_all().await.map_err(HandshakeError::Socket)?;
        Ok(tls)
    }

    pub(super) fn session(&self) -> &ServerConnection {
        &self.session
    }

    /// One read of the handshake; false if there was nothing.
    fn receive_handshake(&mut self, is_first: bool) -> Result<bool, HandshakeError> {
        CIPHERTEXT.with_borrow_mut(|ciphertext| {
            let length = match self.socket.try_read(&mut ciphertext[..HANDSHAKE_READ]) {
                Ok(0) => return Err(HandshakeError::Closed),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(HandshakeError::Socket(error)),
            };
            let mut rest = &ciphertext[..length];
            let known = if is_first { known_mistake(rest) } else { None };
            while !rest.is_empty() {
                self.session.read_tls(&mut rest).map_err(HandshakeError::Socket)?;
                if let Err(error) = self.session.process_new_packets() {
                    return Err(known.unwrap_or(HandshakeError::Refused(error)));
                }
            }
            Ok(true)
        })
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.has_input = false;
        let mut filled = self.decrypted(buffer)?;
        if filled > 0 || self.is_closed {
            return Ok(filled);
        }
        CIPHERTEXT.with_borrow_mut(|ciphertext| {
            let length = self.socket.try_read(ciphertext)?;
            if length == 0 {
                // Without a farewell, as many clients do. AMQP has its own.
                self.is_closed = true;
                return Ok(0);
            }
            let mut rest = &ciphertext[..length];
            while !rest.is_empty() && !self.is_closed {
                self.session.read_tls(&mut rest)?;
                if let Err(error) = self.session.process_new_packets() {
                    let _ = self.flush();
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
                filled += self.decrypted(&mut buffer[filled..])?;
            }
            if filled == 0 && !self.is_closed { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(filled) }
        })
    }

    /// Takes what the session has decrypted, and notes its end.
    fn decrypted(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.session.reader().read(&mut buffer[filled..]) {
                Ok(0) => {
                    self.is_closed = true;
                    self.has_input = true;
                    return Ok(filled);
                }
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(filled),
                Err(error) => return Err(error),
            }
        }
        // There may be more than fits.
        self.has_input = true;
        Ok(filled)
    }

    /// Takes bytes into the session until its buffer is full, and writes what the socket takes.
    fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            let taken = self.session.writer().write_vectored(slices)?;
            if let Err(error) = self.flush()
                && (taken == 0 || error.kind() != io::ErrorKind::WouldBlock)
            {
                return Err(error);
            }
            if taken > 0 {
                return Ok(taken);
            }
        }
    }

    /// Writes ciphertext until there is none; `WouldBlock` when the socket takes no more.
    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut NonBlocking(&self.socket))?;
        }
        Ok(())
    }

    async fn flush_all(&mut self) -> io::Result<()> {
        while let Err(error) = self.flush() {
            unless_blocked(error)?;
            self.socket.writable().await?;
        }
        Ok(())
    }
}

/// Closes this side, and reads on until the peer closes its own.
async fn discard_input(socket: &mut TcpStream) -> io::Result<()> {
    socket.shutdown().await?;
    let mut rest = [0; 4096];
    for _ in 0..LINGER_READS {
        socket.readable().await?;
        match socket.try_read(&mut rest) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => unless_blocked(error)?,
        }
    }
    Ok(())
}

fn unless_blocked(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::WouldBlock { Ok(()) } else { Err(error) }
}

/// What a client did wrong, told from the first bytes it sent, where the session's error would not say.
fn known_mistake(bytes: &[u8]) -> Option<HandshakeError> {
    const HTTP: [&[u8]; 5] = [b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE"];
    match bytes {
        // A ClientHello, whose version is 1.2 for all that is newer, too.
        [0x16, 3, _, _, _, 1, _, _, _, 3, 0..3, ..] => Some(HandshakeError::OldVersion),
        bytes if bytes.starts_with(b"AMQP") => Some(HandshakeError::PlainAmqp),
        bytes if HTTP.iter().any(|method| bytes.starts_with(method)) => Some(HandshakeError::PlainHttp),
        _ => None,
    }
}

/// The socket as the session writes to it.
struct NonBlocking<'a>(&'a TcpStream);

impl Write for NonBlocking<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
