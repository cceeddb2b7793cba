//! Certificates and logins from a certificate with everything in it; HTTPS handshakes with certificates made on the spot.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;

use super::*;
use crate::config::{AlternativeName as NameKind, Config};
use crate::model::tls::AlternativeName;

/// RabbitMQ 4.3.6 was asked what it makes of this certificate.
const EVERYTHING: &[u8] = include_bytes!("everything.pem");

/// A directory of its own for each test, gone when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("warren-tls-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a directory in the temporary one");
        Self(path)
    }

    /// Makes a certificate that signs itself, with its key; both files have the name.
    fn certificate(&self, name: &str, host: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = (self.0.join(format!("{name}.pem")), self.0.join(format!("{name}.key")));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90"])
            .args(["-subj", &format!("/CN={host}"), "-addext", &format!("subjectAltName=DNS:{host}")])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-out")
            .arg(&certificate)
            .arg("-keyout")
            .arg(&key)
            .output()
            .expect("openssl runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        (certificate, key)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn settings(certificate: &Path, key: &Path) -> config::Tls {
    config::Tls {
        certificate_file: Some(certificate.to_owned()),
        key_file: Some(key.to_owned()),
        ..Config::default().tls
    }
}

fn refusal(settings: &config::Tls) -> String {
    Tls::open(settings, "tls").err().expect("the files are refused").to_string()
}

fn everything() -> TlsFacts {
    let der = CertificateDer::from_pem_slice(EVERYTHING).expect("a certificate");
    let peer = certificate::read(&der);
    TlsFacts { version: "tlsv1.3", key_exchange: "any", cipher: "aes_256_gcm", hash: "aead", peer }
}

#[test]
fn names_are_written_as_rabbitmq_does() {
    let peer = everything().peer.expect("the certificate can be read");
    // RabbitMQ writes Erlang's inner form of a value whose attribute Erlang does not know (UID, STREET, 2.3.4).
    let unknown = "2.3.4=unknown,STREET=Main,";
    let rest = "SN=Sur,TITLE=T,SERIALNUMBER=77,DC=dc1,UID=u1,EMAILADDRESS=a@b.example,CN=second,CN=first,\
                OU=a\\+b\\;\\<c\\>\\\\\\7E,O=\\#Org \\\"X\\\",L=M\\C3\\BCn\\,chen,ST=\\ Bayern\\ ,C=DE";
    assert_eq!(peer.subject, format!("{unknown}{rest}"));
    assert_eq!(peer.issuer, peer.subject);
    assert_eq!(peer.validity, "2026-11-21T07:51:24Z - 2126-10-28T07:51:24Z");
    assert_eq!(peer.serial_number, "7143E6AED194369CEC38748B1F426A565BCBE3A2");
    assert_eq!(peer.common_names, ["first", "second"]);
    let text = |text: &str| text.to_owned();
    let expected = [
        AlternativeName::Dns(text("d1.example")),
        AlternativeName::Dns(text("d2.example")),
        AlternativeName::Email(text("me@x.example")),
        AlternativeName::Uri(text("spiffe://x/y")),
        AlternativeName::Ip(text("10.1.2.3")),
        AlternativeName::Ip(text("2001:db8::1")),
        AlternativeName::Other(text("other name")),
        AlternativeName::Other(text("fourteen chars")),
    ];
    assert_eq!(peer.alternative_names, expected);
}

#[test]
fn a_certificate_is_a_login() {
    let directory = Directory::new();
    let (certificate, key) = directory.certificate("server", "localhost");
    let login = |change: fn(&mut config::Tls), facts: &TlsFacts| {
        let mut settings = settings(&certificate, &key);
        settings.verify = TlsVerify::Peer;
        settings.ca_file = Some(certificate.clone());
        change(&mut settings);
        Tls::open(&settings, "tls").expect("good files").expect("TLS is on").external_login(facts)
    };
    let named = |name: &str| Some(Ok(name.into()));
    let facts = everything();
    let subject = facts.peer.as_ref().map_or("", |peer| &peer.subject).to_owned();
    assert_eq!(login(|_| {}, &facts), named(&subject));
    assert_eq!(login(|tls| tls.login_from = LoginFrom::CommonName, &facts), named("first,second"));
    assert_eq!(login(|tls| tls.login_from = LoginFrom::AlternativeName, &facts), named("d1.example"));
    let second = |tls: &mut config::Tls| {
        tls.login_from = LoginFrom::AlternativeName;
        tls.login_san_index = 1;
    };
    assert_eq!(login(second, &facts), named("d2.example"));
    let third = |tls: &mut config::Tls| {
        tls.login_from = LoginFrom::AlternativeName;
        tls.login_san_index = 2;
    };
    let missing = "no subject_alternative_name found in the client certificate".to_owned();
    assert_eq!(login(third, &facts), Some(Err(missing)));
    let uri = |tls: &mut config::Tls| {
        tls.login_from = LoginFrom::AlternativeName;
        tls.login_san_type = NameKind::Uri;
    };
    assert_eq!(login(uri, &facts), named("spiffe://x/y"));
    let nobody = TlsFacts { peer: None, ..facts.clone() };
    assert!(matches!(login(|_| {}, &nobody), Some(Err(_))));
    // Nothing was checked, so nothing counts.
    assert_eq!(login(|tls| tls.verify = TlsVerify::None, &facts), None);
}

#[test]
fn files_that_cannot_be_used_are_named_with_what_is_wrong() {
    let directory = Directory::new();
    let (certificate, key) = directory.certificate("server", "localhost");
    let (_, other_key) = directory.certificate("other", "localhost");
    let path = |name: &str| directory.0.join(name);
    let show = |path: &Path| path.display().to_string();

    let missing = path("missing.pem");
    assert_eq!(
        refusal(&settings(&missing, &key)),
        format!("tls.certificate_file: {}: cannot be read: No such file or directory (os error 2)", show(&missing))
    );
    assert_eq!(
        refusal(&settings(&key, &key)),
        format!("tls.certificate_file: {}: has no certificate (-----BEGIN CERTIFICATE-----)", show(&key))
    );
    assert_eq!(
        refusal(&settings(&certificate, &certificate)),
        format!("tls.key_file: {}: has no private key (-----BEGIN PRIVATE KEY-----)", show(&certificate))
    );
    assert_eq!(
        refusal(&settings(&certificate, &other_key)),
        format!(
            "tls.key_file: {}: the key does not belong to the certificate in {} (subject CN=localhost)",
            show(&other_key),
            show(&certificate)
        )
    );
    let encrypted = path("encrypted.key");
    let pem = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    std::fs::write(&encrypted, pem).expect("a file");
    assert!(refusal(&settings(&certificate, &encrypted)).contains("the private key is encrypted"));
    let torn = path("torn.pem");
    std::fs::write(&torn, "-----BEGIN CERTIFICATE-----\nMIIB").expect("a file");
    assert!(refusal(&settings(&torn, &key)).starts_with(&format!("tls.certificate_file: {}: is not PEM", show(&torn))));
    let mut verifying = settings(&certificate, &key);
    verifying.verify = TlsVerify::Peer;
    verifying.ca_file = Some(key.clone());
    assert!(refusal(&verifying).starts_with("tls.ca_file: "));
    let mut old = settings(&certificate, &key);
    old.versions = vec![config::TlsVersion::V1_3];
    old.ciphers = vec![config::TlsCipher::RsaAes128];
    assert_eq!(refusal(&old), "tls.ciphers: none of them is of a version in tls.versions");
}

/// Makes an HTTPS connection that trusts only `authority`; returns what comes back for "ping".
async fn ping(address: std::net::SocketAddr, authority: &Path) -> io::Result<Vec<u8>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).expect("a certificate")).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let client = client.expect("versions").with_root_certificates(roots).with_no_client_auth();
    let socket = TcpStream::connect(address).await?;
    let host = ServerName::try_from("localhost").expect("a name");
    let mut stream = TlsConnector::from(Arc::new(client)).connect(host, socket).await?;
    stream.write_all(b"ping").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn an_acceptor_uses_the_certificates_of_the_moment() {
    let directory = Directory::new();
    let (certificate, key) = directory.certificate("server", "localhost");
    let tls = Tls::open(&settings(&certificate, &key), "tls").expect("good files").expect("TLS is on");
    let served = tls.certificates();
    assert_eq!(served.len(), 1);
    assert_eq!(served[0].subject, "CN=localhost");
    let days = |days: u64| {
        let time = std::time::SystemTime::now() + Duration::from_secs(days * 24 * 3600);
        i64::try_from(time.duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs())).unwrap_or(0)
    };
    assert!((days(89)..days(91)).contains(&served[0].valid_until), "{served:?}");
    let acceptor = Acceptor::new(&tls);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(socket).await {
                let mut input = [0; 4];
                stream.read_exact(&mut input).await.expect("input");
                stream.write_all(&input).await.expect("output");
                stream.shutdown().await.expect("an end");
            }
        }
    });
    assert_eq!(ping(address, &certificate).await.expect("an answer"), b"ping");

    let (new, new_key) = directory.certificate("new", "localhost");
    assert!(ping(address, &new).await.is_err());
    std::fs::copy(&new, &certificate).expect("a copy");
    // With the old key the new certificate is of no use: nothing changes.
    assert!(look(&tls, false, None).is_some());
    assert!(tls.reload().is_err());
    std::fs::copy(&new_key, &key).expect("a copy");
    assert!(tls.has_changed());
    assert_eq!(look(&tls, false, None), None);
    assert!(!tls.has_changed());
    assert_eq!(ping(address, &new).await.expect("an answer"), b"ping");
    assert!(tls.handshakes().failed.load(Ordering::Relaxed) >= 1);
    assert_eq!(tls.handshakes().finished.load(Ordering::Relaxed), 2);
}
