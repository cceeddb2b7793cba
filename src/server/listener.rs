//! Accepting connections.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use crate::config::Listening;

use super::admission::Accepting;
use super::opening::Opening;
use super::{ServerError, Shared, connection};

/// Listens; returns the address it got.
pub(super) fn start(
    shared: &Arc<Shared>,
    listening: Listening,
    opening: Opening,
    backlog: u32,
    stopped: watch::Receiver<bool>,
) -> Result<SocketAddr, ServerError> {
    let accepting = Accepting::new(listening.key);
    let (listener, bound) = open(listening, backlog)?;
    tokio::spawn(accept(Arc::clone(shared), Arc::new(opening), accepting, listener, stopped));
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

async fn accept(
    shared: Arc<Shared>,
    opening: Arc<Opening>,
    mut accepting: Accepting,
    listener: TcpListener,
    mut stopped: watch::Receiver<bool>,
) {
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
                accepting.succeeded();
                // Who comes from a proxy comes from somewhere else, which the proxy tells later.
                let source = (!opening.expects_proxy()).then(|| peer.ip().to_canonical());
                if let Some(place) = shared.admission.enter(&stream, source) {
                    shared.admission.let_leave(&stream).await;
                    tokio::spawn(connection::serve(Arc::clone(&shared), Arc::clone(&opening), stream, peer, place));
                }
            }
            Err(error) => accepting.failed(&error).await,
        }
    }
}
