//! What a new broker has, and who knows its users.

use std::collections::BTreeMap;

use super::super::super::origin::Origin;
use super::super::super::raw::RawValue;
use super::super::super::types::{AuthBackend, Choice};
use super::super::conf::Line;
use super::super::value::boolean;
use super::super::{Translator, Unit};

pub(super) fn translate(translator: &mut Translator<'_>) {
    names_that_are_true(translator, "default_user_tags", "defaults.tags");
    loopback_users(translator);
    default_queue_type(translator);
    definitions(translator);
    backends(translator);
    credential_validator(translator);
    origins(translator);
}

/// `default_user_tags.administrator = true`: the names below the key whose value is true.
fn names_that_are_true(translator: &mut Translator<'_>, key: &str, path: &'static str) {
    let lines = translator.list(key);
    let Some(origin) = lines.first().map(|(line, _)| line.origin.clone()) else { return };
    let mut names = Vec::new();
    for (line, text) in lines {
        match boolean(&text) {
            Ok(true) => names.push((line.origin.clone(), line.part(1).to_owned())),
            Ok(false) => {}
            Err(expected) => translator.unreadable(line, &expected),
        }
    }
    translator.set_list(path, origin, names);
}

/// Where some are named, nobody else is limited to this host, not even guest.
fn loopback_users(translator: &mut Translator<'_>) {
    match translator.conf.get("loopback_users") {
        Some(line) if line.value == "none" => {
            translator.set_list("defaults.loopback_only", line.origin.clone(), Vec::new());
        }
        Some(line) => translator.refuse(line, "expected none; a user is written as loopback_users.guest = true"),
        None => names_that_are_true(translator, "loopback_users", "defaults.loopback_only"),
    }
}

fn default_queue_type(translator: &mut Translator<'_>) {
    let Some(line) = translator.conf.get("default_queue_type") else { return };
    match line.value.as_str() {
        "classic" | "rabbit_classic_queue" => {
            translator.set("queues.default_type", line.origin.clone(), RawValue::Text("classic".to_owned()));
        }
        "quorum" | "rabbit_quorum_queue" => {
            translator.refuse(line, "there are no quorum queues in this version: write classic");
        }
        "stream" | "rabbit_stream_queue" => {
            translator.refuse(line, "there are no streams in this version: write classic")
        }
        _ => translator.unreadable(line, "expected classic"),
    }
}

/// The file or directory of definitions: one, whatever it is called.
fn definitions(translator: &mut Translator<'_>) {
    let conf = translator.conf;
    if let Some(line) = conf.get("definitions.import_backend") {
        let files = ["local_filesystem", "local_file", "rabbit_definitions_import_local_filesystem"];
        if !files.contains(&line.value.as_str()) {
            let instead = "definitions are read from files alone: write local_filesystem, and definitions.local.path";
            translator.refuse(line, instead);
        }
    }
    let keys = ["load_definitions", "definitions.local.path", "management.load_definitions"];
    let mut lines = keys.iter().filter_map(|key| conf.get(key));
    let Some(first) = lines.next() else { return };
    for other in lines.filter(|other| other.value != first.value) {
        let message =
            format!("{} names definitions as well: put the files into one directory, and name that", first.name());
        translator.refuse(other, &message);
    }
    translator.apply(first, "definitions.load", Unit::Text);
}

/// A name or a module of a backend as it is called here. The cache is that of what it caches.
fn backend(translator: &mut Translator<'_>, line: &Line, role: &str) -> Option<&'static str> {
    let short = line.value.strip_prefix("rabbit_auth_backend_").unwrap_or(&line.value);
    match short {
        "internal" => Some("internal"),
        "oauth" | "oauth2" => Some("oauth2"),
        "http" => Some("http"),
        "cache" => {
            let conf = translator.conf;
            let whole = conf.get("auth_cache.cached_backend");
            let cached = conf.get(&format!("auth_cache.cached_backend.{role}")).or(whole);
            match cached.filter(|cached| !cached.value.ends_with("cache")) {
                Some(cached) => backend(translator, cached, role),
                None => Some("internal"),
            }
        }
        "ldap" => {
            translator.refuse(line, "there is no LDAP in this version: write internal, oauth2 or http");
            None
        }
        _ => {
            translator.unreadable(line, "expected internal, oauth2, http or cache");
            None
        }
    }
}

fn backends(translator: &mut Translator<'_>) {
    let mut chain: Vec<(Origin, String)> = Vec::new();
    for place in translator.conf.names_under("auth_backends") {
        let conf = translator.conf;
        let line = |role: &str| conf.get(&format!("auth_backends.{place}{role}"));
        let (both, authn, authz) = (line(""), line(".authn"), line(".authz"));
        let Some(first) = both.or(authn).or(authz) else { continue };
        if place.parse::<u64>().is_err() {
            translator.refuse(first, "the place in the chain is a number: auth_backends.1");
            continue;
        }
        // What is left out is as the other.
        let authz = authz.or(both).unwrap_or(first);
        // What is wrong with both is told once.
        let Some(authn) = backend(translator, authn.unwrap_or(first), "authn") else { continue };
        let Some(authz) = backend(translator, authz, "authz") else { continue };
        let name = if authn == authz { authn.to_owned() } else { format!("{authn}+{authz}") };
        if AuthBackend::ALL.iter().all(|backend| backend.name() != name) {
            let all: Vec<&str> = AuthBackend::ALL.iter().map(Choice::name).filter(|name| name.contains('+')).collect();
            let message = format!("{authn} with {authz} does not exist; the pairs are {}", all.join(", "));
            translator.refuse(first, &message);
        } else if chain.iter().all(|(_, other)| *other != name) {
            chain.push((first.origin.clone(), name));
        }
    }
    if let Some((origin, _)) = chain.first().cloned() {
        translator.set_list("auth.backends", origin, chain);
    }
}

/// The rules for passwords hold only where the backend for them is chosen.
fn credential_validator(translator: &mut Translator<'_>) {
    let conf = translator.conf;
    let chosen = conf.get("credential_validator.validation_backend");
    let name = chosen.map(|line| line.value.rsplit("credential_validator_").next().unwrap_or(&line.value));
    let rules: BTreeMap<&str, (&str, &'static str, Unit)> = BTreeMap::from([
        ("min_password_length", ("credential_validator.min_length", "auth.password_min_length", Unit::Count)),
        ("password_regexp", ("credential_validator.regexp", "auth.password_pattern", Unit::Text)),
    ]);
    if let (Some(line), Some(name)) = (chosen, name)
        && name != "accept_everything"
        && !rules.contains_key(name)
    {
        translator.refuse(line, "there is no such rule for passwords: write rabbit_credential_validator_min_password_length, \
                                 rabbit_credential_validator_password_regexp or rabbit_credential_validator_accept_everything");
    }
    for (rule, (key, path, unit)) in rules {
        let Some(line) = conf.get(key) else { continue };
        if name == Some(rule) {
            translator.apply(line, path, unit);
        } else {
            translator.no_effect(line, "credential_validator.validation_backend chooses another rule, or none");
        }
    }
}

/// Whose web pages may use the API.
fn origins(translator: &mut Translator<'_>) {
    let lines = translator.list("management.cors.allow_origins");
    if let Some(none) = translator.conf.get("management.cors.allow_origins") {
        if none.value != "none" {
            translator.refuse(
                none,
                "expected none; an origin is written as management.cors.allow_origins.1 = https://x.example",
            );
        }
        return;
    }
    if let Some(origin) = lines.first().map(|(line, _)| line.origin.clone()) {
        let texts = lines.into_iter().map(|(line, text)| (line.origin.clone(), text)).collect();
        translator.set_list("management.cors_allow_origins", origin, texts);
    }
}
