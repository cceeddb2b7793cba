//! What is to be imported as it arrives: a body or the field of a form, JSON, perhaps behind a byte order mark.

use serde_json::{Map, Value};

use super::super::answer::Failure;
use super::super::call::Call;

/// What some editors put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

fn boundary(call: &Call) -> Option<String> {
    let kind = call.headers.get(axum::http::header::CONTENT_TYPE)?.to_str().ok()?;
    let rest = kind.strip_prefix("multipart/form-data")?;
    let boundary = rest.split(';').find_map(|part| part.trim().strip_prefix("boundary="))?;
    Some(boundary.trim_matches('"').to_owned())
}

/// The body, or the field `file` of a form; nothing defines nothing.
pub(super) fn of_call(call: &Call) -> Result<Map<String, Value>, Failure> {
    let body = match boundary(call) {
        None => call.body.to_vec(),
        Some(boundary) => form_field(&call.body, &boundary, "file").unwrap_or_default(),
    };
    if without_mark(&body).trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    parse(&body).map_err(|_| Failure::bad_request("failed_to_parse_json"))
}

/// A JSON object. The error is for people.
pub(super) fn parse(text: &[u8]) -> Result<Map<String, Value>, String> {
    match serde_json::from_slice(without_mark(text)) {
        Ok(Value::Object(document)) => Ok(document),
        Ok(_) => Err("it is not a JSON object".to_owned()),
        Err(error) => Err(format!("it is not JSON: {error}")),
    }
}

fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// The content of a field of `multipart/form-data`.
fn form_field(body: &[u8], boundary: &str, name: &str) -> Option<Vec<u8>> {
    let delimiter = format!("--{boundary}");
    let mut rest = body;
    while let Some(at) = find(rest, delimiter.as_bytes()) {
        let part = rest.get(at + delimiter.len()..)?;
        let end = find(part, format!("\r\n{delimiter}").as_bytes()).unwrap_or(part.len());
        let (headers, content) = part.split_at(find(part, b"\r\n\r\n")?);
        let headers = String::from_utf8_lossy(headers);
        if headers.contains(&format!("name=\"{name}\"")) {
            return content.get(4..end.checked_sub(headers.len())?).map(<[u8]>::to_vec);
        }
        rest = part.get(end..)?;
    }
    None
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// The objects of one list of a document; none when it is not there.
pub(super) fn objects<'a>(document: &'a Map<String, Value>, key: &str) -> Result<Vec<&'a Map<String, Value>>, Failure> {
    match document.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => {
            let objects = list.iter().map(|item| {
                item.as_object().ok_or_else(|| Failure::bad_request(format!("{key} has something that is no object")))
            });
            objects.collect()
        }
        Some(_) => Err(Failure::bad_request(format!("{key} has to be a list"))),
    }
}

/// A text that an object has to have.
pub(super) fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a str, Failure> {
    object.get(key).and_then(Value::as_str).ok_or_else(|| Failure::keys_missing(&[key]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_fields() {
        let body = b"--xyz\r\nContent-Disposition: form-data; name=\"other\"\r\n\r\nno\r\n--xyz\r\n\
            Content-Disposition: form-data; name=\"file\"; filename=\"f.json\"\r\nContent-Type: application/json\r\n\r\n\
            {\"a\": 1}\r\n--xyz--\r\n";
        assert_eq!(form_field(body, "xyz", "file").as_deref(), Some(&b"{\"a\": 1}"[..]));
        assert_eq!(form_field(body, "xyz", "none"), None);
        assert_eq!(form_field(b"", "xyz", "file"), None);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        assert_eq!(parse(b"\xef\xbb\xbf{\"a\": 1}").map(|map| map.len()), Ok(1));
        assert!(parse(b"\xef\xbb\xbf\xef\xbb\xbf{}").is_err() && parse(b"[]").is_err());
    }
}
