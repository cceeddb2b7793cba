//! `[[tls.certificates]]`: further certificates of the server.

use std::path::PathBuf;

use super::kind::{Directory, Kind, List, Secrets, Text};
use super::origin::Problems;
use super::raw::Raw;
use super::types::TlsCertificate;
use super::users::Fields;

/// One certificate with its key.
pub(crate) struct CertificateTable;

const KEYS: [&str; 3] = ["certificate_file", "key_file", "server_names"];
const SERVER_NAMES: List<Text> = List::of(Text::NAME);

impl Kind for CertificateTable {
    type Value = TlsCertificate;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<TlsCertificate> {
        let Some(fields) = Fields::of(key, raw, &KEYS, problems) else {
            self.refuse(key, raw, problems);
            return None;
        };
        let certificate_file = fields.required("certificate_file", &Directory, problems);
        let key_file = fields.required("key_file", &Directory, problems);
        let server_names = fields.optional("server_names", &SERVER_NAMES, problems)?.unwrap_or_default();
        Some(TlsCertificate { certificate_file: certificate_file?, key_file: key_file?, server_names })
    }

    fn write(&self, value: &TlsCertificate, secrets: Secrets) -> String {
        let file = |path: &PathBuf| Directory.write(path, secrets);
        format!(
            "{{ certificate_file = {}, key_file = {}, server_names = {} }}",
            file(&value.certificate_file),
            file(&value.key_file),
            SERVER_NAMES.write(&value.server_names, secrets),
        )
    }

    fn expects(&self) -> String {
        format!("a table with {}", KEYS.join(", "))
    }
}
