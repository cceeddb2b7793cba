//! Which web pages may use the API from a browser, and how long it is to insist on HTTPS: headers that the configuration
//! asks for.

use std::time::Duration;

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    HeaderMap, HeaderName, HeaderValue, ORIGIN, STRICT_TRANSPORT_SECURITY,
};

/// From the configuration.
#[derive(Clone, Debug, Default)]
pub struct Browsers {
    /// Origins, such as `https://console.example`, whose pages may use the API; `*` is any.
    pub allowed_origins: Vec<String>,
    /// How long a browser remembers what it may do; none leaves that to the browser.
    pub max_age: Option<Duration>,
    /// What `strict-transport-security` says; empty for none.
    pub transport_security: String,
}

const ANY: &str = "*";
/// What pages may read of an answer besides its body: where a new binding is, and what a download is called.
const EXPOSED: &str = "location, content-disposition";

/// The headers that a request asks for, whatever its answer is going to be.
pub(super) struct Asked {
    origin: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    /// It only asks what it may ask for.
    is_preflight: bool,
}

impl Asked {
    pub(super) fn of(headers: &HeaderMap, is_preflight: bool) -> Self {
        Self {
            origin: headers.get(ORIGIN).cloned(),
            headers: headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned(),
            is_preflight,
        }
    }
}

impl Browsers {
    /// Adds the headers for an answer; `methods` is what may be asked of the address.
    pub(super) fn add(&self, asked: &Asked, methods: &str, answer: &mut HeaderMap) {
        let mut put = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                answer.insert(name, value);
            }
        };
        if !self.transport_security.is_empty() {
            put(STRICT_TRANSPORT_SECURITY, &self.transport_security);
        }
        let Some(origin) = asked.origin.as_ref().and_then(|origin| origin.to_str().ok()) else { return };
        if self.allowed_origins.iter().any(|allowed| allowed == origin) {
            put(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            put(ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
        } else if self.allowed_origins.iter().any(|allowed| allowed == ANY) {
            // Any page at all may not use the login that the browser has kept: it has to bring its own.
            put(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
        } else {
            return;
        }
        put(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        if !asked.is_preflight {
            return;
        }
        put(ACCESS_CONTROL_ALLOW_METHODS, methods);
        if let Some(age) = self.max_age {
            put(ACCESS_CONTROL_MAX_AGE, &age.as_secs().to_string());
        }
        if let Some(headers) = asked.headers.as_ref().and_then(|headers| headers.to_str().ok()) {
            put(ACCESS_CONTROL_ALLOW_HEADERS, headers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(origins: &[&str], origin: Option<&str>, is_preflight: bool) -> HeaderMap {
        let browsers = Browsers {
            allowed_origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
            max_age: Some(Duration::from_secs(1800)),
            transport_security: "max-age=60".to_owned(),
        };
        let mut request = HeaderMap::new();
        if let Some(origin) = origin {
            request.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
            request.insert(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("authorization"));
        }
        let mut answer = HeaderMap::new();
        browsers.add(&Asked::of(&request, is_preflight), "GET, OPTIONS", &mut answer);
        answer
    }

    #[test]
    fn only_pages_of_allowed_origins_may_use_the_api() {
        let page = "https://console.example";
        let answer = answered(&[page], Some(page), false);
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], page);
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(answer[ACCESS_CONTROL_EXPOSE_HEADERS], EXPOSED);
        assert!(!answer.contains_key(ACCESS_CONTROL_MAX_AGE));
        for (origins, origin) in
            [(&[page][..], Some("https://console.example.evil")), (&[page], None), (&[], Some(page))]
        {
            assert!(!answered(origins, origin, true).contains_key(ACCESS_CONTROL_ALLOW_ORIGIN), "{origin:?}");
        }
    }

    #[test]
    fn a_preflight_is_told_what_it_may_ask_for() {
        let answer = answered(&["https://a.example"], Some("https://a.example"), true);
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_METHODS], "GET, OPTIONS");
        assert_eq!(answer[ACCESS_CONTROL_MAX_AGE], "1800");
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_HEADERS], "authorization");
    }

    #[test]
    fn any_page_has_to_bring_its_own_login() {
        let answer = answered(&["*"], Some("https://b.example"), false);
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!answer.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }

    #[test]
    fn browsers_may_be_told_to_insist_on_https() {
        assert_eq!(answered(&[], None, false)[STRICT_TRANSPORT_SECURITY], "max-age=60");
    }
}
