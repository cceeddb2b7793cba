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
use tokio::sync::watch;

use crate::config::Listening;
use crate::management::{Management, RequestOrigin, Scope, serve};

use super::admission::{Accepting, Admission, Descriptors, Place, Places};
use super::patience::Impatient;
use super::tls::{Acceptor, Tls};
use super::{ServerError, listener};

/// Connections that the system keeps waiting until they are accepted.
const BACKLOG: u32 = 1024;
/// How long a client may take to send its request's head, and to say nothing between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for a connection above the limit.
const HEAD_TIMEOUT_ABOVE: Duration = Duration::from_secs(2);
/// How long a client may take to take anything of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections to the Unix socket at once.
const LOCAL_CONNECTIONS: usize = 256;
/// The Unix socket's name in the data directory.
pub(super) const SOCKET: &str = "warren.sock";

/// What a listener serves, and to how many.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) scope: Scope,
    pub(super) admission: Arc<Admission>,
}

/// Listens on a TCP port; returns the address it got.
pub(super) fn start(
    management: &Arc<Management>,
    site: Site,
    listening: Listening,
    tls: Option<&Arc<Tls>>,
    stopped: watch::Receiver<bool>,
) -> Result<SocketAddr, ServerError> {
    let (listener, bound) = listener::open(listening, BACKLOG)?;
    let acceptor = tls.map(|tls| Arc::new(Acceptor::new(tls)));
    tokio::spawn(accept(Arc::clone(management), site, listener, acceptor, stopped));
    Ok(bound)
}

async fn accept(
    management: Arc<Management>,
    site: Site,
    listener: TcpListener,
    acceptor: Option<Arc<Acceptor>>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut accepting = Accepting::new(site.admission.what());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                accepting.succeeded();
                let _ = stream.set_nodelay(true);
                let address = peer.ip().to_canonical();
                let Some(place) = site.admission.enter(&stream, Some(address)) else { continue };
                site.admission.let_leave(&stream).await;
                let management = Arc::clone(&management);
                let (scope, acceptor) = (site.scope, acceptor.clone());
                tokio::spawn(async move {
                    let conversation = async {
                        match acceptor {
                            None => converse(management, scope, stream, RequestOrigin::Network(address), &place).await,
                            // What fails, the acceptor tells of.
                            Some(acceptor) => {
                                if let Ok(stream) = acceptor.accept(stream).await {
                                    converse(management, scope, stream, RequestOrigin::Network(address), &place).await;
                                }
                            }
                        }
                    };
                    tokio::select! {
                        () = conversation => {}
                        () = place.is_taken() => {}
                    }
                });
            }
            Err(error) => accepting.failed(&error).await,
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
    if let Err(error) = std::fs::remove_file(&path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(failed(error));
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    tokio::spawn(accept_local(Arc::clone(management), listener, stopped));
    Ok(path)
}

async fn accept_local(management: Arc<Management>, listener: UnixListener, mut stopped: watch::Receiver<bool>) {
    let mut accepting = Accepting::new(SOCKET);
    let admission = Admission::new(SOCKET, Places::local(Descriptors::of_process(), LOCAL_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                accepting.succeeded();
                let Some(place) = admission.enter(&stream, None) else { continue };
                admission.let_leave(&stream).await;
                let management = Arc::clone(&management);
                tokio::spawn(async move {
                    tokio::select! {
                        () = converse(management, Scope::Everything, stream, RequestOrigin::LocalSocket, &place) => {}
                        () = place.is_taken() => {}
                    }
                });
            }
            Err(error) => accepting.failed(&error).await,
        }
    }
}

/// Answers the requests of one connection.
pub(super) async fn converse(
    management: Arc<Management>,
    scope: Scope,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    origin: RequestOrigin,
    place: &Place,
) {
    let is_above = place.is_overflow();
    let scope = if is_above { scope.above_the_limit() } else { scope };
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let management = Arc::clone(&management);
        async move {
            let request: Request = request.map(Body::new);
            Ok::<_, Infallible>(serve(management, request, origin, scope).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(if is_above { HEAD_TIMEOUT_ABOVE } else { HEAD_TIMEOUT })
        .keep_alive(!is_above)
        .serve_connection(TokioIo::new(Impatient::new(stream, WRITE_TIMEOUT)), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "an HTTP connection ended");
    }
}
