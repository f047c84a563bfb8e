//! Loopback ports that lead to the gateway.

use cofferdam_inside::Order;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::gateway::{Control, connected, within};

/// A port that is free just now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

async fn listen(control: &mut Control, id: u32) -> u16 {
    let port = free_port();
    control.order(Order::Listen { id, port }).await;
    let report = control.report().await;
    assert_eq!(report, cofferdam_inside::Report::Listening { id, port });
    port
}

async fn read_to_end(source: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    within(source.read_to_end(&mut all)).await.unwrap();
    all
}

#[tokio::test]
async fn carries_both_ways_and_keeps_half_closing() {
    let (gateway, _inside, mut control) = connected().await;
    let port = listen(&mut control, 1).await;
    let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    client.write_all(b"POST / HTTP/1.1\r\n\r\n").await.unwrap();
    let (named, mut here) = gateway.relay().await;
    assert_eq!(named, port);
    let body = vec![b'b'; 2_000_000];
    // The client says all it has to and closes its half; the answer still comes.
    let sending = async {
        client.write_all(&body).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let (request, ()) = within(async { tokio::join!(read_to_end(&mut here), sending) }).await;
    assert_eq!(request.len(), 19 + body.len());
    assert!(request.starts_with(b"POST / HTTP/1.1\r\n\r\nbbb"));
    here.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    drop(here);
    assert_eq!(read_to_end(&mut client).await, b"HTTP/1.1 204 No Content\r\n\r\n");
    // And the other way round.
    let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (_, mut here) = gateway.relay().await;
    here.write_all(b"greeting").await.unwrap();
    here.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await, b"greeting");
    client.write_all(b"still heard").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut here).await, b"still heard");
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let (gateway, _inside, mut control) = connected().await;
    let port = listen(&mut control, 1).await;
    let client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (_, mut here) = gateway.relay().await;
    here.write_all(b"HTTP/1.1 413 Too Large\r\n\r\n").await.unwrap();
    drop(here);
    let (mut answer, mut request) = client.into_split();
    // More than all the buffers between them hold.
    within(request.write_all(&vec![b'x'; 16 << 20])).await.unwrap();
    assert_eq!(read_to_end(&mut answer).await, b"HTTP/1.1 413 Too Large\r\n\r\n");
}

#[tokio::test]
async fn a_port_that_cannot_be_had_is_refused() {
    let (_gateway, _inside, mut control) = connected().await;
    let port = listen(&mut control, 1).await;
    control.order(Order::Listen { id: 2, port }).await;
    assert!(control.refused(2).await.contains("in use"));
    control.order(Order::Listen { id: 3, port: 0 }).await;
    control.refused(3).await;
}

#[tokio::test]
async fn five_hundred_and_twelve_at_once_and_idle_ones_are_cheap() {
    let (gateway, inside, mut control) = connected().await;
    let port = listen(&mut control, 1).await;
    let before = inside.memory();
    let mut open = Vec::new();
    for _ in 0..512 {
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (_, mut here) = gateway.relay().await;
        client.write_all(b"x").await.unwrap();
        assert_eq!(within(here.read_u8()).await.unwrap(), b'x');
        open.push((client, here));
    }
    let after = inside.memory();
    assert!(after < before + 2048, "{before} kB grew to {after} kB");
    let mut refused = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert_eq!(read_to_end(&mut refused).await, b"");
    // One that ends makes room for one.
    let (mut client, here) = open.pop().unwrap();
    drop(here);
    assert_eq!(read_to_end(&mut client).await, b"");
    drop(client);
    loop {
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        // A connection that found no room is closed; another attempt comes later than the end of the first.
        tokio::select! {
            relay = gateway.relay() => { assert_eq!(relay.0, port); break; }
            read = client.read_u8() => { assert!(read.is_err()); }
        }
    }
}

#[tokio::test]
async fn without_a_gateway_connections_are_closed() {
    let (gateway, _inside, mut control) = connected().await;
    let port = listen(&mut control, 1).await;
    drop(gateway.close().await);
    let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert_eq!(read_to_end(&mut client).await, b"");
}
