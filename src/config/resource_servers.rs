//! `oauth2.resource_servers`: what further resource servers have of their own.

use super::kind::{Boolean, Kind, List, Secrets, Table, Text};
use super::origin::Problems;
use super::raw::Raw;
use super::types::FurtherResourceServer;
use super::users::Fields;

/// One further resource server: a table, or its scope prefix alone.
pub(crate) struct ResourceServerTable;

const KEYS: [&str; 7] = [
    "issuers",
    "resource_server_type",
    "scope_prefix",
    "additional_scopes_keys",
    "scope_aliases",
    "username_claims",
    "verify_aud",
];
/// Of no issuers and no claims there could be no token.
const SOME: List<Text> = List { of: Text::NAME, least: 1 };
const NAMES: List<Text> = List::of(Text::NAME);
const ALIASES: Table<Text> = Table(Text::ANY);

impl Kind for ResourceServerTable {
    type Value = FurtherResourceServer;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<FurtherResourceServer> {
        if let Some(prefix) = raw.text() {
            let scope_prefix = (!prefix.is_empty()).then(|| prefix.to_owned());
            return Some(FurtherResourceServer { scope_prefix, ..FurtherResourceServer::default() });
        }
        let Some(fields) = Fields::of(key, raw, &KEYS, problems) else {
            self.refuse(key, raw, problems);
            return None;
        };
        // Each is read, for the mistakes in all of them, before one that failed spoils the whole.
        let issuers = fields.optional("issuers", &SOME, problems);
        let resource_server_type = fields.optional("resource_server_type", &Text::NAME_OR_EMPTY, problems);
        let scope_prefix = fields.optional("scope_prefix", &Text::ANY, problems);
        let additional_scopes_keys = fields.optional("additional_scopes_keys", &NAMES, problems);
        let scope_aliases = fields.optional("scope_aliases", &ALIASES, problems);
        let username_claims = fields.optional("username_claims", &SOME, problems);
        let verify_aud = fields.optional("verify_aud", &Boolean, problems);
        Some(FurtherResourceServer {
            issuers: issuers?,
            resource_server_type: resource_server_type?,
            scope_prefix: scope_prefix?,
            additional_scopes_keys: additional_scopes_keys?,
            scope_aliases: scope_aliases?,
            username_claims: username_claims?,
            verify_aud: verify_aud?,
        })
    }

    fn write(&self, value: &FurtherResourceServer, secrets: Secrets) -> String {
        let fields = [
            field("issuers", &SOME, value.issuers.as_ref(), secrets),
            field("resource_server_type", &Text::ANY, value.resource_server_type.as_ref(), secrets),
            field("scope_prefix", &Text::ANY, value.scope_prefix.as_ref(), secrets),
            field("additional_scopes_keys", &NAMES, value.additional_scopes_keys.as_ref(), secrets),
            field("scope_aliases", &ALIASES, value.scope_aliases.as_ref(), secrets),
            field("username_claims", &SOME, value.username_claims.as_ref(), secrets),
            field("verify_aud", &Boolean, value.verify_aud.as_ref(), secrets),
        ];
        let fields: Vec<String> = fields.into_iter().flatten().collect();
        if fields.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", fields.join(", ")) }
    }

    fn expects(&self) -> String {
        format!("a table with any of {}; or a scope prefix", KEYS.join(", "))
    }
}

fn field<K: Kind>(name: &str, kind: &K, value: Option<&K::Value>, secrets: Secrets) -> Option<String> {
    value.map(|value| format!("{name} = {}", kind.write(value, secrets)))
}
