//! Which web pages may use the API from a browser, and how long it is to insist on HTTPS: headers that the configuration
//! asks for.

use std::time::Duration;

use axum::http::Method;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, STRICT_TRANSPORT_SECURITY,
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

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
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

/// What a form on any web page can send without asking: types of content for which a browser makes no preflight request.
const SENT_BY_FORMS: [&str; 3] = ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"];

/// Whether a browser says that a request comes from a page of another site. Programs that are no browsers say nothing.
fn comes_from_elsewhere(headers: &HeaderMap) -> bool {
    // Pages cannot set either header.
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let authority = |origin: &str| origin.split_once("://").map(|(scheme, rest)| with_port(rest, scheme == "https"));
    let origin = origin.to_str().ok().and_then(authority);
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else { return true };
    // Whether the page's scheme is this listener's is not known behind a proxy: the name and the port are what counts.
    !origin.is_some_and(|origin| origin == with_port(host, false) || origin == with_port(host, true))
}

/// A name in small letters, and a port.
fn with_port(authority: &str, is_https: bool) -> String {
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let port = if is_https { ":443" } else { ":80" };
    format!("{}{}", authority.to_ascii_lowercase(), if has_port { "" } else { port })
}

/// The type that the content is said to have, without parameters, in small letters.
pub(super) fn content_type(headers: &HeaderMap) -> Option<String> {
    let kind = headers.get(CONTENT_TYPE)?.to_str().unwrap_or_default();
    Some(kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

impl Browsers {
    /// Whether a request that would change something comes from a web page that may not: a browser sends the login that it
    /// has kept along with whatever a page asks for.
    pub(super) fn forbid(&self, method: &Method, headers: &HeaderMap) -> bool {
        if !comes_from_elsewhere(headers) {
            return false;
        }
        let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()).unwrap_or_default();
        if self.allowed_origins.iter().any(|allowed| allowed == origin && allowed != ANY) {
            return false;
        }
        // Any page may ask, but not with a login that the browser has kept; for anything but what a form sends, the browser
        // sees to that.
        let is_open = self.allowed_origins.iter().any(|allowed| allowed == ANY);
        let kind = content_type(headers);
        let is_checked = method != Method::POST || kind.is_some_and(|kind| !SENT_BY_FORMS.contains(&kind.as_str()));
        !(is_open && is_checked)
    }

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
    fn other_sites_change_nothing() {
        const FORM: &str = "text/plain";
        const JSON: &str = "application/json; charset=utf-8";
        let forbidden = |allowed: &[&str], method: Method, headers: &[(&'static str, &str)]| {
            let browsers = Browsers {
                allowed_origins: allowed.iter().map(|origin| (*origin).to_owned()).collect(),
                ..Browsers::default()
            };
            let mut map = HeaderMap::new();
            map.insert(HOST, HeaderValue::from_static("broker.example:15672"));
            for (name, value) in headers {
                map.insert(*name, HeaderValue::from_str(value).unwrap());
            }
            browsers.forbid(&method, &map)
        };
        let own = ("origin", "http://Broker.example:15672");
        let page = ("origin", "https://page.example");
        type Case<'a> = (bool, &'a [&'a str], Method, &'a [(&'static str, &'a str)]);
        let cases: [Case<'_>; 17] = [
            (false, &[], Method::POST, &[]),
            (false, &[], Method::POST, &[own]),
            (true, &[], Method::POST, &[page]),
            (true, &[], Method::DELETE, &[page]),
            (true, &[], Method::POST, &[("origin", "null")]),
            (true, &[], Method::POST, &[("origin", "http://broker.example")]),
            (true, &[], Method::POST, &[("origin", "http://broker.example:15672.evil.example")]),
            // A proxy may have changed the host: the browser knows better.
            (false, &[], Method::POST, &[page, ("sec-fetch-site", "same-origin")]),
            (false, &[], Method::POST, &[("sec-fetch-site", "none")]),
            (true, &[], Method::POST, &[("sec-fetch-site", "cross-site")]),
            (true, &[], Method::POST, &[own, ("sec-fetch-site", "same-site")]),
            (false, &["https://page.example"], Method::POST, &[page, ("sec-fetch-site", "cross-site")]),
            (true, &["https://other.example"], Method::POST, &[page]),
            (false, &["*"], Method::POST, &[page, ("content-type", JSON)]),
            (false, &["*"], Method::PUT, &[page]),
            (true, &["*"], Method::POST, &[page, ("content-type", FORM)]),
            (true, &["*"], Method::POST, &[page]),
        ];
        for (expected, allowed, method, headers) in cases {
            assert_eq!(forbidden(allowed, method.clone(), headers), expected, "{allowed:?} {method} {headers:?}");
        }
        assert_eq!(with_port("[::1]", true), "[::1]:443");
        assert_eq!(with_port("[::1]:15671", true), "[::1]:15671");
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
