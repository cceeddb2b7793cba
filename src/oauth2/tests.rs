//! Tokens made here, held to settings: every reason for a refusal, and what scopes allow. The keys in `tests/` are for
//! tests alone.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NOW_S: u64 = 1_800_000_000;
const NOW: Timestamp = Timestamp(NOW_S * 1000 + 500);
const SECRET: &[u8] = b"a secret of more than thirty-two bytes";

fn signing_key(algorithm: Algorithm) -> EncodingKey {
    match algorithm {
        Algorithm::ES256 => EncodingKey::from_ec_pem(include_bytes!("tests/ec.pem")),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(include_bytes!("tests/ed.pem")),
        Algorithm::HS256 => Ok(EncodingKey::from_secret(SECRET)),
        _ => EncodingKey::from_rsa_pem(include_bytes!("tests/rsa.pem")),
    }
    .unwrap()
}

/// A token with the claims, signed by the key that is called as its algorithm is.
fn token(algorithm: Algorithm, claims: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.kid = Some(format!("{algorithm:?}"));
    jsonwebtoken::encode(&header, claims, &signing_key(algorithm)).unwrap()
}

fn keys() -> KeySet {
    let mut keys = KeySet::default();
    keys.add_pem("RS256", include_bytes!("tests/rsa.pub.pem")).unwrap();
    keys.add_pem("PS256", include_bytes!("tests/rsa.cert.pem")).unwrap();
    keys.add_pem("ES256", include_bytes!("tests/ec.pub.pem")).unwrap();
    keys.add_pem("EdDSA", include_bytes!("tests/ed.pub.pem")).unwrap();
    keys.add_secret("HS256", SECRET).unwrap();
    keys
}

fn settings() -> VerifierSettings {
    VerifierSettings {
        resource_servers: vec![ResourceServer {
            issuers: vec!["https://issuer/".into()],
            ..ResourceServer::new("rabbitmq")
        }],
        separate_issuers: Vec::new(),
        algorithms: vec![Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA, Algorithm::HS256],
        default_key: None,
    }
}

/// Claims that are all right, with `changes` on top; null takes one away.
fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": "https://issuer", "aud": ["other", "rabbitmq"], "exp": NOW_S + 60, "sub": "ann",
        "scope": "rabbitmq.read:*/* rabbitmq.tag:monitoring openid",
    });
    let Value::Object(changes) = changes else { panic!("not an object") };
    for (name, value) in changes {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(&name);
        } else {
            claims[name] = value;
        }
    }
    claims
}

fn verify_with(settings: VerifierSettings, claims: &Value) -> Result<Grant, TokenError> {
    Verifier::new(settings, keys()).verify(token(Algorithm::ES256, claims).as_bytes(), NOW)
}

fn verify(changes: Value) -> Result<Grant, TokenError> {
    verify_with(settings(), &claims(changes))
}

/// Of a token with these scopes, without their prefix.
fn grant(scopes: &[&str]) -> Grant {
    let scopes: Vec<String> = scopes.iter().map(|scope| format!("rabbitmq.{scope}")).collect();
    verify(json!({ "scope": scopes })).unwrap()
}

#[test]
fn every_kind_of_key_verifies() {
    let verifier = Verifier::new(settings(), keys());
    for algorithm in settings().algorithms {
        let token = token(algorithm, &claims(json!({})));
        let grant = verifier.verify(token.as_bytes(), NOW).unwrap();
        assert_eq!((grant.user().as_str(), grant.tags()), ("ann", &["monitoring".to_owned()][..]));
        assert_eq!(grant.expires(), Timestamp((NOW_S + 60) * 1000));
        assert!(grant.allows("/", Action::Read, "q") && !grant.allows("/", Action::Write, "q"));
        // One bit of the signature, and another payload.
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let flipped = if signature.starts_with('A') { 'B' } else { 'A' };
        let forged = format!("{signed}.{flipped}{}", &signature[1..]);
        assert_eq!(
            verifier.verify(forged.as_bytes(), NOW),
            Err(TokenError::Signature(KeyOwner::Shared)),
            "{algorithm:?}"
        );
        let other = self::token(algorithm, &claims(json!({ "sub": "root" })));
        let mixed = format!("{}.{signature}", other.rsplit_once('.').unwrap().0);
        assert_eq!(
            verifier.verify(mixed.as_bytes(), NOW),
            Err(TokenError::Signature(KeyOwner::Shared)),
            "{algorithm:?}"
        );
    }
}

#[test]
fn claims_are_checked() {
    let cases = [
        (json!({ "exp": NOW_S + 1 }), None),
        (json!({ "exp": NOW_S as f64 + 1.5 }), None),
        (json!({ "exp": NOW_S }), Some(TokenError::Expired(NOW_S))),
        (json!({ "exp": null }), Some(TokenError::NoExpiry)),
        (json!({ "exp": "never" }), Some(TokenError::NoExpiry)),
        (json!({ "exp": -5 }), Some(TokenError::NoExpiry)),
        (json!({ "exp": 1e300 }), Some(TokenError::NoExpiry)),
        (json!({ "nbf": NOW_S + LEEWAY_S }), None),
        (json!({ "nbf": NOW_S + LEEWAY_S + 1 }), Some(TokenError::NotYetValid(NOW_S + LEEWAY_S + 1))),
        (json!({ "nbf": "later" }), Some(TokenError::Malformed("its nbf is no time"))),
        (json!({ "iss": "https://issuer/" }), None),
        (json!({ "iss": "https://other" }), Some(TokenError::Issuer)),
        (json!({ "iss": null }), Some(TokenError::Issuer)),
        (json!({ "iss": ["https://issuer"] }), Some(TokenError::Issuer)),
        (json!({ "aud": "rabbitmq" }), None),
        (json!({ "aud": "x rabbitmq" }), None),
        (json!({ "aud": "rabbit" }), Some(TokenError::Audience)),
        (json!({ "aud": null }), Some(TokenError::Audience)),
        (json!({ "aud": 7 }), Some(TokenError::Audience)),
        (json!({ "sub": null }), Some(TokenError::NoUser)),
        (json!({ "sub": "" }), Some(TokenError::NoUser)),
        (json!({ "sub": "x".repeat(256) }), Some(TokenError::NoUser)),
        (json!({ "sub": null, "client_id": "app" }), None),
        (json!({ "scope": vec!["rabbitmq.tag:x"; claims::SCOPES_MAX + 1] }), Some(TokenError::TooManyScopes)),
    ];
    for (changes, error) in cases {
        assert_eq!(verify(changes.clone()).err(), error, "{changes}");
    }
}

#[test]
fn algorithms_and_keys_are_not_mixed_up() {
    let verifier = Verifier::new(settings(), keys());
    let claims = claims(json!({}));
    let verify = |header: &Header, key: &EncodingKey| {
        let token = jsonwebtoken::encode(header, &claims, key).unwrap();
        verifier.verify(token.as_bytes(), NOW).unwrap_err()
    };
    // The public key as if it were a shared secret.
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("RS256".into());
    let public = EncodingKey::from_secret(include_bytes!("tests/rsa.pub.pem"));
    assert_eq!(verify(&header, &public), TokenError::Algorithm);
    header.kid = Some("nobody".into());
    assert_eq!(verify(&header, &public), TokenError::UnknownKey("nobody".into(), KeyOwner::Shared));
    header.kid = None;
    assert_eq!(verify(&header, &public), TokenError::NoKey(KeyOwner::Shared));
    // What the settings do not list.
    assert_eq!(verify(&Header::new(Algorithm::RS512), &signing_key(Algorithm::RS512)), TokenError::Algorithm);
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some("ES256".into());
    header.crit = Some(vec!["b64".into()]);
    let critical = TokenError::Malformed("it has critical extensions");
    assert_eq!(verify(&header, &signing_key(Algorithm::ES256)), critical);
    // No signature at all.
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    for name in ["none", "None", "HS1", ""] {
        let unsigned = format!("{}.{}.", part(json!({ "alg": name, "kid": "ES256" })), part(claims.clone()));
        let refused = verifier.verify(unsigned.as_bytes(), NOW);
        assert_eq!(refused, Err(TokenError::Malformed("its header")), "{name}");
    }
}

#[test]
fn a_token_without_key_name_takes_the_default() {
    let token =
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims(json!({})), &signing_key(Algorithm::ES256));
    let token = token.unwrap();
    let with_default = VerifierSettings { default_key: Some("ES256".into()), ..settings() };
    assert!(Verifier::new(with_default, keys()).verify(token.as_bytes(), NOW).is_ok());
    let mut only = KeySet::default();
    only.add_pem("any", include_bytes!("tests/ec.pub.pem")).unwrap();
    let verifier = Verifier::new(settings(), only);
    assert!(verifier.verify(token.as_bytes(), NOW).is_ok());
    // Keys that are gone verify nothing any more.
    verifier.set_keys(&KeyOwner::Shared, KeySet::default());
    assert_eq!(verifier.verify(token.as_bytes(), NOW), Err(TokenError::NoKey(KeyOwner::Shared)));
}

/// Key sets of two issuers, and one for the rest. Two of the keys have the same name.
#[test]
fn keys_of_issuers_are_kept_apart() {
    let set = |name: &str, pem: &[u8]| {
        let mut keys = KeySet::default();
        keys.add_pem(name, pem).unwrap();
        keys
    };
    let [one, other] = ["https://one", "https://other/"].map(|issuer| KeyOwner::Issuer(issuer.into()));
    let mut settings = settings();
    settings.resource_servers[0].issuers =
        ["https://one", "https://other/", "https://third"].map(str::to_owned).to_vec();
    settings.separate_issuers = ["https://one", "https://other/"].map(str::to_owned).to_vec();
    let verifier = Verifier::new(settings.clone(), set("RS256", include_bytes!("tests/rsa.pub.pem")));
    let verify = |algorithm, issuer: Value| {
        verifier.verify(token(algorithm, &claims(json!({ "iss": issuer }))).as_bytes(), NOW).map(|_| ())
    };
    assert_eq!(
        verify(Algorithm::ES256, json!("https://one")),
        Err(TokenError::UnknownKey("ES256".into(), one.clone()))
    );
    verifier.set_keys(&one, set("ES256", include_bytes!("tests/ec.pub.pem")));
    verifier.set_keys(&other, set("EdDSA", include_bytes!("tests/ed.pub.pem")));
    verifier.set_keys(&KeyOwner::Issuer("https://third".into()), set("ES256", include_bytes!("tests/ec.pub.pem")));
    let unknown = |name: &str, owner: &KeyOwner| Err(TokenError::UnknownKey(name.into(), owner.clone()));
    let cases = [
        (Algorithm::ES256, json!("https://one"), Ok(())),
        (Algorithm::ES256, json!("https://one//"), Ok(())),
        (Algorithm::EdDSA, json!("https://other"), Ok(())),
        (Algorithm::RS256, json!("https://third"), Ok(())),
        (Algorithm::ES256, json!("https://other"), unknown("ES256", &other)),
        (Algorithm::EdDSA, json!("https://one"), unknown("EdDSA", &one)),
        (Algorithm::RS256, json!("https://one"), unknown("RS256", &one)),
        (Algorithm::ES256, json!("https://third"), unknown("ES256", &KeyOwner::Shared)),
        (Algorithm::ES256, json!("https://nobody"), Err(TokenError::Issuer)),
        (Algorithm::ES256, json!(["https://one"]), Err(TokenError::Issuer)),
        (Algorithm::ES256, Value::Null, Err(TokenError::Issuer)),
    ];
    for (algorithm, issuer, expected) in cases {
        assert_eq!(verify(algorithm, issuer.clone()), expected, "{algorithm:?} {issuer}");
    }
    // A key of one's own that is called as the other's is.
    verifier.set_keys(&other, set("ES256", include_bytes!("tests/ec.other.pub.pem")));
    let refused = verify(Algorithm::ES256, json!("https://other")).unwrap_err();
    assert_eq!(refused, TokenError::Signature(other));
    assert_eq!(refused.to_string(), "its signature is wrong for its issuer \"https://other/\"");
    // Without a list all are accepted, but not those that are kept apart for others.
    settings.resource_servers[0].issuers.clear();
    let open = Verifier::new(settings, keys());
    let verify =
        |issuer: Value| open.verify(token(Algorithm::ES256, &claims(json!({ "iss": issuer }))).as_bytes(), NOW);
    assert!(verify(Value::Null).is_ok() && verify(json!("https://nobody")).is_ok());
    open.set_keys(&one, keys());
    assert_eq!(verify(json!("https://one")).err(), Some(TokenError::Issuer));
}

/// Each is trusted with the resource servers it is named for.
#[test]
fn resource_servers_have_their_own_issuers() {
    let mut settings = settings();
    let other = ResourceServer { issuers: vec!["https://other".into()], ..ResourceServer::new("other") };
    settings.resource_servers.push(other);
    settings.separate_issuers = vec!["https://other".into()];
    let verifier = Verifier::new(settings, keys());
    verifier.set_keys(&KeyOwner::Issuer("https://other".into()), keys());
    for (iss, aud, expected) in [
        ("https://issuer", "rabbitmq", None),
        ("https://other", "other", None),
        ("https://other", "rabbitmq", Some(TokenError::Issuer)),
        ("https://issuer", "other", Some(TokenError::Issuer)),
        ("https://nobody", "other", Some(TokenError::Issuer)),
        ("https://other", "nobody", Some(TokenError::Audience)),
    ] {
        let token = token(Algorithm::ES256, &claims(json!({ "iss": iss, "aud": aud })));
        assert_eq!(verifier.verify(token.as_bytes(), NOW).err(), expected, "{iss} {aud}");
    }
}

#[test]
fn scopes_allow_what_they_name() {
    let grant = grant(&[
        "read:prod%2Feu/orders*",
        "write:*/amq.default",
        "configure:{vhost}/{sub}.*",
        "tag:a",
        "bad",
        "read:x",
        "read:a/b/c/d",
        "delete:*/*",
    ]);
    assert!(grant.allows("prod/eu", Action::Read, "orders.1") && !grant.allows("prod", Action::Read, "orders.1"));
    assert!(!grant.allows("prod/eu", Action::Write, "orders.1") && !grant.allows("prod/eu", Action::Read, "order"));
    assert!(grant.allows("any", Action::Write, "amq.default") && !grant.allows("any", Action::Write, "x"));
    assert!(grant.allows("any", Action::Configure, "ann.q") && !grant.allows("any", Action::Configure, "bob.q"));
    assert!(!grant.allows("a", Action::Read, "b"));
    assert!(grant.allows_vhost("any") && grant.tags() == ["a"]);
    let narrow = self::grant(&["read:v*/q", "tag:administrator"]);
    assert!(narrow.allows_vhost("v1") && !narrow.allows_vhost("/"));
    assert!(!self::grant(&[]).allows_vhost("/"));
}

#[test]
fn topics_need_a_scope_with_a_key() {
    let grant = grant(&["write:*/events/news.{sub}.*", "read:*/*"]);
    assert!(grant.allows_topic("/", Action::Write, "events", "news.ann.1"));
    assert!(!grant.allows_topic("/", Action::Write, "events", "news.bob.1"));
    assert!(!grant.allows_topic("/", Action::Write, "other", "news.ann.1"));
    assert!(!grant.allows_topic("/", Action::Read, "events", "x"));
    assert!(grant.allows("/", Action::Write, "events"));
}

#[test]
fn scopes_are_found_in_other_claims() {
    let mut server = ResourceServer::new("rabbitmq");
    server.additional_scopes_keys = ["roles", "realm.access.roles", "https://x.y/roles"].map(str::to_owned).to_vec();
    server.scope_aliases.insert("dev".into(), vec!["rabbitmq.read:dev/*".into(), "rabbitmq.tag:management".into()]);
    server.kind = "rabbit".into();
    let settings = VerifierSettings { resource_servers: vec![server], ..settings() };
    let allows = |changes: Value, vhost: &str| {
        let changes = [("scope".to_owned(), Value::Null)].into_iter().chain(changes.as_object().cloned().unwrap());
        verify_with(settings.clone(), &claims(changes.collect())).unwrap().allows(vhost, Action::Read, "q")
    };
    assert!(!allows(json!({}), "a"));
    assert!(allows(json!({ "scope": ["rabbitmq.read:a/*"] }), "a"));
    assert!(allows(json!({ "roles": "x rabbitmq.read:a/*" }), "a"));
    assert!(allows(json!({ "roles": { "rabbitmq": ["read:a/*"], "other": ["read:b/*"] } }), "a"));
    assert!(!allows(json!({ "roles": { "rabbitmq": ["read:a/*"], "other": ["read:b/*"] } }), "b"));
    assert!(allows(json!({ "realm": { "access": [{ "roles": ["rabbitmq.read:a/*"] }] } }), "a"));
    assert!(allows(json!({ "https://x.y/roles": ["dev"] }), "dev"));
    let party = json!({ "permissions": [{ "scopes": ["rabbitmq.read:a/*"] }, 3, { "scopes": "rabbitmq.read:b/*" }] });
    assert!(allows(json!({ "authorization": party.clone() }), "a") && allows(json!({ "authorization": party }), "b"));
    let detail = |kind: &str, cluster: &str| {
        json!({ "authorization_details": [{ "type": kind, "actions": ["read", "fly"],
            "locations": [format!("cluster:{cluster}/vhost:a/queue:q*")] }] })
    };
    assert!(allows(detail("rabbit", "rabbit*"), "a") && !allows(detail("rabbit", "rabbit*"), "b"));
    assert!(!allows(detail("rabbit", "else"), "a") && !allows(detail("mail", "*"), "a"));
}

#[test]
fn the_audience_chooses_the_resource_server() {
    let mut settings = settings();
    settings.resource_servers.push(ResourceServer { scope_prefix: "api://".into(), ..ResourceServer::new("other") });
    let verify = |settings: &VerifierSettings, aud: Value, scope: &str| {
        let grant = verify_with(settings.clone(), &claims(json!({ "aud": aud, "scope": scope })))?;
        Ok(grant.allows("/", Action::Read, "q"))
    };
    assert_eq!(verify(&settings, json!("other"), "api://read:*/*"), Ok(true));
    assert_eq!(verify(&settings, json!("rabbitmq"), "api://read:*/*"), Ok(false));
    assert_eq!(verify(&settings, json!(["other", "rabbitmq"]), ""), Err(TokenError::Ambiguous));
    settings.resource_servers[1].audience = Audience::Ignored;
    assert_eq!(verify(&settings, json!("nobody"), "api://read:*/*"), Ok(true));
    settings.resource_servers[0].audience = Audience::Ignored;
    assert_eq!(verify(&settings, json!(null), "api://read:*/*"), Err(TokenError::Audience));
}

#[test]
fn introspected_tokens_are_held_to_the_same() {
    let verifier = Verifier::new(settings(), KeySet::default());
    let ask = |changes: Value| {
        let mut claims = claims(json!({ "active": true }));
        claims.as_object_mut().unwrap().extend(changes.as_object().cloned().unwrap());
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        verifier.introspected(claims.to_string().as_bytes(), NOW)
    };
    let grant = ask(json!({})).unwrap();
    assert_eq!((grant.user().as_str(), grant.expires()), ("ann", Timestamp((NOW_S + 60) * 1000)));
    assert!(grant.allows("/", Action::Read, "q") && !grant.allows("/", Action::Write, "q"));
    assert_eq!(ask(json!({ "sub": null, "username": "bob", "client_id": "app" })).unwrap().user().as_str(), "bob");
    assert_eq!(ask(json!({ "username": "bob" })).unwrap().user().as_str(), "ann");
    let null =
        br#"{"active": true, "aud": "rabbitmq", "iss": "https://issuer", "exp": 1e12, "sub": null, "username": "bob"}"#;
    assert_eq!(verifier.introspected(null, NOW).unwrap().user().as_str(), "bob");
    assert_eq!(ask(json!({ "sub": null, "client_id": "app" })).unwrap().user().as_str(), "app");
    for (changes, error) in [
        (json!({ "active": false }), TokenError::Inactive),
        (json!({ "active": null }), TokenError::NoVerdict),
        (json!({ "active": "true" }), TokenError::NoVerdict),
        (json!({ "active": 1 }), TokenError::NoVerdict),
        (json!({ "exp": null }), TokenError::NoExpiry),
        (json!({ "exp": NOW_S }), TokenError::Expired(NOW_S)),
        (json!({ "nbf": NOW_S + 3600 }), TokenError::NotYetValid(NOW_S + 3600)),
        (json!({ "aud": null }), TokenError::Audience),
        (json!({ "iss": "https://other" }), TokenError::Issuer),
        (json!({ "iss": null }), TokenError::Issuer),
        (json!({ "sub": null }), TokenError::NoUser),
        (json!({ "sub": 7, "username": "bob" }), TokenError::NoUser),
    ] {
        assert_eq!(ask(changes.clone()), Err(error), "{changes}");
    }
    for answer in ["", "true", "[]", "{}", "{\"active\": true", "eyJ.e30.AAAA"] {
        assert_eq!(verifier.introspected(answer.as_bytes(), NOW), Err(TokenError::NoVerdict), "{answer}");
    }
    assert_eq!(verifier.introspected(b"{\"active\": false}", NOW), Err(TokenError::Inactive));
}

#[test]
fn opaque_tokens_are_told_from_others() {
    let signed = token(Algorithm::ES256, &claims(json!({})));
    for jwt in [&*signed, "e30.e30.", "..", "a-_.b.c"] {
        assert!(is_json_web_token(jwt.as_bytes()), "{jwt}");
    }
    for opaque in ["", "2YotnFZFEjr1zCsicMWpAA", "a.b", "a.b.c.d.e", "a.b+.c", "a.b.c=", "a b.c.d"] {
        assert!(!is_json_web_token(opaque.as_bytes()), "{opaque}");
    }
}

#[test]
fn key_sets_are_read() {
    let jwk = |algorithm: Algorithm| {
        let mut jwk = Jwk::from_encoding_key(&signing_key(algorithm), algorithm).unwrap();
        jwk.common.key_id = Some(format!("{algorithm:?}"));
        serde_json::to_value(jwk).unwrap()
    };
    let good = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA].map(jwk);
    let changed = |mut key: Value, name: &str, value: Value| {
        key["kid"] = json!("changed");
        key[name] = value;
        key
    };
    let bad = [
        (json!({ "kty": "EC", "crv": "P-521", "kid": "p521" }), "its curve is none of P-256 and P-384"),
        (json!({ "kty": "OKP", "crv": "X25519" }), "its curve is not Ed25519"),
        (json!({ "kty": "magic" }), "its type is none of RSA, EC, OKP and oct"),
        (json!("text"), "its type is none of RSA, EC, OKP and oct"),
        (changed(good[0].clone(), "use", json!("enc")), "it is not for signatures"),
        (changed(good[0].clone(), "key_ops", json!(["encrypt"])), "it is not for signatures"),
        (changed(good[0].clone(), "alg", json!("RSA-OAEP")), "its algorithm is unknown or does not fit its type"),
        (changed(good[1].clone(), "alg", json!("RS256")), "its algorithm is unknown or does not fit its type"),
        (changed(good[0].clone(), "n", json!("AQAB")), "an RSA key has at least 2048 bits"),
        (changed(good[0].clone(), "n", json!("!")), "a part of it is not base64url"),
        (changed(good[1].clone(), "x", json!("AQAB")), "its coordinates have the wrong length"),
        (changed(good[2].clone(), "x", Value::Null), "a part of it is missing"),
        (good[0].clone(), "there is another key of this name"),
        (json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET) }), "a shared secret must not be public"),
    ];
    let list: Vec<Value> = good.iter().cloned().chain(bad.iter().map(|(key, _)| key.clone())).collect();
    let json = json!({ "keys": list }).to_string();
    let (set, warnings) = KeySet::parse(json.as_bytes(), KeyOrigin::Public).unwrap();
    assert_eq!(warnings.len(), bad.len(), "{warnings:?}");
    for (warning, (_, problem)) in warnings.iter().zip(&bad) {
        assert!(warning.ends_with(problem), "{warning}");
    }
    let verifier = Verifier::new(settings(), set);
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        assert!(verifier.verify(token(algorithm, &claims(json!({}))).as_bytes(), NOW).is_ok(), "{algorithm:?}");
    }
    let private =
        json!({ "keys": [{ "kty": "oct", "kid": "HS256", "k": URL_SAFE_NO_PAD.encode(SECRET) }] }).to_string();
    verifier.set_keys(&KeyOwner::Shared, KeySet::parse(private.as_bytes(), KeyOrigin::Private).unwrap().0);
    assert!(verifier.verify(token(Algorithm::HS256, &claims(json!({}))).as_bytes(), NOW).is_ok());
    for text in ["", "[]", "{}", r#"{"keys": 3}"#] {
        assert_eq!(KeySet::parse(text.as_bytes(), KeyOrigin::Public).err(), Some(KeyError::NotASet), "{text}");
    }
}

#[test]
fn pem_keys_are_read() {
    let mut keys = KeySet::default();
    keys.add_pem("p384", include_bytes!("tests/ec384.pub.pem")).unwrap();
    assert_eq!(keys.add_pem("p521", include_bytes!("tests/ec521.pub.pem")), Err(KeyError::NotPem));
    assert_eq!(keys.add_pem("x", b"-----BEGIN X-----"), Err(KeyError::NotPem));
    assert_eq!(keys.add_secret("x", b"short"), Err(KeyError::ShortSecret));
    assert_eq!(keys.names().collect::<Vec<_>>(), ["p384"]);
}

#[test]
fn nothing_secret_is_shown() {
    let verifier = Verifier::new(settings(), keys());
    let shown = format!("{verifier:?}");
    assert!(!shown.contains("secret of more") && shown.contains("redacted"), "{shown}");
}

proptest! {
    #[test]
    fn no_token_panics(token in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Verifier::new(settings(), keys()).verify(&token, NOW).is_err());
    }

    #[test]
    fn no_answer_panics(answer in prop::collection::vec(any::<u8>(), 0..200), name in "[a-z]{1,9}", value in ".{0,9}") {
        let verifier = Verifier::new(settings(), keys());
        prop_assert!(verifier.introspected(&answer, NOW).is_err());
        let made = json!({ "active": true, name: value }).to_string();
        prop_assert!(verifier.introspected(made.as_bytes(), NOW).is_err());
    }

    /// Headers and claims of any form, rightly signed.
    #[test]
    fn no_claims_panic(scope in ".{0,40}", path in "[a-z.]{0,12}", name in "[a-z]{1,8}", exp in any::<f64>(), aud in ".{0,9}") {
        let claims = json!({ "exp": exp, "nbf": exp, "aud": [aud, 1, "rabbitmq"], "iss": "https://issuer", "sub": name,
            "scope": ["rabbitmq.read:", scope.clone(), format!("rabbitmq.read:{scope}/{scope}"), 7],
            name: { "a": [[scope.clone()], { "b": scope }] } });
        let mut settings = settings();
        settings.resource_servers[0].additional_scopes_keys = vec![path];
        if let Ok(grant) = verify_with(settings, &claims) {
            let _ = grant.allows("/", Action::Read, "q");
        }
    }

    #[test]
    fn no_header_panics(header in ".{0,80}", algorithm in "(none|HS256|ES256|RS256|EdDSA)", kid in ".{0,20}") {
        let (raw, made) = (header.clone(), json!({ "alg": algorithm, "kid": kid, "x": header }).to_string());
        for header in [raw, made] {
            let token = format!("{}.e30.AAAA", URL_SAFE_NO_PAD.encode(header));
            prop_assert!(Verifier::new(settings(), keys()).verify(token.as_bytes(), NOW).is_err());
        }
    }
}
