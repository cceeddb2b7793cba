//! Accepting connections.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use crate::config::Listening;

use super::opening::Opening;
use super::{ServerError, Shared, connection};

/// Waits after an accept that failed for want of something, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens; returns the address it got.
pub(super) fn start(
    shared: &Arc<Shared>,
    listening: Listening,
    opening: Opening,
    backlog: u32,
    stopped: watch::Receiver<bool>,
) -> Result<SocketAddr, ServerError> {
    let (listener, bound) = open(listening, backlog)?;
    tokio::spawn(accept(Arc::clone(shared), Arc::new(opening), listener, stopped));
    Ok(bound)
}

/// Binds an address, for whatever is spoken there; also returns what it got.
pub(super) fn open(listening: Listening, backlog: u32) -> Result<(TcpListener, SocketAddr), ServerError> {
    let Listening { key, address } = listening;
    let bind = |address: SocketAddr| {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(backlog)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    bind(address)
        .or_else(|error: io::Error| {
            // All addresses of a host without IPv6 are those of IPv4.
            if address.ip() == Ipv6Addr::UNSPECIFIED && lacks_ipv6(&error) {
                bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
            } else {
                Err(error)
            }
        })
        .map_err(|error| ServerError::Listen { key, address, error })
}

fn lacks_ipv6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

async fn accept(shared: Arc<Shared>, opening: Arc<Opening>, listener: TcpListener, mut stopped: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        match accepted {
            Ok((_, peer)) if shared.suspended.load(Ordering::Relaxed) => {
                tracing::debug!(%peer, "connection turned away: listeners are suspended");
            }
            Ok((stream, peer)) => {
                tokio::spawn(connection::serve(Arc::clone(&shared), Arc::clone(&opening), stream, peer));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
