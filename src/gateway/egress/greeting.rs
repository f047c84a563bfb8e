//! The first bytes in a tunnel: a TLS greeting that names the host that was asked for, or the tunnel is closed. Decrypts nothing.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::grant::egress::Rule;
use crate::message::HostName;

/// Longest greeting, in bytes.
const LONGEST: usize = 32 * 1024;
/// How long a greeting may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What a client sees of a name that does not fit: the fatal alert `unrecognized_name`.
pub(super) const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Reads a greeting and compares its name; the bytes are to be sent on.
///
/// # Errors
/// The rule that is broken, and a sentence.
pub(super) async fn read(client: &mut (impl AsyncRead + Unpin), host: &HostName) -> Result<Vec<u8>, (Rule, String)> {
    tokio::time::timeout(TIMEOUT, read_untimed(client, host))
        .await
        .unwrap_or_else(|_| Err(not_tls(host)))
}

/// The same without a limit of time, for bytes that are there.
///
/// # Errors
/// As [`read`].
pub(in crate::gateway) async fn read_untimed(
    client: &mut (impl AsyncRead + Unpin),
    host: &HostName,
) -> Result<Vec<u8>, (Rule, String)> {
    let mut acceptor = rustls::server::Acceptor::default();
    let mut whole = Vec::new();
    let mut buffer = vec![0_u8; 4 * 1024];
    while whole.len() < LONGEST {
        let Ok(count @ 1..) = client.read(&mut buffer).await else {
            break;
        };
        whole.extend_from_slice(&buffer[..count]);
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            if !matches!(acceptor.read_tls(&mut rest), Ok(1..)) {
                return Err(not_tls(host));
            }
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let named = accepted.client_hello().server_name().map(str::to_owned);
                return match named.as_deref().map(str::parse::<HostName>) {
                    Some(Ok(name)) if name == *host => Ok(whole),
                    Some(_) => Err((
                        Rule::ServerName,
                        format!("the TLS greeting names another host than {host}."),
                    )),
                    None => Err((
                        Rule::ServerName,
                        format!("the TLS greeting does not name {host}: let the client send the server's name (SNI)."),
                    )),
                };
            }
            Err(_) => return Err(not_tls(host)),
        }
    }
    Err(not_tls(host))
}

fn not_tls(host: &HostName) -> (Rule, String) {
    let message = format!("what was sent to {host} is no TLS: a tunnel carries HTTPS only.");
    (Rule::NotTls, message)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use tokio_rustls::rustls;

    use super::*;

    /// A real client's greeting for a name.
    fn greeting(name: &'static str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    async fn word(bytes: &[u8], host: &str) -> &'static str {
        let host = host.parse().unwrap();
        match read(&mut &*bytes, &host).await {
            Ok(kept) => {
                assert_eq!(kept, bytes);
                "fits"
            }
            Err((rule, _)) => rule.as_str(),
        }
    }

    #[tokio::test]
    async fn a_greeting_must_name_the_host() {
        let bytes = greeting("pkgs.example");
        assert_eq!(word(&bytes, "pkgs.example").await, "fits");
        assert_eq!(word(&bytes, "evil.example").await, "server_name");
        assert_eq!(word(&greeting("10.0.0.1"), "pkgs.example").await, "server_name");
        assert_eq!(word(&bytes[..bytes.len() - 1], "pkgs.example").await, "not_tls");
        assert_eq!(
            word(b"GET / HTTP/1.1\r\nhost: pkgs.example\r\n\r\n", "pkgs.example").await,
            "not_tls"
        );
        assert_eq!(word(b"SSH-2.0-x\r\n", "pkgs.example").await, "not_tls");
        assert_eq!(word(b"", "pkgs.example").await, "not_tls");
    }

    #[tokio::test]
    async fn a_greeting_in_pieces_is_read_and_an_endless_one_is_not() {
        let bytes = greeting("pkgs.example");
        let host: HostName = "pkgs.example".parse().unwrap();
        let (mut near, mut far) = tokio::io::duplex(1);
        let sent = bytes.clone();
        let writing = tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut near, &sent).await });
        assert_eq!(read(&mut far, &host).await.unwrap(), bytes);
        writing.await.unwrap().unwrap();
        // Handshake records that promise ever more.
        let record = [&[22, 3, 1, 0, 100, 1, 0, 255, 255][..], &[0; 96]]
            .concat()
            .repeat(1000);
        assert_eq!(word(&record, "pkgs.example").await, "not_tls");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0_usize..100) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(word(&bytes, "pkgs.example"));
            let mut near = greeting("pkgs.example");
            for (n, byte) in bytes.iter().take(8).enumerate() {
                let place = (at + n) % near.len();
                near[place] = *byte;
            }
            let host: HostName = "pkgs.example".parse().unwrap();
            let _ = runtime.block_on(read(&mut near.as_slice(), &host));
        }
    }
}
