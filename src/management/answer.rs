//! Answers of the API: what succeeded, and what was refused, in RabbitMQ's words.

use axum::body::Body;
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, VARY,
    WWW_AUTHENTICATE,
};
use axum::http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::model::exception::{Exception, ReplyCode};

/// What an endpoint answers.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub content: Content,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Content {
    None,
    Json(Value),
    /// JSON that was written already.
    JsonText(Vec<u8>),
    /// A content type, and text.
    Text(&'static str, String),
    /// Bytes as they come.
    Stream(&'static str, Body),
}

/// Why a request is not carried out.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    body: Option<Value>,
    /// The browser is to ask for a name and a password.
    challenge: bool,
    /// The reason in plain words, where it is known better than by RabbitMQ's reason.
    explanation: Option<String>,
}

impl Answer {
    /// 200 with a JSON body.
    #[must_use]
    pub(crate) fn json(value: Value) -> Self {
        Self::with(StatusCode::OK, Content::Json(value))
    }

    /// 200 with lines of text of a kind.
    #[must_use]
    pub(crate) fn text(kind: &'static str, text: String) -> Self {
        Self::with(StatusCode::OK, Content::Text(kind, text))
    }

    /// An answer without a body.
    #[must_use]
    pub(crate) fn status(status: StatusCode) -> Self {
        Self::with(status, Content::None)
    }

    /// 204.
    #[must_use]
    pub(crate) fn done() -> Self {
        Self::status(StatusCode::NO_CONTENT)
    }

    /// 201 for what is new, 204 for what was there.
    #[must_use]
    pub(crate) fn put(existed: bool) -> Self {
        Self::status(if existed { StatusCode::NO_CONTENT } else { StatusCode::CREATED })
    }

    /// 301 to another place.
    #[must_use]
    pub(crate) fn redirect(to: &'static str) -> Self {
        Self::status(StatusCode::MOVED_PERMANENTLY).header(LOCATION, to)
    }

    /// 503 with a reason that health checks show.
    #[must_use]
    pub(crate) fn unhealthy(mut details: Value, reason: &str) -> Self {
        if let Value::Object(map) = &mut details {
            map.insert("status".to_owned(), "failed".into());
            map.insert("reason".to_owned(), reason.into());
        }
        Self::with(StatusCode::SERVICE_UNAVAILABLE, Content::Json(details))
    }

    #[must_use]
    pub(crate) fn with(status: StatusCode, content: Content) -> Self {
        Self { status, content, headers: Vec::new() }
    }

    /// Adds a header; one that cannot be sent is left out.
    #[must_use]
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// The answer as it is sent; `allow` is what may be asked of the address.
    #[must_use]
    pub(crate) fn into_response(self, allow: &str) -> Response<Body> {
        let is_redirection = self.status.is_redirection();
        // As RabbitMQ has it: what shows the state of things is not kept, anything else is asked for anew.
        let shows_state = self.status == StatusCode::OK || self.status == StatusCode::SERVICE_UNAVAILABLE;
        let is_page = matches!(self.content, Content::Text("text/html", _));
        let (kind, body) = match self.content {
            Content::None => (None, Body::empty()),
            Content::Json(value) => (Some("application/json"), Body::from(value.to_string())),
            Content::JsonText(text) => (Some("application/json"), Body::from(text)),
            Content::Text(kind, text) => (Some(kind), Body::from(text)),
            Content::Stream(kind, body) => (Some(kind), body),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding, origin"));
        if !is_redirection {
            let cache = if shows_state && kind.is_some() && !is_page {
                "no-cache"
            } else {
                "public, max-age=0, must-revalidate"
            };
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
            let policy = "script-src 'self'; object-src 'self'";
            headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
            if let Ok(allow) = HeaderValue::from_str(allow) {
                headers.insert(ALLOW, allow);
            }
        }
        if let Some(kind) = kind {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        response
    }
}

impl Failure {
    fn new(status: StatusCode, error: &str, reason: impl Into<Value>) -> Self {
        Self {
            status,
            body: Some(json!({"error": error, "reason": reason.into()})),
            challenge: false,
            explanation: None,
        }
    }

    /// 400. The reason is a text, or an array where RabbitMQ has a tuple.
    #[must_use]
    pub(crate) fn bad_request(reason: impl Into<Value>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", reason)
    }

    /// 400 under another name.
    #[must_use]
    pub(crate) fn refused(error: &str, reason: impl Into<Value>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, reason)
    }

    /// 404 of what the path names.
    #[must_use]
    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Object Not Found", "Not Found")
    }

    /// 404 of something a request needs.
    #[must_use]
    pub(crate) fn missing(reason: impl Into<Value>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", reason)
    }

    /// 401 without credentials: empty, with a challenge.
    #[must_use]
    pub(crate) fn no_credentials() -> Self {
        Self { status: StatusCode::UNAUTHORIZED, body: None, challenge: true, explanation: None }
    }

    /// 401 of wrong credentials: no challenge, or browsers would ask.
    #[must_use]
    pub(crate) fn wrong_credentials() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "not_authorized", "Not_Authorized")
    }

    /// 401 of somebody who is known and may not do this.
    #[must_use]
    pub(crate) fn not_authorised(reason: impl Into<Value>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "not_authorised", reason)
    }

    /// 405.
    #[must_use]
    pub(crate) fn method_not_allowed() -> Self {
        Self { status: StatusCode::METHOD_NOT_ALLOWED, body: None, challenge: false, explanation: None }
    }

    /// 406.
    #[must_use]
    pub(crate) fn not_acceptable() -> Self {
        Self { status: StatusCode::NOT_ACCEPTABLE, body: None, challenge: false, explanation: None }
    }

    /// 403: not from this web page.
    #[must_use]
    pub(crate) fn forbidden(reason: impl Into<Value>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", reason)
    }

    /// 415.
    #[must_use]
    pub(crate) fn unsupported_media_type() -> Self {
        Self { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, body: None, challenge: false, explanation: None }
    }

    /// 408.
    #[must_use]
    pub(crate) fn timed_out() -> Self {
        Self { status: StatusCode::REQUEST_TIMEOUT, body: None, challenge: false, explanation: None }
    }

    /// 412.
    #[must_use]
    pub(crate) fn precondition_failed(reason: impl Into<Value>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", reason)
    }

    /// 503: the broker cannot answer truthfully now.
    #[must_use]
    pub(crate) fn unavailable(reason: impl Into<Value>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", reason)
    }

    /// 503 of a health check.
    #[must_use]
    pub(crate) fn unhealthy(reason: &str) -> Self {
        let body = json!({"status": "failed", "reason": reason});
        Self { status: StatusCode::SERVICE_UNAVAILABLE, body: Some(body), challenge: false, explanation: None }
    }

    /// 400 of a key that is needed and not there.
    #[must_use]
    pub(crate) fn keys_missing(keys: &[&str]) -> Self {
        let keys: Vec<String> = keys.iter().map(|key| format!("{{key_missing,{key}}}")).collect();
        // As long terms are laid out there.
        let separator = if keys.iter().map(String::len).sum::<usize>() > 70 { ",\n " } else { "," };
        Self::bad_request(format!("[{}]", keys.join(separator)))
    }

    /// What the broker refused, for endpoints that declare, bind or delete.
    #[must_use]
    pub(crate) fn of_broker(exception: &Exception) -> Self {
        match exception.code {
            ReplyCode::AccessRefused => Self::not_authorised("Access refused."),
            ReplyCode::NotFound => Self::missing(exception.text.as_str()),
            _ => Self::bad_request(exception.text.as_str()),
        }
    }

    /// The reason as it is answered.
    #[must_use]
    pub(crate) fn reason_term(&self) -> Option<&Value> {
        self.body.as_ref()?.get("reason")
    }

    /// The same with what it means, which is not answered.
    #[must_use]
    pub(crate) fn explained(self, explanation: String) -> Self {
        Self { explanation: Some(explanation), ..self }
    }

    /// The same with the explanation in the answer, for those who understand one.
    #[must_use]
    pub(crate) fn telling(mut self) -> Self {
        if let (Some(Value::Object(body)), Some(explanation)) = (&mut self.body, &self.explanation) {
            body.insert("explanation".to_owned(), explanation.as_str().into());
        }
        self
    }

    /// What it means, else the reason alone.
    #[must_use]
    pub(crate) fn explanation(&self) -> String {
        self.explanation.clone().unwrap_or_else(|| self.reason())
    }

    /// The reason alone.
    #[must_use]
    pub(crate) fn reason(&self) -> String {
        let reason = self.body.as_ref().and_then(|body| body.get("reason"));
        reason.map_or_else(
            || self.status.to_string(),
            |reason| {
                reason.as_str().map_or_else(|| reason.to_string(), |text| text.replace('\n', " ").trim().to_owned())
            },
        )
    }

    /// The answer that says so.
    #[must_use]
    pub(crate) fn into_answer(self) -> Answer {
        let answer = Answer::with(self.status, self.body.map_or(Content::None, Content::Json));
        if self.challenge {
            return answer.header(WWW_AUTHENTICATE, "Basic realm=\"RabbitMQ Management\"");
        }
        answer
    }
}
