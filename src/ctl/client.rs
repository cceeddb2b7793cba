//! The transport: HTTP/1.1 with JSON over a Unix socket, TCP or TLS, one request at a time on one connection, which is opened
//! when it is needed and kept. Every call blocks until its answer is there or the time is over.

use std::cell::RefCell;
use std::future::Future;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;

use crate::printable;

use super::error::CtlError;
use super::target::{Target, TargetPlace, tls};

/// The longest answer that is kept in memory; longer ones only pass through [`Client::stream`].
const LONGEST_ANSWER: usize = 256 * 1024 * 1024;

/// What a path segment keeps as it is.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A connection to one management API.
pub(crate) struct Client {
    runtime: Runtime,
    pub(crate) target: Target,
    /// For each request, from connecting to the last byte; zero is no limit.
    pub(crate) timeout: Duration,
    /// The verb, for the message about a timeout.
    verb: String,
    connection: RefCell<Option<SendRequest<Full<Bytes>>>>,
    authorities: Vec<CertificateDer<'static>>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

impl Reply {
    /// The body as JSON; Null if it is empty or no JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The body as it came.
    pub(crate) fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn is_success(&self) -> bool {
        self.status < 300
    }

    /// The reason of a refusal, as text.
    pub(crate) fn reason(&self) -> String {
        let json = self.json();
        let reason = match &json["reason"] {
            Value::Null => json["error"].clone(),
            reason => reason.clone(),
        };
        match reason {
            Value::String(text) => text,
            Value::Null => {
                StatusCode::from_u16(self.status).map_or_else(|_| self.status.to_string(), |status| status.to_string())
            }
            other => super::erlang::text(&other),
        }
    }

    /// # Errors
    /// The broker's refusal.
    pub(crate) fn success(self) -> Result<Self, CtlError> {
        if self.is_success() {
            return Ok(self);
        }
        let reason = match (self.status, self.reason()) {
            (401, reason) if self.body.is_empty() || reason == "Not_Authorized" => {
                "the broker refused the user or the password; name them: --uri http://user:password@host:15672"
                    .to_owned()
            }
            (_, reason) => reason,
        };
        Err(CtlError::Refused { status: self.status, reason })
    }
}

/// Joins and encodes path segments: `["queues", "/", "a b"]` is `/api/queues/%2F/a%20b`.
pub(crate) fn path(segments: &[&str]) -> String {
    segments.iter().fold("/api".to_owned(), |path, segment| format!("{path}/{}", encode(segment)))
}

/// Encodes a path segment or a query value.
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

impl Client {
    /// Connects only when something is asked.
    ///
    /// # Errors
    /// The runtime cannot be made, or the file of certificate authorities cannot be read.
    pub(crate) fn new(
        target: Target,
        timeout: Duration,
        verb: &str,
        authorities: Option<&str>,
    ) -> Result<Self, CtlError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|cause| CtlError::file("runtime", cause))?;
        let authorities = match authorities {
            None => Vec::new(),
            Some(file) => CertificateDer::pem_file_iter(file)
                .and_then(Iterator::collect)
                .map_err(|error| CtlError::file(file, std::io::Error::other(error.to_string())))?,
        };
        let connection = RefCell::new(None);
        Ok(Self { runtime, target, timeout, verb: verb.to_owned(), connection, authorities })
    }

    /// The same, for another user.
    ///
    /// # Errors
    /// See [`Client::new`].
    pub(crate) fn with_user(&self, user: &str, password: &str) -> Result<Self, CtlError> {
        let mut client = Self::new(self.target.with_user(user, password), self.timeout, &self.verb, None)?;
        client.authorities.clone_from(&self.authorities);
        Ok(client)
    }

    /// GET, as JSON.
    ///
    /// # Errors
    /// Unreachable, refused, late, or no JSON.
    pub(crate) fn get(&self, path: &str) -> Result<Value, CtlError> {
        let reply = self.request(&Method::GET, path, None)?.success()?;
        serde_json::from_slice(&reply.body).map_err(|error| self.bad_answer(&error))
    }

    /// GET, as JSON; None for 404.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) fn find(&self, path: &str) -> Result<Option<Value>, CtlError> {
        let reply = self.request(&Method::GET, path, None)?;
        if reply.status == 404 {
            return Ok(None);
        }
        Ok(Some(reply.success()?.json()))
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Result<Reply, CtlError> {
        self.request(&Method::PUT, path, Some(body))
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Reply, CtlError> {
        self.request(&Method::POST, path, Some(body))
    }

    pub(crate) fn delete(&self, path: &str) -> Result<Reply, CtlError> {
        self.request(&Method::DELETE, path, None)
    }

    /// One request, its answer whole, whatever its status.
    ///
    /// # Errors
    /// Unreachable, late, or broken off.
    pub(crate) fn request(&self, method: &Method, path: &str, body: Option<&Value>) -> Result<Reply, CtlError> {
        let body = body.map(|body| Bytes::from(body.to_string()));
        self.send(method, path, body, &[])
    }

    /// One request with a body that is JSON already and with further headers.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub(crate) fn send(
        &self,
        method: &Method,
        path: &str,
        body: Option<Bytes>,
        headers: &[(&str, &str)],
    ) -> Result<Reply, CtlError> {
        self.in_time(async {
            let answer = self.exchange(method, path, body, headers).await?;
            let status = answer.status().as_u16();
            let limited = http_body_util::Limited::new(answer.into_body(), LONGEST_ANSWER);
            let body = limited.collect().await.map_err(|error| self.bad_answer(&*error))?.to_bytes();
            Ok(Reply { status, body })
        })
    }

    /// GET whose answer is passed on as it comes; `Ok(false)` when `until` was over before it ended. The status must be 200.
    ///
    /// # Errors
    /// Unreachable, refused, broken off, or `take` fails.
    pub(crate) fn stream(
        &self,
        path: &str,
        until: Option<Duration>,
        take: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<bool, CtlError> {
        let answer = self.in_time(self.exchange(&Method::GET, path, None, &[]))?;
        let status = answer.status().as_u16();
        let mut body = answer.into_body();
        if status >= 300 {
            let limited = http_body_util::Limited::new(body, LONGEST_ANSWER);
            let body =
                self.in_time(async { limited.collect().await.map_err(|error| self.bad_answer(&*error)) })?.to_bytes();
            Reply { status, body }.success()?;
            return Ok(true);
        }
        let pass = async {
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| self.bad_answer(&error))?;
                if let Some(data) = frame.data_ref() {
                    take(data).map_err(|cause| CtlError::file("standard output", cause))?;
                }
            }
            Ok(true)
        };
        self.runtime.block_on(async {
            match until {
                None => pass.await,
                Some(until) => tokio::time::timeout(until, pass).await.unwrap_or(Ok(false)),
            }
        })
    }

    /// Waits on the runtime, so that the kept connection moves on.
    pub(crate) fn pause(&self, duration: Duration) {
        self.runtime.block_on(async { tokio::time::sleep(duration).await });
    }

    fn in_time<T>(&self, work: impl Future<Output = Result<T, CtlError>>) -> Result<T, CtlError> {
        self.runtime.block_on(async {
            if self.timeout.is_zero() {
                return work.await;
            }
            let late =
                || CtlError::TimedOut { verb: self.verb.clone(), target: self.target.name(), timeout: self.timeout };
            tokio::time::timeout(self.timeout, work).await.unwrap_or_else(|_| Err(late()))
        })
    }

    /// Sends on the kept connection, or on a new one if there is none or it has gone.
    async fn exchange(
        &self,
        method: &Method,
        path: &str,
        body: Option<Bytes>,
        headers: &[(&str, &str)],
    ) -> Result<Response<Incoming>, CtlError> {
        if let Some(mut kept) = self.connection.take()
            && kept.ready().await.is_ok()
        {
            let request = self.prepare(method, path, body.clone(), headers)?;
            match kept.send_request(request).await {
                Ok(answer) => {
                    self.connection.replace(Some(kept));
                    return Ok(answer);
                }
                // The broker had closed it meanwhile. What has not been sent, and what changes nothing, is sent again.
                Err(error) if error.is_canceled() || method == Method::GET => {}
                Err(error) => return Err(self.unreachable(&error)),
            }
        }
        let mut connection = self.connect().await?;
        let request = self.prepare(method, path, body, headers)?;
        let answer = connection.send_request(request).await.map_err(|error| self.unreachable(&error))?;
        self.connection.replace(Some(connection));
        Ok(answer)
    }

    fn prepare(
        &self,
        method: &Method,
        path: &str,
        body: Option<Bytes>,
        headers: &[(&str, &str)],
    ) -> Result<Request<Full<Bytes>>, CtlError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.target.prefix))
            .header(HOST, &self.target.authority);
        if let Some(authorization) = &self.target.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(body.unwrap_or_default())).map_err(|error| self.bad_answer(&error))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, CtlError> {
        match &self.target.place {
            TargetPlace::Unix(path) => {
                let socket = UnixStream::connect(path).await.map_err(|error| self.unreachable(&error))?;
                self.shake(TokioIo::new(socket)).await
            }
            TargetPlace::Tcp { host, port } => self.shake(TokioIo::new(self.tcp(host, *port).await?)).await,
            TargetPlace::Tls { host, port, name, check } => {
                let config = tls(*check, &self.authorities).map_err(|error| self.unreachable(&error))?;
                let config = Arc::new(config);
                let socket = self.tcp(host, *port).await?;
                let stream = tokio_rustls::TlsConnector::from(config).connect(name.clone(), socket).await;
                self.shake(TokioIo::new(stream.map_err(|error| self.unreachable(&error))?)).await
            }
        }
    }

    async fn tcp(&self, host: &str, port: u16) -> Result<TcpStream, CtlError> {
        let socket = TcpStream::connect((host, port)).await.map_err(|error| self.unreachable(&error))?;
        let _ = socket.set_nodelay(true);
        Ok(socket)
    }

    async fn shake<S>(&self, stream: S) -> Result<SendRequest<Full<Bytes>>, CtlError>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (sender, connection) = handshake(stream).await.map_err(|error| self.unreachable(&error))?;
        // Its errors reach the request that waits.
        tokio::spawn(async move { _ = connection.await });
        Ok(sender)
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> CtlError {
        let cause = chain(error);
        CtlError::Unreachable { target: self.target.name(), cause, advice: self.target.advice() }
    }

    fn bad_answer(&self, error: &dyn std::error::Error) -> CtlError {
        CtlError::BadAnswer { target: self.target.name(), cause: chain(error) }
    }
}

/// An error with its sources, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

/// Writes lines to standard output, without what a terminal would obey: much of it was chosen by clients of the broker.
pub(crate) fn print(text: &str) {
    print_drawing(&printable::lines(text));
}

/// Prints text that comes in pieces, as [`print`] does.
#[derive(Default)]
pub(crate) struct Pieces {
    /// The beginning of a character whose end is to come.
    begun: Vec<u8>,
}

impl Pieces {
    /// # Errors
    /// When standard output takes no more.
    pub(crate) fn print(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut output = std::io::stdout().lock();
        output.write_all(self.next(bytes).as_bytes())?;
        output.flush()
    }

    fn next(&mut self, bytes: &[u8]) -> String {
        self.begun.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.begun) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            // What is no text at all is replaced.
            _ => self.begun.len(),
        };
        let rest = self.begun.split_off(whole);
        let text = String::from_utf8_lossy(&self.begun);
        let text = printable::lines(&text).into_owned();
        self.begun = rest;
        text
    }
}

/// Writes to standard output what may draw on a terminal; a reader that went away (`| head`) is no failure.
pub(crate) fn print_drawing(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_printed_without_what_a_terminal_obeys() {
        let mut pieces = Pieces::default();
        let printed: String = ["a\x1b[2J é\u{9b}b\n".as_bytes(), b"\xff", b"c"]
            .concat()
            .chunks(1)
            .map(|byte| pieces.next(byte))
            .collect();
        assert_eq!(printed, "a\\u001b[2J é\\u009bb\n\u{fffd}c");
    }

    #[test]
    fn paths_are_encoded() {
        assert_eq!(path(&["queues", "/", "a b/c%"]), "/api/queues/%2F/a%20b%2Fc%25");
    }

    #[test]
    fn a_reason_is_text() {
        let reply = |status, body: &str| Reply { status, body: Bytes::from(body.to_owned()) };
        assert_eq!(reply(400, r#"{"error":"bad_request","reason":"no"}"#).reason(), "no");
        assert_eq!(
            reply(400, r#"{"error":"bad_request","reason":["no_such_user","x"]}"#).reason(),
            "{no_such_user,\"x\"}"
        );
        assert_eq!(reply(500, "").reason(), "500 Internal Server Error");
    }
}
