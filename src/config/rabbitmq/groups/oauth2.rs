//! Tokens: `auth_oauth2.*`, its providers and its further resource servers.

use super::super::super::origin::Origin;
use super::super::super::raw::{Raw, RawEntry, RawValue};
use super::super::conf::{Line, escaped};
use super::super::value::boolean;
use super::super::{Translator, Unit};

/// The claims that RabbitMQ looks at behind those that are named.
const USUAL_CLAIMS: [&str; 2] = ["sub", "client_id"];

pub(super) fn translate(translator: &mut Translator<'_>) {
    keys(translator);
    let top = "auth_oauth2";
    if let Some((origin, value)) = scope_keys(translator, top) {
        translator.set("oauth2.additional_scopes_keys", origin, value);
    }
    if let Some((origin, value)) = scope_aliases(translator, top) {
        translator.set("oauth2.scope_aliases", origin, value);
    }
    if let Some((origin, value)) = claims(translator, top) {
        translator.set("oauth2.username_claims", origin, value);
    }
    resource_servers(translator);
}

/// Where the keys are. The provider that counts without being named stands for the keys outside of the providers.
fn keys(translator: &mut Translator<'_>) {
    let conf = translator.conf;
    let providers = conf.names_under("auth_oauth2.oauth_providers");
    let is_outside =
        ["issuer", "jwks_uri", "jwks_url"].iter().any(|key| conf.get(&format!("auth_oauth2.{key}")).is_some());
    let chosen = match conf.get("auth_oauth2.default_oauth_provider") {
        Some(line) if !providers.contains(&line.value) => {
            translator.refuse(line, &format!("there is no auth_oauth2.oauth_providers.{}", line.value));
            return;
        }
        Some(line) => Some(line.value.clone()),
        None if !is_outside && providers.len() == 1 => providers.first().cloned(),
        None => None,
    };
    let place = chosen
        .as_ref()
        .map_or_else(|| "auth_oauth2".to_owned(), |name| format!("auth_oauth2.oauth_providers.{}", escaped(name)));
    provider(translator, &place);
    for other in providers.iter().filter(|name| Some(*name) != chosen.as_ref()) {
        further_provider(translator, &place, other);
    }
}

fn provider(translator: &mut Translator<'_>, place: &str) {
    let conf = translator.conf;
    let key = |name: &str| conf.get(&format!("{place}.{name}"));
    let jwks = key("jwks_uri").or_else(|| key("jwks_url"));
    if let Some(line) = jwks {
        translator.apply(line, "oauth2.jwks_uri", Unit::Text);
    } else if let Some(line) = key("issuer")
        && let Some(issuer) = translator.text(line)
    {
        // RabbitMQ asks the issuer where its keys are, and does nothing else with it.
        translator.set_list("oauth2.issuers", line.origin.clone(), vec![(line.origin.clone(), issuer)]);
    }
    for (name, path) in [("default_key", "oauth2.default_key"), ("https.cacertfile", "oauth2.cacertfile")] {
        if let Some(line) = key(name) {
            translator.apply(line, path, Unit::Text);
        }
    }
    let algorithms = translator.list(&format!("{place}.algorithms"));
    if let Some(origin) = algorithms.first().map(|(line, _)| line.origin.clone()) {
        let texts = algorithms.into_iter().map(|(line, text)| (line.origin.clone(), text)).collect();
        translator.set_list("oauth2.algorithms", origin, texts);
    }
    let keys = translator.list(&format!("{place}.signing_keys"));
    let entries: Vec<RawEntry> =
        keys.into_iter().map(|(line, text)| entry(line, line.last(), RawValue::Text(text))).collect();
    if let Some(origin) = entries.first().map(|entry| entry.origin.clone()) {
        translator.set("oauth2.signing_keys", origin, RawValue::Table(entries));
    }
}

/// A provider besides the first: its keys are found through its issuer, by whoever asks for its tokens.
fn further_provider(translator: &mut Translator<'_>, first: &str, name: &str) {
    let conf = translator.conf;
    let place = format!("auth_oauth2.oauth_providers.{}", escaped(name));
    let authority = conf.get(&format!("{first}.https.cacertfile")).map(|line| &line.value);
    let issuer = conf.get(&format!("{place}.issuer"));
    let prefix = format!("{place}.");
    for line in conf.lines().filter(|line| line.name().starts_with(&prefix)) {
        let rest = line.name()[prefix.len()..].to_owned();
        match rest.split('.').next().unwrap_or_default() {
            "jwks_uri" | "jwks_url" | "signing_keys" => {
                let instead = match issuer {
                    Some(_) => "of several providers, the keys are found through the issuer: take this key away",
                    None => "of several providers, the keys are found through the issuer: write issuer in its place",
                };
                translator.refuse(line, instead);
            }
            "https" if rest == "https.cacertfile" && Some(&line.value) != authority => {
                let instead = "all providers' certificates are checked with one file: put the authorities into one";
                translator.refuse(line, instead);
            }
            "default_key" | "algorithms" => translator.no_effect(line, "they are those of the first provider"),
            _ => {}
        }
    }
}

fn resource_servers(translator: &mut Translator<'_>) {
    let conf = translator.conf;
    let mut servers = Vec::new();
    for name in conf.names_under("auth_oauth2.resource_servers") {
        let place = format!("auth_oauth2.resource_servers.{}", escaped(&name));
        let prefix = format!("{place}.");
        let Some(first) =
            conf.lines().filter(|line| line.name().starts_with(&prefix)).min_by_key(|line| line.origin.clone())
        else {
            continue;
        };
        let id = match conf.get(&format!("{place}.id")) {
            Some(line) => match translator.text(line) {
                Some(id) => id,
                None => continue,
            },
            None => name,
        };
        servers.push(RawEntry {
            name: id,
            origin: first.origin.clone(),
            value: Raw { origin: first.origin.clone(), value: RawValue::Table(resource_server(translator, &place)) },
        });
    }
    if let Some(origin) = servers.first().map(|entry| entry.origin.clone()) {
        translator.set("oauth2.resource_servers", origin, RawValue::Table(servers));
    }
}

fn resource_server(translator: &mut Translator<'_>, place: &str) -> Vec<RawEntry> {
    let conf = translator.conf;
    let mut entries = Vec::new();
    for name in ["scope_prefix", "resource_server_type"] {
        if let Some(line) = conf.get(&format!("{place}.{name}"))
            && let Some(text) = translator.text(line)
        {
            entries.push(entry(line, name, RawValue::Text(text)));
        }
    }
    if let Some(line) = conf.get(&format!("{place}.verify_aud")) {
        match boolean(&line.value) {
            Ok(value) => entries.push(entry(line, "verify_aud", RawValue::Boolean(value))),
            Err(expected) => translator.unreadable(line, &expected),
        }
    }
    let groups = [
        ("additional_scopes_keys", scope_keys(translator, place)),
        ("scope_aliases", scope_aliases(translator, place)),
        ("username_claims", claims(translator, place)),
        ("issuers", issuer_of(translator, place)),
    ];
    for (name, group) in groups {
        entries.extend(group.map(|(origin, value)| RawEntry {
            name: name.to_owned(),
            origin: origin.clone(),
            value: Raw { origin, value },
        }));
    }
    entries
}

/// The issuer of the provider that a resource server names.
fn issuer_of(translator: &mut Translator<'_>, place: &str) -> Option<(Origin, RawValue)> {
    let conf = translator.conf;
    let line = conf.get(&format!("{place}.oauth_provider_id"))?;
    let provider = format!("auth_oauth2.oauth_providers.{}", escaped(&line.value));
    if conf.names_under("auth_oauth2.oauth_providers").contains(&line.value) {
        // A provider with keys of its own has them for everybody.
        let issuer = conf.get(&format!("{provider}.issuer"))?;
        let text = translator.text(issuer)?;
        let element = Raw { origin: issuer.origin.clone(), value: RawValue::Text(text) };
        return Some((line.origin.clone(), RawValue::List(vec![element])));
    }
    translator.refuse(line, &format!("there is no {provider}"));
    None
}

/// The claims that have scopes: RabbitMQ takes several, with blanks between them.
fn scope_keys(translator: &mut Translator<'_>, place: &str) -> Option<(Origin, RawValue)> {
    let line = translator.conf.get(&format!("{place}.additional_scopes_key"))?;
    let text = translator.text(line)?;
    let element = |key: &str| Raw { origin: line.origin.clone(), value: RawValue::Text(key.to_owned()) };
    Some((line.origin.clone(), RawValue::List(text.split_whitespace().map(element).collect())))
}

/// `scope_aliases.NAME = scopes`, or `scope_aliases.1.alias` with `scope_aliases.1.scope`.
fn scope_aliases(translator: &mut Translator<'_>, place: &str) -> Option<(Origin, RawValue)> {
    let conf = translator.conf;
    let key = format!("{place}.scope_aliases");
    let named = translator.list(&key);
    let mut entries: Vec<RawEntry> =
        named.into_iter().map(|(line, text)| entry(line, line.last(), RawValue::Text(text))).collect();
    for index in conf.names_under(&key) {
        let part = |name: &str| conf.get(&format!("{key}.{}.{name}", escaped(&index)));
        match (part("alias"), part("scope")) {
            (Some(alias), Some(scope)) => {
                if let (Some(name), Some(text)) = (translator.text(alias), translator.text(scope)) {
                    entries.push(entry(scope, &name, RawValue::Text(text)));
                }
            }
            (Some(line), None) => translator.refuse(line, "its scope is missing"),
            (None, Some(line)) => translator.refuse(line, "its alias is missing"),
            (None, None) => {}
        }
    }
    let origin = entries.first()?.origin.clone();
    Some((origin, RawValue::Table(entries)))
}

fn claims(translator: &mut Translator<'_>, place: &str) -> Option<(Origin, RawValue)> {
    let lines = translator.list(&format!("{place}.preferred_username_claims"));
    let origin = lines.first()?.0.origin.clone();
    let mut names: Vec<Raw> = Vec::new();
    let usual = USUAL_CLAIMS.iter().map(|name| (origin.clone(), (*name).to_owned()));
    let named = lines.into_iter().map(|(line, text)| (line.origin.clone(), text));
    for (origin, name) in named.chain(usual) {
        if names.iter().all(|other| other.text() != Some(&name)) {
            names.push(Raw { origin, value: RawValue::Text(name) });
        }
    }
    Some((origin, RawValue::List(names)))
}

fn entry(line: &Line, name: &str, value: RawValue) -> RawEntry {
    RawEntry { name: name.to_owned(), origin: line.origin.clone(), value: Raw { origin: line.origin.clone(), value } }
}
