//! The keys that tokens are signed with: JSON web key sets (RFC 7517), PEM files, shared secrets.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use super::{KeyOwner, TokenError};

/// No issuer has more keys in force.
const KEYS_MAX: usize = 256;
/// Bytes of the shortest RSA modulus: 2048 bits.
const MODULUS_MIN: usize = 256;
/// Bytes of the shortest shared secret; RFC 7518 asks for as many as the hash has.
const SECRET_MIN: usize = 32;
/// Characters of an unknown key's name in an error.
const NAME_SHOWN: usize = 64;

const RSA: [Algorithm; 6] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];
const HMAC: [Algorithm; 3] = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

/// Why a key or a set of keys cannot be used. It never contains a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("it is not a JSON web key set")]
    NotASet,
    #[error("it is neither a PEM public key nor a certificate, of RSA, P-256, P-384 or Ed25519")]
    NotPem,
    #[error("a shared secret has at least {SECRET_MIN} bytes")]
    ShortSecret,
}

/// Where a key set comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOrigin {
    /// Anybody may read it, so that a shared secret in it would be none.
    Public,
    /// A file of the operator's.
    Private,
}

/// A key, with the algorithms it may be used with: a public RSA key is never taken for a shared secret.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) decoding: DecodingKey,
    pub(super) algorithms: Vec<Algorithm>,
}

/// Keys by their name (`kid`); one without has the empty name.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: BTreeMap<String, Key>,
}

impl KeySet {
    /// Reads a JSON web key set. Keys that cannot be used are left out, each with a warning.
    pub fn parse(json: &[u8], origin: KeyOrigin) -> Result<(Self, Vec<String>), KeyError> {
        let parsed: Value = serde_json::from_slice(json).map_err(|_| KeyError::NotASet)?;
        let Some(Value::Array(list)) = parsed.get("keys") else { return Err(KeyError::NotASet) };
        let mut set = Self::default();
        let mut warnings = Vec::new();
        for (place, value) in list.iter().enumerate() {
            let name = value.get("kid").and_then(Value::as_str).unwrap_or_default();
            let problem = match json_key(value, origin) {
                Ok(_) if set.keys.len() >= KEYS_MAX => "there are too many keys",
                Ok(_) if set.keys.contains_key(name) => "there is another key of this name",
                Ok(key) => {
                    set.keys.insert(name.to_owned(), key);
                    continue;
                }
                Err(problem) => problem,
            };
            warnings.push(format!("key {place} ({:?}) is left out: {problem}", shown(name)));
        }
        Ok((set, warnings))
    }

    /// Adds the public key of a PEM file or certificate.
    pub fn add_pem(&mut self, name: &str, pem: &[u8]) -> Result<(), KeyError> {
        let key = pem_key(pem).ok_or(KeyError::NotPem)?;
        self.keys.insert(name.to_owned(), key);
        Ok(())
    }

    /// Adds a secret that is shared with the issuer.
    pub fn add_secret(&mut self, name: &str, secret: &[u8]) -> Result<(), KeyError> {
        if secret.len() < SECRET_MIN {
            return Err(KeyError::ShortSecret);
        }
        let key = Key { decoding: DecodingKey::from_secret(secret), algorithms: HMAC.to_vec() };
        self.keys.insert(name.to_owned(), key);
        Ok(())
    }

    /// Adds the keys of another set; those that are here already stay.
    pub fn add_all(&mut self, other: Self) {
        for (name, key) in other.keys {
            self.keys.entry(name).or_insert(key);
        }
    }

    /// The names of the keys.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// The key that a token names, else the default, else the only one there is. `owner` is whose keys these are.
    pub(super) fn find(&self, name: Option<&str>, default: Option<&str>, owner: &KeyOwner) -> Result<&Key, TokenError> {
        if let Some(name) = name.or(default) {
            return self.keys.get(name).ok_or_else(|| TokenError::UnknownKey(shown(name), owner.clone()));
        }
        let mut keys = self.keys.values();
        match (keys.next(), keys.next()) {
            (Some(key), None) => Ok(key),
            _ => Err(TokenError::NoKey(owner.clone())),
        }
    }
}

fn shown(name: &str) -> String {
    name.chars().take(NAME_SHOWN).collect()
}

fn json_key(value: &Value, origin: KeyOrigin) -> Result<Key, &'static str> {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    if text("use").is_some_and(|purpose| purpose != "sig") {
        return Err("it is not for signatures");
    }
    if let Some(Value::Array(operations)) = value.get("key_ops")
        && !operations.iter().any(|operation| operation == "verify")
    {
        return Err("it is not for signatures");
    }
    let (decoding, mut algorithms) = match text("kty") {
        Some("RSA") => {
            let (modulus, exponent) = (bytes(text("n"))?, bytes(text("e"))?);
            if modulus.iter().skip_while(|byte| **byte == 0).count() < MODULUS_MIN {
                return Err("an RSA key has at least 2048 bits");
            }
            (DecodingKey::from_rsa_raw_components(&modulus, &exponent), RSA.to_vec())
        }
        Some("EC") => {
            let (length, algorithm) = match text("crv") {
                Some("P-256") => (32, Algorithm::ES256),
                Some("P-384") => (48, Algorithm::ES384),
                _ => return Err("its curve is none of P-256 and P-384"),
            };
            let (x, y) = (bytes(text("x"))?, bytes(text("y"))?);
            if x.len() != length || y.len() != length {
                return Err("its coordinates have the wrong length");
            }
            (DecodingKey::from_ec_der(&[&[4], &*x, &*y].concat()), vec![algorithm])
        }
        Some("OKP") if text("crv") == Some("Ed25519") => {
            let x = bytes(text("x"))?;
            if x.len() != 32 {
                return Err("its coordinates have the wrong length");
            }
            (DecodingKey::from_ed_der(&x), vec![Algorithm::EdDSA])
        }
        Some("OKP") => return Err("its curve is not Ed25519"),
        Some("oct") if origin == KeyOrigin::Public => return Err("a shared secret must not be public"),
        Some("oct") => {
            let secret = bytes(text("k"))?;
            if secret.len() < SECRET_MIN {
                return Err("a shared secret has at least 32 bytes");
            }
            (DecodingKey::from_secret(&secret), HMAC.to_vec())
        }
        _ => return Err("its type is none of RSA, EC, OKP and oct"),
    };
    if let Some(name) = text("alg") {
        algorithms.retain(|algorithm| name.parse() == Ok(*algorithm));
        if algorithms.is_empty() {
            return Err("its algorithm is unknown or does not fit its type");
        }
    }
    Ok(Key { decoding, algorithms })
}

fn bytes(text: Option<&str>) -> Result<Vec<u8>, &'static str> {
    let text = text.ok_or("a part of it is missing")?;
    let decoded = URL_SAFE_NO_PAD.decode(text).or_else(|_| URL_SAFE.decode(text));
    decoded.map_err(|_| "a part of it is not base64url")
}

fn pem_key(pem: &[u8]) -> Option<Key> {
    if let Ok(decoding) = DecodingKey::from_rsa_pem(pem) {
        return Some(Key { decoding, algorithms: RSA.to_vec() });
    }
    if let Ok(decoding) = DecodingKey::from_ed_pem(pem) {
        return Some(Key { decoding, algorithms: vec![Algorithm::EdDSA] });
    }
    let decoding = DecodingKey::from_ec_pem(pem).ok()?;
    // An uncompressed point: one byte, then two coordinates.
    let algorithm = match decoding.try_get_as_bytes().ok()?.len() {
        65 => Algorithm::ES256,
        97 => Algorithm::ES384,
        _ => return None,
    };
    Some(Key { decoding, algorithms: vec![algorithm] })
}
