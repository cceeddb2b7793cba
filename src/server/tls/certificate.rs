//! What certificates say: subjects in RabbitMQ's form of RFC 4514, names, validity.

use std::net::{Ipv4Addr, Ipv6Addr};

use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, ProtocolVersion, ServerConnection};
use x509_parser::asn1_rs::{Any, Tag};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::asn1_rs::FromDer;
use x509_parser::extensions::GeneralName;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::config;
use crate::model::tls::{AlternativeName, PeerCertificate, TlsFacts};

/// Names of attributes as RabbitMQ writes them; others are written as numbers.
const ATTRIBUTES: [(&str, &str); 17] = [
    ("2.5.4.4", "SN"),
    ("2.5.4.42", "GIVENNAME"),
    ("2.5.4.43", "INITIALS"),
    ("2.5.4.44", "GENERATIONQUALIFIER"),
    (COMMON_NAME, "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "TITLE"),
    ("2.5.4.6", "C"),
    ("2.5.4.5", "SERIALNUMBER"),
    ("2.5.4.65", "PSEUDONYM"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "EMAILADDRESS"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

const COMMON_NAME: &str = "2.5.4.3";

/// Version, cipher suite and certificate of a connection whose handshake is over.
pub(super) fn facts(connection: &ServerConnection) -> TlsFacts {
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "tlsv1.3",
        _ => "tlsv1.2",
    };
    let suite = connection.negotiated_cipher_suite().map(|suite| suite.suite());
    let (key_exchange, cipher, hash) = suite.map_or(("", "", ""), parts);
    let leaf = connection.peer_certificates().and_then(<[_]>::first);
    TlsFacts { version, key_exchange, cipher, hash, peer: leaf.and_then(read) }
}

/// Key exchange, cipher and hash as Erlang names them.
fn parts(suite: CipherSuite) -> (&'static str, &'static str, &'static str) {
    use CipherSuite as Suite;
    const ECDSA: &str = "ecdhe_ecdsa";
    const RSA: &str = "ecdhe_rsa";
    let (key_exchange, cipher) = match suite {
        Suite::TLS13_AES_256_GCM_SHA384 => ("any", "aes_256_gcm"),
        Suite::TLS13_AES_128_GCM_SHA256 => ("any", "aes_128_gcm"),
        Suite::TLS13_CHACHA20_POLY1305_SHA256 => ("any", "chacha20_poly1305"),
        Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => (ECDSA, "aes_256_gcm"),
        Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => (ECDSA, "aes_128_gcm"),
        Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => (ECDSA, "chacha20_poly1305"),
        Suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => (RSA, "aes_256_gcm"),
        Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => (RSA, "aes_128_gcm"),
        Suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => (RSA, "chacha20_poly1305"),
        _ => ("", ""),
    };
    (key_exchange, cipher, "aead")
}

/// What a certificate says; None if it cannot be read.
pub(super) fn read(der: &CertificateDer<'_>) -> Option<PeerCertificate> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    let common_names = certificate.subject().iter().flat_map(|part| part.iter());
    let common_names = common_names.filter(|attribute| attribute.attr_type().to_id_string() == COMMON_NAME);
    Some(PeerCertificate {
        subject: distinguished_name(certificate.subject()),
        issuer: distinguished_name(certificate.issuer()),
        validity: format!("{} - {}", time(validity.not_before), time(validity.not_after)),
        serial_number: serial_number(certificate.raw_serial()),
        common_names: common_names.map(|attribute| lossy(&value(attribute))).collect(),
        alternative_names: alternative_names(&certificate),
    })
}

/// The `index`th alternative name of one kind.
pub(super) fn alternative_name(peer: &PeerCertificate, kind: config::AlternativeName, index: usize) -> Option<String> {
    use config::AlternativeName as NameKind;
    let mut of_kind = peer.alternative_names.iter().filter_map(|name| match (kind, name) {
        (NameKind::Dns, AlternativeName::Dns(text))
        | (NameKind::Ip, AlternativeName::Ip(text))
        | (NameKind::Email, AlternativeName::Email(text))
        | (NameKind::Uri, AlternativeName::Uri(text))
        | (NameKind::OtherName, AlternativeName::Other(text)) => Some(text),
        _ => None,
    });
    of_kind.nth(index).cloned()
}

/// When the certificate begins and ends to be valid, in seconds since 1970.
pub(super) fn validity(der: &CertificateDer<'_>) -> Option<(i64, i64)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<AlternativeName> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(text) => Some(AlternativeName::Dns((*text).to_owned())),
        GeneralName::RFC822Name(text) => Some(AlternativeName::Email((*text).to_owned())),
        GeneralName::URI(text) => Some(AlternativeName::Uri((*text).to_owned())),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(|bytes| Ipv4Addr::from(bytes).to_string());
            let six = || <[u8; 16]>::try_from(*bytes).map(|bytes| Ipv6Addr::from(bytes).to_string());
            four.or_else(|_| six()).ok().map(AlternativeName::Ip)
        }
        GeneralName::OtherName(_, bytes) => Some(AlternativeName::Other(other_name(bytes))),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}

/// The text in the value of an otherName, which may be wrapped in its explicit tag.
fn other_name(bytes: &[u8]) -> String {
    match Any::from_der(bytes) {
        Ok((_, any)) if any.tag() == Tag(0) => other_name(any.data),
        Ok((_, any)) => lossy(&text(&any)),
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// A number without leading zeros.
fn serial_number(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    match digits.trim_start_matches('0') {
        "" => "0".to_owned(),
        digits => digits.to_owned(),
    }
}

fn time(time: ASN1Time) -> String {
    let time = time.to_datetime();
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// By RFC 4514: the last part of the name first.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let part = |part: &x509_parser::x509::RelativeDistinguishedName<'_>| {
        let attributes: Vec<String> = part.iter().map(attribute).collect();
        attributes.join("+")
    };
    let parts: Vec<String> = name.iter().map(part).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let number = attribute.attr_type().to_id_string();
    let known = ATTRIBUTES.iter().find(|(known, _)| *known == number);
    format!("{}={}", known.map_or(number.as_str(), |(_, name)| name), escape(&value(attribute)))
}

fn value(attribute: &AttributeTypeAndValue<'_>) -> Vec<u8> {
    text(attribute.attr_value())
}

/// A string of any of ASN.1's types as UTF-8. What claims to be UTF-8 is not checked.
fn text(any: &Any<'_>) -> Vec<u8> {
    let wide = |width: usize| {
        let code = |bytes: &[u8]| bytes.iter().fold(0, |code: u32, byte| code << 8 | u32::from(*byte));
        let characters = any.data.chunks(width).map(code);
        characters.map(|code| char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)).collect::<String>()
    };
    match any.tag() {
        Tag::T61String => wide(1).into_bytes(),
        Tag::BmpString => wide(2).into_bytes(),
        Tag::UniversalString => wide(4).into_bytes(),
        _ => any.data.to_vec(),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A value inside a distinguished name. All but printable ASCII becomes the hexadecimal digits of its bytes, and the tilde
/// too, as RabbitMQ has it: user names rely on it.
fn escape(value: &[u8]) -> String {
    let mut escaped = String::with_capacity(value.len());
    for (index, byte) in value.iter().enumerate() {
        let is_first = index == 0;
        let is_last = index + 1 == value.len();
        match byte {
            b' ' if is_first || is_last => escaped.push_str("\\ "),
            b'#' if is_first => escaped.push_str("\\#"),
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => escaped.extend(['\\', char::from(*byte)]),
            32..126 => escaped.push(char::from(*byte)),
            _ => escaped.push_str(&format!("\\{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_as_rabbitmq_does() {
        for (value, escaped) in [
            ("client", "client"),
            ("Widgets, Ltd.", "Widgets\\, Ltd."),
            (" a b ", "\\ a b\\ "),
            ("#1 #2", "\\#1 #2"),
            ("a+b;c<d>e\"f\\g", "a\\+b\\;c\\<d\\>e\\\"f\\\\g"),
            ("Müller~", "M\\C3\\BCller\\7E"),
            ("a\u{0}b", "a\\00b"),
            (" ", "\\ "),
            ("", ""),
        ] {
            assert_eq!(escape(value.as_bytes()), escaped, "{value:?}");
        }
    }
}
