//! TLS for all listeners: one set of certificates, read from files at the start and again whenever they change.
//!
//! AMQP connections drive their handshake themselves (`opening.rs`, `stream.rs`), with [`Tls::amqp`]; servers that bring
//! their own loop accept through an [`Acceptor`]. Either way a new connection has the certificates of that moment.

mod certificate;
mod files;
mod names;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::{ServerConfig, ServerConnection};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::{self, Config, LoginFrom, TlsVerify};
use crate::model::names::UserName;
use crate::model::tls::{ServerCertificate, TlsFacts};

pub(super) use files::TlsError;

/// The certificates in use, and how they are to be read again.
pub(super) struct Tls {
    settings: config::Tls,
    /// The section of the configuration that has the keys of the first certificate.
    section: &'static str,
    current: ArcSwap<Current>,
    handshakes: Handshakes,
    /// The files are to be read again.
    asked: Notify,
}

/// The certificates of each protocol. Where a protocol has none of its own, it shares those of `[tls]`.
#[derive(Clone)]
pub(super) struct Certificates {
    pub(super) amqp: Option<Arc<Tls>>,
    pub(super) management: Option<Arc<Tls>>,
    pub(super) prometheus: Option<Arc<Tls>>,
}

impl Certificates {
    /// # Errors
    /// As [`Tls::open`].
    pub(super) fn open(config: &Config) -> Result<Self, TlsError> {
        let amqp = Tls::open(&config.tls, "tls")?;
        let own = |settings: &config::Tls, section| {
            if *settings == config.tls { Ok(amqp.clone()) } else { Tls::open(settings, section) }
        };
        let management = own(&config.management_tls(), "management")?;
        let prometheus = own(&config.prometheus_tls(), "prometheus")?;
        Ok(Self { amqp, management, prometheus })
    }

    /// Has the files read again, by the tasks that watch them.
    pub(super) fn read_again(&self) {
        let all = self.all();
        if all.is_empty() {
            tracing::debug!("SIGHUP: there are no TLS files to read again");
        }
        all.iter().for_each(|tls| tls.asked.notify_one());
    }

    /// Each of them once.
    pub(super) fn all(&self) -> Vec<Arc<Tls>> {
        let mut all: Vec<Arc<Tls>> = Vec::new();
        for tls in [&self.amqp, &self.management, &self.prometheus].into_iter().flatten() {
            if !all.iter().any(|other| Arc::ptr_eq(other, tls)) {
                all.push(Arc::clone(tls));
            }
        }
        all
    }
}

/// What one reading of the files gave.
struct Current {
    amqp: Arc<ServerConfig>,
    https: Arc<ServerConfig>,
    certificates: Vec<ServerCertificate>,
    fingerprint: files::Fingerprint,
}

/// Handshakes since the start.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    pub(super) finished: AtomicU64,
    pub(super) failed: AtomicU64,
}

impl Tls {
    /// Reads the files; None if no certificate is configured. `section` has the keys of the first one.
    ///
    /// # Errors
    /// When one of them cannot be used: which, and what is wrong with it.
    pub(super) fn open(settings: &config::Tls, section: &'static str) -> Result<Option<Arc<Self>>, TlsError> {
        if !settings.is_configured() {
            return Ok(None);
        }
        let current = Current::read(settings, section)?;
        Ok(Some(Arc::new(Self {
            settings: settings.clone(),
            section,
            current: ArcSwap::from_pointee(current),
            handshakes: Handshakes::default(),
            asked: Notify::new(),
        })))
    }

    /// For an AMQP connection that begins now: clients are asked for a certificate, if so configured.
    pub(super) fn amqp(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().amqp)
    }

    /// For an HTTP connection that begins now: clients are not asked for a certificate.
    pub(super) fn https(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().https)
    }

    /// The certificates of the moment, to tell which of them end soon.
    pub(super) fn certificates(&self) -> Vec<ServerCertificate> {
        self.current.load().certificates.clone()
    }

    pub(super) fn handshakes(&self) -> &Handshakes {
        &self.handshakes
    }

    /// Reads the files anew. Connections that exist keep what they have.
    ///
    /// # Errors
    /// As in [`Self::open`]; then nothing has changed.
    pub(super) fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(Current::read(&self.settings, self.section)?));
        Ok(())
    }

    /// What is known of a connection after its handshake.
    pub(super) fn facts(&self, connection: &ServerConnection) -> TlsFacts {
        certificate::facts(connection)
    }

    /// The user that the connection's certificate stands for, or why there is none. None where clients are not asked for
    /// certificates: nothing would have been checked.
    pub(super) fn external_login(&self, facts: &TlsFacts) -> Option<Result<UserName, String>> {
        if self.settings.verify != TlsVerify::Peer {
            return None;
        }
        let Some(peer) = &facts.peer else {
            return Some(Err("connection peer presented no TLS (x.509) certificate".to_owned()));
        };
        let name = match self.settings.login_from {
            LoginFrom::DistinguishedName => Some(peer.subject.clone()),
            // Several are rare; joined so as not to choose one of them.
            LoginFrom::CommonName => Some(peer.common_names.join(",")),
            LoginFrom::AlternativeName => {
                let index = usize::from(self.settings.login_san_index);
                certificate::alternative_name(peer, self.settings.login_san_type, index)
            }
        };
        let name = name.filter(|name| !name.is_empty()).map(|name| UserName::new(&name));
        Some(name.ok_or_else(|| format!("no {} found in the client certificate", self.settings.login_from.name())))
    }

    fn has_changed(&self) -> bool {
        files::Fingerprint::of(&self.settings) != self.current.load().fingerprint
    }
}

impl Current {
    fn read(settings: &config::Tls, section: &str) -> Result<Self, TlsError> {
        // Taken before the files are read: a change in between is seen the next time.
        let fingerprint = files::Fingerprint::of(settings);
        let files::ServerConfigs { amqp, https, certificates } = files::read(settings, section)?;
        Ok(Self { amqp, https, certificates, fingerprint })
    }
}

/// Looks after changed files, for as long as the broker runs, and whenever [`Certificates::read_again`] asks for it.
pub(super) fn watch(certificates: &Certificates) {
    for tls in certificates.all() {
        tokio::spawn(watch_one(tls));
    }
}

async fn watch_one(tls: Arc<Tls>) {
    let interval = tls.settings.reload_interval;
    // What was tried last and could not be used: it is told once, not every few seconds.
    let mut refused = None;
    loop {
        let asked = tokio::select! {
            () = tls.asked.notified() => true,
            () = pause(interval) => false,
        };
        let (looking, before) = (Arc::clone(&tls), refused.take());
        match spawn_blocking(move || look(&looking, asked, before)).await {
            Ok(after) => refused = after,
            Err(_) => return,
        }
    }
}

/// One look at the files. `refused` are those that could not be used the last time; returns those of this time.
fn look(tls: &Tls, asked: bool, refused: Option<files::Fingerprint>) -> Option<files::Fingerprint> {
    let found = files::Fingerprint::of(&tls.settings);
    if !asked && (refused.as_ref() == Some(&found) || !tls.has_changed()) {
        return refused;
    }
    match tls.reload() {
        Ok(()) => {
            tracing::info!("TLS files read again: new connections use them");
            None
        }
        Err(error) => {
            tracing::error!(%error, "TLS files cannot be used: the certificates in use stay");
            Some(found)
        }
    }
}

async fn pause(interval: Option<Duration>) {
    match interval {
        Some(interval) => tokio::time::sleep(interval).await,
        None => std::future::pending().await,
    }
}

/// Accepts TLS for servers that read and write a stream: HTTPS.
#[derive(Clone)]
pub(super) struct Acceptor {
    tls: Arc<Tls>,
}

impl Acceptor {
    pub(super) fn new(tls: &Arc<Tls>) -> Self {
        Self { tls: Arc::clone(tls) }
    }

    /// The handshake, with the certificates of this moment. Failures are counted and logged.
    ///
    /// # Errors
    /// When it fails or takes longer than `tls.handshake_timeout`.
    pub(super) async fn accept(&self, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let peer = socket.peer_addr()?;
        let limit = self.tls.settings.handshake_timeout;
        let handshake = TlsAcceptor::from(self.tls.https()).accept(socket);
        let outcome = tokio::time::timeout(limit, handshake).await;
        let outcome = outcome.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, overdue(limit))));
        match &outcome {
            Ok(_) => self.tls.handshakes.finished.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                tracing::info!(%peer, reason = %error, "TLS handshake failed");
                self.tls.handshakes.failed.fetch_add(1, Ordering::Relaxed)
            }
        };
        outcome
    }
}

/// What is said of a handshake that takes too long.
pub(super) fn overdue(limit: Duration) -> String {
    format!("not finished within {} ms", limit.as_millis())
}
