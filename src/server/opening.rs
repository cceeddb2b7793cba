//! What comes before AMQP on a new connection: the header of a load balancer, the handshake of TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::config::{Config, Network};
use crate::model::names::UserName;
use crate::model::tls::TlsFacts;
use crate::protocol::proxy::{self, HEADER_MAX, Header, Proxied, ProxyError};

use super::admission::Place;
use super::stream::{HandshakeError, Stream, TlsStream};
use super::tls::{self, Tls};

/// What a listener does with its connections before they speak AMQP.
pub(super) struct Opening {
    /// None without TLS.
    tls: Option<Arc<Tls>>,
    /// Whose PROXY headers count; None where there are no such headers.
    trusted: Option<Vec<Network>>,
    /// For all of it.
    timeout: Duration,
}

/// A connection that may speak AMQP.
pub(super) struct Opened {
    pub(super) stream: Stream,
    pub(super) link: Link,
    /// What EXTERNAL would log in as, or why not; None where it is not to be offered.
    pub(super) external: Option<Result<UserName, String>>,
}

/// Where a connection comes from, and how it is protected.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// The client's address: of a proxy's client, if there is a proxy.
    pub(super) peer: SocketAddr,
    /// The address that the client connected to.
    pub(super) local: SocketAddr,
    /// None without TLS.
    pub(super) tls: Option<Arc<TlsFacts>>,
}

#[derive(Debug, thiserror::Error)]
enum OpeningError {
    #[error("{0}")]
    Header(#[from] ProxyError),
    #[error("the connection does not come from a proxy in amqp.proxy_trusted")]
    Untrusted,
    #[error("the PROXY header is incomplete: {0}")]
    Lost(io::Error),
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
}

impl Opening {
    /// For a listener of AMQP, with TLS or without.
    pub(super) fn new(config: &Config, tls: Option<Arc<Tls>>) -> Self {
        let trusted = config.amqp.proxy_protocol.then(|| config.amqp.proxy_trusted.clone());
        Self { tls, trusted, timeout: config.amqp.handshake_timeout }
    }

    /// Whether connections are to begin with a PROXY header.
    pub(super) fn expects_proxy(&self) -> bool {
        self.trusted.is_some()
    }

    /// Brings a connection to where AMQP begins. None if it does not get there, which is logged.
    pub(super) async fn open(&self, socket: TcpStream, peer: SocketAddr, place: &Place) -> Option<Opened> {
        let _ = socket.set_nodelay(true);
        let local = socket.local_addr().ok()?;
        let mut link = Link { peer, local, tls: None };
        if self.tls.is_none() && self.trusted.is_none() {
            return Some(Opened { stream: Stream::Plain(socket), link, external: None });
        }
        let outcome = tokio::time::timeout(self.timeout, Box::pin(self.negotiate(socket, &mut link, place))).await;
        let reason = match outcome {
            Ok(Ok((stream, external))) => {
                if let Some(tls) = &self.tls {
                    tls.handshakes().finished.fetch_add(1, Ordering::Relaxed);
                }
                return Some(Opened { stream, link, external });
            }
            Ok(Err(OpeningError::Handshake(error))) => error.to_string(),
            Ok(Err(error)) => {
                tracing::warn!(%peer, reason = %error, "connection refused");
                return None;
            }
            Err(_) => tls::overdue(self.timeout),
        };
        match &self.tls {
            Some(tls) => {
                tls.handshakes().failed.fetch_add(1, Ordering::Relaxed);
                tracing::info!(peer = %link.peer, reason, "TLS handshake failed");
            }
            None => tracing::warn!(%peer, reason, "PROXY header missing: connection refused"),
        }
        None
    }

    async fn negotiate(
        &self,
        socket: TcpStream,
        link: &mut Link,
        place: &Place,
    ) -> Result<(Stream, Option<Result<UserName, String>>), OpeningError> {
        if let Some(trusted) = &self.trusted {
            if !trusted.iter().any(|network| network.contains(link.peer.ip())) {
                return Err(OpeningError::Untrusted);
            }
            if let Some(proxied) = read_header(&socket).await? {
                link.peer = proxied.source.into();
                link.local = proxied.destination.into();
                place.comes_from(link.peer.ip().to_canonical());
            }
        }
        let Some(tls) = &self.tls else { return Ok((Stream::Plain(socket), None)) };
        let stream = TlsStream::accept(socket, tls.amqp()).await?;
        let facts = tls.facts(stream.session());
        let external = tls.external_login(&facts);
        link.tls = Some(Arc::new(facts));
        Ok((Stream::Tls(stream), external))
    }
}

/// Reads a PROXY header, and nothing after it.
async fn read_header(socket: &TcpStream) -> Result<Option<Proxied>, OpeningError> {
    let mut buffer = [0; HEADER_MAX];
    let mut length = 0;
    loop {
        let missing = match proxy::parse(&buffer[..length])? {
            Header::Complete(proxied) => return Ok(proxied),
            Header::Partial(missing) => missing.min(HEADER_MAX - length),
        };
        socket.readable().await.map_err(OpeningError::Lost)?;
        match socket.try_read(&mut buffer[length..length + missing]) {
            Ok(0) => return Err(OpeningError::Lost(io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(OpeningError::Lost(error)),
        }
    }
}
