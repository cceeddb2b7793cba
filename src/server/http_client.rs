//! A small HTTP client for what the broker asks others: keys of tokens, who may log in. One connection a request, no
//! redirects, everything bounded in time and size. Errors name no query and no body, which may have secrets in them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderMap, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

/// What needs no encoding in a form.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// Bytes of an answer.
const ANSWER_MAX: usize = 1024 * 1024;
/// Requests at a time; more of them wait their turn, within their time.
const REQUESTS_MAX: usize = 64;
/// Where systems keep the certificates they trust, in one file.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("the address is not https:// or http:// and a host")]
    Address,
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("no TLS connection: {0}")]
    Tls(std::io::Error),
    #[error("no answer in {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("the connection broke: {0}")]
    Broken(hyper::Error),
    #[error("the answer is longer than {ANSWER_MAX} bytes, or it was cut off")]
    Body,
    #[error("the answer has status {0}")]
    Status(StatusCode),
}

/// Certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    #[error("cannot be read: {0}")]
    Read(rustls::pki_types::pem::Error),
    #[error("has no certificate that can be used")]
    None,
    #[error("TLS cannot be set up: {0}")]
    Tls(rustls::Error),
}

/// See the module's documentation.
pub(super) struct HttpClient {
    tls: TlsConnector,
    timeout: Duration,
    turns: Semaphore,
}

impl HttpClient {
    /// `certificates` is a PEM file of those that are trusted, in place of the system's. `timeout` is that of a request
    /// as a whole.
    pub(super) fn new(certificates: Option<&Path>, timeout: Duration) -> Result<Self, CertificatesError> {
        let roots = roots(certificates)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(CertificatesError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), timeout, turns: Semaphore::new(REQUESTS_MAX) })
    }

    /// The body of an answer with a status of success.
    pub(super) async fn get(&self, address: &Uri) -> Result<Bytes, HttpError> {
        self.send(Method::GET, address, Bytes::new(), &HeaderMap::new()).await
    }

    /// The same for a form.
    pub(super) async fn post_form(&self, address: &Uri, form: String) -> Result<Bytes, HttpError> {
        self.post_form_with(address, form, &HeaderMap::new()).await
    }

    /// The same with headers, which go before those that every request has.
    pub(super) async fn post_form_with(
        &self,
        address: &Uri,
        form: String,
        headers: &HeaderMap,
    ) -> Result<Bytes, HttpError> {
        self.send(Method::POST, address, form.into(), headers).await
    }

    async fn send(&self, method: Method, address: &Uri, body: Bytes, headers: &HeaderMap) -> Result<Bytes, HttpError> {
        let request = request(method, address, body, headers)?;
        let answer = Box::pin(self.exchange(address, request));
        tokio::time::timeout(self.timeout, answer).await.unwrap_or(Err(HttpError::Timeout(self.timeout)))
    }

    async fn exchange(&self, address: &Uri, request: Request<Full<Bytes>>) -> Result<Bytes, HttpError> {
        // It is never closed.
        let _turn = self.turns.acquire().await;
        let host = address.host().ok_or(HttpError::Address)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_secure = match address.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(HttpError::Address),
        };
        let port = address.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await.map_err(HttpError::Connect)?;
        let _ = stream.set_nodelay(true);
        if is_secure {
            let name = ServerName::try_from(host.to_owned()).map_err(|_| HttpError::Address)?;
            let stream = self.tls.connect(name, stream).await.map_err(HttpError::Tls)?;
            converse(stream, request).await
        } else {
            converse(stream, request).await
        }
    }
}

/// Names, and values that are encoded, as the body of a form or the query of an address.
pub(super) fn form(parameters: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in parameters {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        text.extend(utf8_percent_encode(value, FORM));
    }
    text
}

/// A value as in a form.
pub(super) fn encoded(value: &str) -> String {
    utf8_percent_encode(value, FORM).to_string()
}

fn request(method: Method, address: &Uri, body: Bytes, headers: &HeaderMap) -> Result<Request<Full<Bytes>>, HttpError> {
    let path = address.path_and_query().map_or("/", |path| path.as_str());
    let authority = address.authority().ok_or(HttpError::Address)?;
    // Names and passwords before the host are nobody's business but the resolver's.
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    let mut request = Request::builder()
        .uri(path)
        .header(HOST, host)
        .header(USER_AGENT, concat!("warren/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*");
    if method == Method::POST {
        request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    }
    let mut request = request.method(method).body(Full::new(body)).map_err(|_| HttpError::Address)?;
    for (name, value) in headers {
        request.headers_mut().insert(name, value.clone());
    }
    Ok(request)
}

async fn converse<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Bytes, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(HttpError::Broken)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(HttpError::Broken)?;
        if !response.status().is_success() {
            return Err(HttpError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        body.map(http_body_util::Collected::to_bytes).map_err(|_| HttpError::Body)
    };
    // The connection does the work, and goes when the answer is there.
    let mut answer = Box::pin(answer);
    let mut connection = Box::pin(connection);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // It has ended: what there is of an answer has been handed over.
        _ = &mut connection => answer.await,
    }
}

/// Why a PEM file of those that are trusted cannot be used.
pub(super) fn check_certificates(file: &Path) -> Option<String> {
    roots(Some(file)).err().map(|error| format!("{}: {error}", file.display()))
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, CertificatesError> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = file {
        for certificate in CertificateDer::pem_file_iter(file).map_err(CertificatesError::Read)? {
            roots.add_parsable_certificates([certificate.map_err(CertificatesError::Read)?]);
        }
        return if roots.is_empty() { Err(CertificatesError::None) } else { Ok(roots) };
    }
    for bundle in SYSTEM_BUNDLES {
        if let Ok(certificates) = CertificateDer::pem_file_iter(bundle) {
            roots.add_parsable_certificates(certificates.flatten());
            if !roots.is_empty() {
                return Ok(roots);
            }
        }
    }
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_encoded() {
        assert_eq!(form(&[("a", "x y&z=1+%"), ("b", "/é"), ("c", "")]), "a=x%20y%26z%3D1%2B%25&b=%2F%C3%A9&c=");
    }
}
