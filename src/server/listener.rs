//! Accepting connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use super::opening::Opening;
use super::{ServerError, Shared, connection};

/// Waits after an accept that failed for want of something, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens; returns the address it got. `key` is what the configuration calls the listener.
pub(super) fn start(
    shared: &Arc<Shared>,
    key: &'static str,
    opening: Opening,
    address: SocketAddr,
    backlog: u32,
    stopped: watch::Receiver<bool>,
) -> Result<SocketAddr, ServerError> {
    let failed = |error| ServerError::Listen { key, address, error };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
    socket.set_reuseaddr(true).map_err(failed)?;
    socket.bind(address).map_err(failed)?;
    let listener = socket.listen(backlog).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    tokio::spawn(accept(Arc::clone(shared), Arc::new(opening), listener, stopped));
    Ok(bound)
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
