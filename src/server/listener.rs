//! Accepting connections.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use crate::config::Listening;
use crate::management::ServiceState;

use super::admission::Accepting;
use super::opening::Opening;
use super::{ServerError, Shared, connection};

/// Before a port that another program has is tried again.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

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
    shared.listening.add_socket();
    let place = ListenerPlace { bound, backlog };
    tokio::spawn(serve(Arc::clone(shared), Arc::new(opening), accepting, listener, place, stopped));
    Ok(bound)
}

/// Binds an address, for whatever is spoken there; also returns what it got.
pub(super) fn open(listening: Listening, backlog: u32) -> Result<(TcpListener, SocketAddr), ServerError> {
    let Listening { key, address } = listening;
    let opened = |address: SocketAddr| {
        let listener = bind(address, backlog)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    opened(address)
        .or_else(|error: io::Error| {
            // All addresses of a host without IPv6 are those of IPv4.
            if address.ip() == Ipv6Addr::UNSPECIFIED && lacks_ipv6(&error) {
                opened(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
            } else {
                Err(error)
            }
        })
        .map_err(|error| ServerError::Listen { key, address, error })
}

fn bind(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog)
}

fn lacks_ipv6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

/// Where a listener is, also after its socket was closed.
#[derive(Clone, Copy)]
struct ListenerPlace {
    bound: SocketAddr,
    backlog: u32,
}

/// Accepts connections, with a socket that is closed while the node does not serve.
async fn serve(
    shared: Arc<Shared>,
    opening: Arc<Opening>,
    mut accepting: Accepting,
    listener: TcpListener,
    place: ListenerPlace,
    mut stopped: watch::Receiver<bool>,
) {
    let mut state = shared.listening.follow();
    let mut listener = listener;
    loop {
        tokio::select! {
            () = accept(&shared, &opening, &mut accepting, &listener) => {}
            _ = state.wait_for(|state| state.is_closed()) => {}
            _ = stopped.changed() => return,
        }
        drop(listener);
        shared.listening.socket_closed();
        tracing::info!(address = %place.bound, "listener closed");
        listener = tokio::select! {
            listener = reopen(place, &mut state) => listener,
            _ = stopped.changed() => return,
        };
        shared.listening.socket_opened();
        tracing::info!(address = %place.bound, "listener open again");
    }
}

/// Waits until the node is to serve again, and opens the socket, as soon as nobody else has the port.
async fn reopen(place: ListenerPlace, state: &mut watch::Receiver<ServiceState>) -> TcpListener {
    let mut told = false;
    loop {
        // Its sender lives as long as the broker.
        let _ = state.wait_for(|state| !state.is_closed()).await;
        match bind(place.bound, place.backlog) {
            Ok(listener) => return listener,
            Err(error) if told => tracing::debug!(%error, address = %place.bound, "cannot listen yet"),
            Err(error) => {
                told = true;
                tracing::error!(%error, address = %place.bound, "cannot listen again; trying on");
            }
        }
        tokio::time::sleep(REOPEN_PAUSE).await;
    }
}

async fn accept(shared: &Arc<Shared>, opening: &Arc<Opening>, accepting: &mut Accepting, listener: &TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                accepting.succeeded();
                // Who comes from a proxy comes from somewhere else, which the proxy tells later.
                let source = (!opening.expects_proxy()).then(|| peer.ip().to_canonical());
                if let Some(place) = shared.admission.enter(&stream, source) {
                    shared.admission.let_leave(&stream).await;
                    tokio::spawn(connection::serve(Arc::clone(shared), Arc::clone(opening), stream, peer, place));
                }
            }
            Err(error) => accepting.failed(&error).await,
        }
    }
}
