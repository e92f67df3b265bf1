//! Against a real server, by commands written by hand.

use std::{sync::Arc, time::Duration};

use async_endpoints_testkit::server::RedisServer;
use tokio::time::timeout;

use super::*;

/// Long for a server on the same machine.
const A_WHILE: Duration = Duration::from_millis(300);

async fn between() -> (Arc<RedisServer>, Proxy) {
    let redis = tokio::task::spawn_blocking(|| Arc::new(RedisServer::start())).await.unwrap();
    let proxy = Proxy::start(redis.port()).await.unwrap();
    (redis, proxy)
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap()
}

/// What comes next; `None` if nothing does, and `""` at the end.
async fn heard(stream: &mut TcpStream) -> Option<String> {
    let mut buffer = [0; 256];
    let read = timeout(A_WHILE, stream.read(&mut buffer)).await.ok()?;
    Some(String::from_utf8_lossy(&buffer[..read.unwrap_or(0)]).into_owned())
}

async fn ask(stream: &mut TcpStream, command: &str) -> Option<String> {
    // A closed connection shows in the answer.
    drop(stream.write_all(format!("{command}\r\n").as_bytes()).await);
    heard(stream).await
}

fn got(answer: &str) -> Option<String> {
    Some(answer.to_owned())
}

#[tokio::test]
async fn it_forwards_and_a_cut_closes_all() {
    let (redis, proxy) = between().await;
    let (mut first, mut second) = (connect(&proxy).await, connect(&proxy).await);
    assert_eq!(ask(&mut first, "SET a 1").await, got("+OK\r\n"));
    assert_eq!(ask(&mut second, "GET a").await, got("$1\r\n1\r\n"));
    proxy.set(Way::Cut);
    assert_eq!(heard(&mut first).await, got(""));
    assert_eq!(ask(&mut second, "GET a").await, got(""));
    assert_eq!(ask(&mut connect(&proxy).await, "PING").await, got(""));
    proxy.set(Way::Open);
    assert_eq!(ask(&mut connect(&proxy).await, "INCR a").await, got(":2\r\n"));
    assert_eq!(redis.cli(&["GET", "a"]), "2");
}

#[tokio::test]
async fn what_is_stalled_comes_later() {
    let (redis, proxy) = between().await;
    let mut open = connect(&proxy).await;
    assert_eq!(ask(&mut open, "PING").await, got("+PONG\r\n"));
    proxy.set(Way::Stalled);
    let mut new = connect(&proxy).await;
    assert_eq!(ask(&mut open, "SET a 1").await, None);
    assert_eq!(ask(&mut new, "SET b 1").await, None);
    assert_eq!(redis.cli(&["EXISTS", "a", "b"]), "0");
    proxy.set(Way::Open);
    assert_eq!(heard(&mut open).await, got("+OK\r\n"));
    assert_eq!(heard(&mut new).await, got("+OK\r\n"));
    // And closed, if a cut comes first.
    proxy.set(Way::Stalled);
    assert_eq!(ask(&mut open, "SET a 2").await, None);
    proxy.set(Way::Cut);
    assert_eq!(heard(&mut open).await, got(""));
    assert_eq!(redis.cli(&["GET", "a"]), "1");
}

#[tokio::test]
async fn half_open_is_silent_for_ever() {
    let (redis, proxy) = between().await;
    let mut open = connect(&proxy).await;
    assert_eq!(ask(&mut open, "PING").await, got("+PONG\r\n"));
    proxy.set(Way::HalfOpen);
    let mut new = connect(&proxy).await;
    assert_eq!(ask(&mut open, "SET a 1").await, None);
    assert_eq!(ask(&mut new, "SET a 1").await, None);
    redis.kill();
    assert_eq!(heard(&mut open).await, None);
    redis.restart();
    proxy.set(Way::Open);
    assert_eq!(ask(&mut open, "SET a 1").await, None);
    assert_eq!(ask(&mut new, "SET a 1").await, None);
    assert_eq!(ask(&mut connect(&proxy).await, "EXISTS a").await, got(":0\r\n"));
}

#[tokio::test]
async fn an_answer_is_lost_and_its_request_is_not() {
    let (redis, proxy) = between().await;
    let mut open = connect(&proxy).await;
    assert_eq!(ask(&mut open, "INCR a").await, got(":1\r\n"));
    proxy.lose_answers();
    let mut new = connect(&proxy).await;
    assert_eq!(ask(&mut open, "INCR a").await, got(""));
    assert_eq!(redis.cli(&["GET", "a"]), "2");
    assert_eq!(ask(&mut new, "INCR a").await, got(":3\r\n"));
}

#[tokio::test]
async fn it_leads_elsewhere() {
    let (first, proxy) = between().await;
    let mut open = connect(&proxy).await;
    assert_eq!(ask(&mut open, "SET a 1").await, got("+OK\r\n"));
    let second = tokio::task::spawn_blocking(RedisServer::start).await.unwrap();
    proxy.turn_to(second.port());
    assert_eq!(heard(&mut open).await, got(""));
    assert_eq!(ask(&mut connect(&proxy).await, "EXISTS a").await, got(":0\r\n"));
    first.kill();
    assert_eq!(ask(&mut connect(&proxy).await, "PING").await, got("+PONG\r\n"));
}

#[tokio::test]
async fn nothing_is_left_of_it() {
    let (_redis, proxy) = between().await;
    let mut open = connect(&proxy).await;
    assert_eq!(ask(&mut open, "PING").await, got("+PONG\r\n"));
    let port = proxy.port();
    drop(proxy);
    assert_eq!(heard(&mut open).await, got(""));
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
}
