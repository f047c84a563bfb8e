//! Tests of own certificate authorities against a TLS server on loopback.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::forge::fake::{Counter, TOKEN, path};
use crate::forge::{Clients, Connect as _, Forge};
use crate::message::ForgeKind;
use crate::secret::Secret;

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A forge that knows one project, behind a certificate for `host` that `authority` signed.
async fn server(authority: &CertifiedIssuer<'static, KeyPair>, host: &str) -> (String, tokio::task::JoinHandle<()>) {
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![host.to_owned()])
        .unwrap()
        .signed_by(&key, authority)
        .unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut buffer = vec![0; 16 * 1024];
                let _ = stream.read(&mut buffer).await;
                let body = r#"{"id":7,"path_with_namespace":"a/b"}"#;
                let head = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (url, task)
}

fn clients(config: Config) -> Result<Clients, ForgeError> {
    // Another test may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Clients::new(config, Arc::new(Counter::default()))
}

fn connect(clients: &Clients, url: &str, ca: Option<&str>) -> Result<Arc<dyn Forge>, ForgeError> {
    clients.connect(ForgeKind::Gitlab, Some(url), &Secret::new(TOKEN), ca)
}

#[tokio::test]
async fn pitfall_17_an_own_authority_counts_for_its_connection_only() {
    let (own, other) = (authority(), authority());
    let clients = clients(Config::default()).unwrap();
    let (url, task) = server(&own, "localhost").await;
    for ca in [None, Some(other.pem())] {
        let forge = connect(&clients, &url, ca.as_deref()).unwrap();
        let error = forge.project(&path("a/b")).await.unwrap_err();
        assert!(matches!(error, ForgeError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("ca_file"), "{error}");
    }
    let with = connect(&clients, &url, Some(&own.pem())).unwrap();
    assert_eq!(with.project(&path("a/b")).await.unwrap().id, "7");
    let both = format!("{}\n{}", other.pem(), own.pem());
    let with = connect(&clients, &url, Some(&both)).unwrap();
    assert_eq!(with.project(&path("a/b")).await.unwrap().id, "7");
    let without = connect(&clients, &url, None).unwrap();
    assert!(without.project(&path("a/b")).await.is_err());
    task.abort();
}

#[tokio::test]
async fn a_name_that_the_certificate_does_not_hold_is_refused_even_of_a_known_authority() {
    let own = authority();
    let (url, task) = server(&own, "other.example").await;
    let forge = connect(&clients(Config::default()).unwrap(), &url, Some(&own.pem())).unwrap();
    let error = forge.project(&path("a/b")).await.unwrap_err();
    assert!(matches!(error, ForgeError::Unavailable { .. }), "{error}");
    task.abort();
}

#[tokio::test]
async fn the_operators_authority_counts_for_every_instance() {
    let (own, connections) = (authority(), authority());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, own.pem()).unwrap();
    let config = Config {
        ca_file: Some(file),
        ..Config::default()
    };
    let clients = clients(config).unwrap();
    let (url, task) = server(&own, "localhost").await;
    for ca in [None, Some(connections.pem())] {
        let forge = connect(&clients, &url, ca.as_deref()).unwrap();
        assert_eq!(forge.project(&path("a/b")).await.unwrap().id, "7");
    }
    task.abort();
}

#[test]
fn what_is_no_certificate_is_refused_in_words() {
    let usable = clients(Config::default()).unwrap();
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let key = KeyPair::generate().unwrap().serialize_pem();
    let long = "x".repeat(LONGEST_PEM + 1);
    let broken = "-----BEGIN CERTIFICATE-----\n****\n-----END CERTIFICATE-----\n";
    for pem in ["", "no pem", garbage, broken, key.as_str(), long.as_str()] {
        let error = connect(&usable, "https://forge.example", Some(pem)).err().unwrap();
        assert!(matches!(error, ForgeError::Certificates { .. }), "{error}");
        assert!(
            error.to_string().starts_with("the connection's ca cannot be used"),
            "{error}"
        );
        assert!(!error.to_string().contains("PRIVATE"), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    for content in [None, Some("no pem"), Some(garbage)] {
        let file = folder.path().join("ca.pem");
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        let config = Config {
            ca_file: Some(file),
            ..Config::default()
        };
        let error = clients(config).err().unwrap();
        assert!(matches!(error, ForgeError::Certificates { .. }), "{error}");
        assert!(error.to_string().contains("forge.ca_file"), "{error}");
    }
}

#[test]
fn clients_are_kept_by_what_they_trust_but_not_for_ever() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let trust = Trust::new(&Config::default()).unwrap();
    let pem = authority().pem();
    for _ in 0..3 {
        trust.client(Some(&pem)).unwrap();
    }
    assert_eq!(trust.own.lock().unwrap().len(), 1);
    for n in 0..2 * MOST_CLIENTS {
        // The same certificate under another text is another client.
        trust.client(Some(&format!("{pem}\n# {n}\n"))).unwrap();
    }
    assert_eq!(trust.own.lock().unwrap().len(), MOST_CLIENTS);
}
