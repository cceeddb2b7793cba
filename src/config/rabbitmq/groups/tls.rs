//! `ssl_options` and what logs in with a certificate.

use super::super::super::origin::Origin;
use super::super::super::raw::RawValue;
use super::super::super::types::{Choice, Mechanism, TlsCipher};
use super::super::{Translator, Unit};

pub(super) fn translate(translator: &mut Translator<'_>) {
    let verifies = verify(translator);
    for (key, path) in [("ssl_options.certfile", "tls.certificate_file"), ("ssl_options.keyfile", "tls.key_file")] {
        if let Some(line) = translator.conf.get(key) {
            translator.apply(line, path, Unit::Text);
        }
    }
    versions(translator);
    ciphers(translator);
    login_from(translator);
    mechanisms(translator, verifies);
}

/// Whether clients are asked for certificates.
fn verify(translator: &mut Translator<'_>) -> bool {
    let Some(line) = translator.conf.get("ssl_options.verify") else { return false };
    let verifies = match line.value.as_str() {
        "verify_peer" => true,
        "verify_none" => false,
        _ => {
            translator.unreadable(line, "expected verify_peer or verify_none");
            return false;
        }
    };
    let name = if verifies { "peer" } else { "none" };
    translator.set("tls.verify", line.origin.clone(), RawValue::Text(name.to_owned()));
    verifies
}

fn versions(translator: &mut Translator<'_>) {
    let mut versions = Vec::new();
    let lines = translator.list("ssl_options.versions");
    let first = lines.first().map(|(line, _)| *line);
    for (line, text) in lines {
        match text.as_str() {
            "tlsv1.3" => versions.push((line.origin.clone(), "1.3".to_owned())),
            "tlsv1.2" => versions.push((line.origin.clone(), "1.2".to_owned())),
            "tlsv1.1" | "tlsv1" | "sslv3" => translator.no_effect(line, "there is no TLS before 1.2"),
            _ => translator.unreadable(line, "expected tlsv1.3 or tlsv1.2"),
        }
    }
    match (first, versions.first().cloned()) {
        (_, Some((origin, _))) => translator.set_list("tls.versions", origin, versions),
        (Some(line), None) => translator.refuse(line, "no version is left: write tlsv1.2 or tlsv1.3"),
        (None, None) => {}
    }
}

fn ciphers(translator: &mut Translator<'_>) {
    let lines = translator.list("ssl_options.ciphers");
    let first = lines.first().map(|(line, _)| *line);
    let mut ciphers: Vec<(Origin, String)> = Vec::new();
    for (line, text) in lines {
        if TlsCipher::ALL.iter().any(|cipher| cipher.name() == text) {
            ciphers.push((line.origin.clone(), text));
        } else {
            translator.no_effect(
                line,
                "there is no such cipher suite: old ones are left out, others go by their OpenSSL names",
            );
        }
    }
    match (first, ciphers.first().cloned()) {
        (_, Some((origin, _))) => translator.set_list("tls.ciphers", origin, ciphers),
        (Some(line), None) => {
            let all: Vec<&str> = TlsCipher::ALL.iter().map(Choice::name).collect();
            translator.refuse(line, &format!("no cipher suite is left: there are {}", all.join(", ")));
        }
        (None, None) => {}
    }
}

fn login_from(translator: &mut Translator<'_>) {
    let Some(line) = translator.conf.get("ssl_cert_login_from") else { return };
    let name = match line.value.as_str() {
        name @ ("distinguished_name" | "common_name" | "subject_alternative_name") => name,
        "subject_alt_name" => "subject_alternative_name",
        _ => {
            return translator.unreadable(line, "expected distinguished_name, common_name or subject_alternative_name");
        }
    };
    translator.set("tls.login_from", line.origin.clone(), RawValue::Text(name.to_owned()));
}

/// The ways to log in. Without `verify_peer` RabbitMQ offers EXTERNAL to nobody either.
fn mechanisms(translator: &mut Translator<'_>, verifies: bool) {
    let lines = translator.list("auth_mechanisms");
    let first = lines.first().map(|(line, _)| *line);
    let mut mechanisms: Vec<(Origin, String)> = Vec::new();
    for (line, text) in lines {
        if text == "EXTERNAL" && !verifies {
            translator.no_effect(line, "EXTERNAL needs the clients' certificates: ssl_options.verify = verify_peer");
        } else if Mechanism::ALL.iter().all(|mechanism| mechanism.name() != text) {
            let all: Vec<&str> = Mechanism::ALL.iter().map(Choice::name).collect();
            translator.unreadable(line, &format!("expected one of {}", all.join(", ")));
        } else if mechanisms.iter().all(|(_, other)| *other != text) {
            mechanisms.push((line.origin.clone(), text));
        }
    }
    anonymous(translator, &mut mechanisms);
    match (first, mechanisms.first().cloned()) {
        (_, Some((origin, _))) => translator.set_list("amqp.mechanisms", origin, mechanisms),
        (Some(line), None) => translator.refuse(line, "nobody could log in: write PLAIN as well"),
        (None, None) => {}
    }
}

/// Who logs in anonymously is the default user here; `none` turns that off.
fn anonymous(translator: &mut Translator<'_>, mechanisms: &mut Vec<(Origin, String)>) {
    let Some(line) = translator.conf.get("anonymous_login_user") else { return };
    let default_user = translator.conf.get("default_user").map_or("guest", |line| line.value.as_str());
    if line.value == "none" {
        mechanisms.retain(|(_, name)| name != "ANONYMOUS");
    } else if line.value != default_user && mechanisms.iter().any(|(_, name)| name == "ANONYMOUS") {
        let message =
            format!("a client that logs in with ANONYMOUS is the default user: write {default_user}, or none");
        translator.refuse(line, &message);
    }
}
