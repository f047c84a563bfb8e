//! The door as strangers and sandboxes meet it: over real TCP and TLS.

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::UnixListener;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;

use super::*;

/// Counts by word.
#[derive(Default)]
struct Counts(Mutex<Vec<Refusal>>);

impl CountRefusals for Counts {
    fn refused(&self, refusal: Refusal) {
        self.0.lock().unwrap().push(refusal);
    }
}

impl Counts {
    fn of(&self, refusal: Refusal) -> usize {
        self.0.lock().unwrap().iter().filter(|one| **one == refusal).count()
    }
}

struct World {
    door: Door,
    counts: Arc<Counts>,
    directory: tempfile::TempDir,
    gateway: UnixListener,
}

impl World {
    async fn new() -> Self {
        let (directory, counts) = (tempfile::tempdir().unwrap(), Arc::<Counts>::default());
        Self {
            door: Door::open(SocketAddr::from(([127, 0, 0, 1], 0)), counts.clone())
                .await
                .unwrap(),
            counts,
            gateway: UnixListener::bind(directory.path().join("s")).unwrap(),
            directory,
        }
    }

    fn pass(&self) -> Pass {
        self.door.expect(&self.directory.path().join("s"))
    }

    /// What says this first, trusting this certificate.
    async fn say(&self, certificate: &[u8], first: &str) -> std::io::Result<ClientStream<TcpStream>> {
        let mut trusted = RootCertStore::empty();
        trusted.add(CertificateDer::from(certificate.to_vec())).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(trusted)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.door.local).await?;
        let mut stream = TlsConnector::from(Arc::new(config))
            .connect(ServerName::try_from(LINK_NAME).unwrap(), stream)
            .await?;
        stream.write_all(first.as_bytes()).await?;
        stream.flush().await?;
        Ok(stream)
    }

    async fn join(&self, ticket: &Token) -> Option<(ClientStream<TcpStream>, Token)> {
        let first = Greeting::Join(ticket.clone()).to_string();
        let mut stream = self.say(self.door.certificate(), &first).await.unwrap();
        let key = Greeting::read_answer(&mut stream).await.ok()?;
        Some((stream, key))
    }

    async fn open(&self, key: &Token) -> ClientStream<TcpStream> {
        let first = Greeting::Open(key.clone()).to_string();
        self.say(self.door.certificate(), &first).await.unwrap()
    }
}

/// Whether the other end closes it without a word.
async fn is_refused(stream: &mut ClientStream<TcpStream>) -> bool {
    let mut byte = [0_u8; 1];
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut byte)).await;
    !matches!(read.expect("it is neither served nor closed"), Ok(1..))
}

#[tokio::test]
async fn a_ticket_is_good_once_and_its_key_for_as_long_as_the_link_lives() {
    let world = World::new().await;
    let pass = world.pass();
    let (link, key) = world.join(&pass.ticket).await.unwrap();
    assert!(pass.joined().await);
    assert!(world.join(&pass.ticket).await.is_none(), "used");
    assert!(world.join(&random()).await.is_none(), "unknown");
    assert!(is_refused(&mut world.open(&random()).await).await, "no key");
    assert!(
        is_refused(&mut world.open(&pass.ticket).await).await,
        "a ticket is no key"
    );
    assert!(world.join(&key).await.is_none(), "a key is no ticket");
    assert_eq!(world.counts.of(Refusal::Unknown), 5);

    // Both ways, with an end of each.
    let mut stream = world.open(&key).await;
    stream.write_all(b"cofferdam/1 control\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let (mut gateway, _) = world.gateway.accept().await.unwrap();
    let mut heard = String::new();
    gateway.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "cofferdam/1 control\n");
    gateway.write_all(&vec![7; 300_000]).await.unwrap();
    drop(gateway);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.len(), 300_000);

    let mut open = world.open(&key).await;
    let (mut gateway, _) = world.gateway.accept().await.unwrap();
    drop(link);
    assert!(is_refused(&mut open).await, "what ran over the link ends with it");
    assert_eq!(gateway.read(&mut [0; 8]).await.unwrap(), 0);
    assert!(is_refused(&mut world.open(&key).await).await, "and so does its key");
}

#[tokio::test]
async fn a_pass_that_ends_takes_everything_with_it() {
    let world = World::new().await;
    let unused = world.pass();
    let ticket = unused.ticket.clone();
    drop(unused);
    assert!(world.join(&ticket).await.is_none());
    let pass = world.pass();
    let (mut link, key) = world.join(&pass.ticket).await.unwrap();
    let mut open = world.open(&key).await;
    let (_gateway, _) = world.gateway.accept().await.unwrap();
    pass.end();
    assert!(is_refused(&mut link).await && is_refused(&mut open).await);
    assert!(is_refused(&mut world.open(&key).await).await);
    assert!(known(&world.door.guests).keys.is_empty() && known(&world.door.guests).tickets.is_empty());
}

#[tokio::test]
async fn who_has_another_certificate_is_not_believed() {
    let (world, other) = (World::new().await, World::new().await);
    let pass = world.pass();
    let first = Greeting::Join(pass.ticket.clone()).to_string();
    let refused = world.say(other.door.certificate(), &first).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidData);
    assert!(world.join(&pass.ticket).await.is_some(), "its ticket was not shown");
}

#[tokio::test]
async fn strangers_get_little_time_few_places_and_keep_nobody_out() {
    let world = World::new().await;
    let mut strangers = Vec::new();
    for _ in 0..MOST_OF_ADDRESS + 8 {
        strangers.push(TcpStream::connect(world.door.local).await.unwrap());
    }
    // Those that waited longest had to go.
    let closed = tokio::time::timeout(STRANGER_LIMIT / 2, strangers[0].read(&mut [0; 1])).await;
    assert!(!matches!(
        closed.expect("it gives way before its time is over"),
        Ok(1..)
    ));
    assert!(world.counts.of(Refusal::Places) >= 1);
    let pass = world.pass();
    assert!(world.join(&pass.ticket).await.is_some());
    let began = std::time::Instant::now();
    let _ = strangers.last_mut().unwrap().read(&mut [0; 1]).await;
    assert!(began.elapsed() < STRANGER_LIMIT * 2, "one that says nothing is closed");
    // No TLS, and TLS with another protocol in it.
    let mut plain = TcpStream::connect(world.door.local).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut heard = Vec::new();
    let _ = plain.read_to_end(&mut heard).await;
    assert!(!heard.starts_with(b"HTTP"));
    let http = world
        .say(world.door.certificate(), &"GET / HTTP/1.1\r\n".repeat(8))
        .await;
    assert!(is_refused(&mut http.unwrap()).await);
}

#[test]
fn an_address_that_floods_takes_no_place_of_another() {
    let mut strangers = Strangers::default();
    let (quiet, loud) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    let (first, _) = strangers.admit(quiet);
    let gave_way: Vec<IpAddr> = (0..MOST_STRANGERS * 2)
        .filter_map(|_| strangers.admit(loud).1)
        .collect();
    assert!(!first.is_cancelled());
    assert_eq!(gave_way.len(), MOST_STRANGERS * 2 - MOST_OF_ADDRESS);
    assert!(gave_way.iter().all(|address| *address == loud));
    assert_eq!(strangers.0.len(), MOST_OF_ADDRESS + 1);
    for last in 0..MOST_STRANGERS as u32 {
        strangers.admit(IpAddr::from(std::net::Ipv4Addr::from(0x0b00_0000 + last)));
    }
    assert!(first.is_cancelled(), "only many addresses together");
    assert_eq!(strangers.0.len(), MOST_STRANGERS);
}

/// Whether it is closed before the other end read a byte: nothing of TLS is answered.
async fn is_closed_at_once(mut stream: TcpStream) -> bool {
    let read = tokio::time::timeout(STRANGER_LIMIT / 2, stream.read(&mut [0; 1])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn who_begins_too_often_is_closed_before_any_work_and_served_again_soon() {
    let world = World::new().await;
    let pass = world.pass();
    let (_link, key) = world.join(&pass.ticket).await.unwrap();
    // All but the last end at once, so that nobody has to give way to another.
    let mut newest = VecDeque::new();
    for _ in 0..limiter::BURST * 4 {
        newest.push_back(TcpStream::connect(world.door.local).await.unwrap());
        if newest.len() > MOST_OF_ADDRESS / 2 {
            newest.pop_front();
        }
        if world.counts.of(Refusal::Rate) > 0 {
            break;
        }
    }
    assert!(world.counts.of(Refusal::Rate) > 0, "nobody was refused");
    let closed = futures::future::join_all(newest.into_iter().map(is_closed_at_once)).await;
    assert!(closed.contains(&true), "no connection was closed before its time");
    // What was there goes on, and in its turn an address comes in again.
    let opened = async {
        loop {
            let first = Greeting::Open(key.clone()).to_string();
            if let Ok(stream) = world.say(world.door.certificate(), &first).await {
                return stream;
            }
            tokio::time::sleep(limiter::INTERVAL).await;
        }
    };
    let mut stream = tokio::time::timeout(Duration::from_secs(20), opened)
        .await
        .expect("never again");
    stream.write_all(b"x").await.unwrap();
    let (mut gateway, _) = world.gateway.accept().await.unwrap();
    assert_eq!(gateway.read_u8().await.unwrap(), b'x');
}
