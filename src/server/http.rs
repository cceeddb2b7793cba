//! Listening for HTTP: the management API on its port and on the Unix socket in the data directory, and metrics.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};

use crate::config::Listening;
use crate::management::{Management, Origin, serve};

use super::tls::{Acceptor, Tls};
use super::{ServerError, listener};

/// HTTP connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 1024;
/// Connections that the system keeps waiting until they are accepted.
const BACKLOG: u32 = 1024;
/// How long a client may take to send its request's head, and to say nothing between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Waits after an accept that failed for want of something, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The Unix socket's name in the data directory.
pub(super) const SOCKET: &str = "warren.sock";

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Site {
    Management,
    /// Metrics alone.
    Metrics,
}

/// Listens on a TCP port; returns the address it got.
pub(super) fn start(
    management: &Arc<Management>,
    site: Site,
    listening: Listening,
    stopped: watch::Receiver<bool>,
) -> Result<SocketAddr, ServerError> {
    listen(management, site, listening, None, stopped)
}

/// The same with TLS.
pub(super) fn start_tls(
    management: &Arc<Management>,
    site: Site,
    listening: Listening,
    tls: &Arc<Tls>,
    stopped: watch::Receiver<bool>,
) -> Result<SocketAddr, ServerError> {
    listen(management, site, listening, Some(Acceptor::new(tls)), stopped)
}

fn listen(
    management: &Arc<Management>,
    site: Site,
    listening: Listening,
    acceptor: Option<Acceptor>,
    stopped: watch::Receiver<bool>,
) -> Result<SocketAddr, ServerError> {
    let (listener, bound) = listener::open(listening, BACKLOG)?;
    tokio::spawn(accept(Arc::clone(management), site, listener, acceptor.map(Arc::new), stopped));
    Ok(bound)
}

async fn accept(
    management: Arc<Management>,
    site: Site,
    listener: TcpListener,
    acceptor: Option<Arc<Acceptor>>,
    mut stopped: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                let management = Arc::clone(&management);
                let acceptor = acceptor.clone();
                let origin = Origin::Network(peer.ip().to_canonical());
                tokio::spawn(async move {
                    let _permit = permit;
                    match acceptor {
                        None => converse(management, site, stream, origin).await,
                        // What fails, the acceptor tells of.
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                converse(management, site, stream, origin).await;
                            }
                        }
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "an HTTP connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Listens on the Unix socket of the data directory, which only this user may open.
pub(super) fn start_local(
    management: &Arc<Management>,
    data_dir: &Path,
    stopped: watch::Receiver<bool>,
) -> Result<PathBuf, ServerError> {
    let path = data_dir.join(SOCKET);
    let failed = |error| ServerError::ListenLocal { path: path.clone(), error };
    // The directory is locked for this process: a socket that is there has no listener any more.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    tokio::spawn(accept_local(Arc::clone(management), listener, stopped));
    Ok(path)
}

async fn accept_local(management: Arc<Management>, listener: UnixListener, mut stopped: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                tokio::spawn(converse(Arc::clone(&management), Site::Management, stream, Origin::LocalSocket));
            }
            Err(error) => {
                tracing::warn!(%error, "a local connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers the requests of one connection.
pub(super) async fn converse(
    management: Arc<Management>,
    site: Site,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    origin: Origin,
) {
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let management = Arc::clone(&management);
        async move {
            let request: Request = request.map(Body::new);
            Ok::<_, Infallible>(serve(management, request, origin, site == Site::Metrics).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "an HTTP connection ended");
    }
}
