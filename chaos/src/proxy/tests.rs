//! Proxies to a real Redis server, with inline commands.

use std::{sync::Arc, time::Duration};

use async_endpoints_testkit::server::RedisServer;
use tokio::time::timeout;

use super::*;

/// No answer within this time counts as none.
const TIMEOUT: Duration = Duration::from_millis(300);

async fn redis_and_proxy() -> (Arc<RedisServer>, Proxy) {
    let redis = tokio::task::spawn_blocking(|| Arc::new(RedisServer::start())).await.unwrap();
    let proxy = Proxy::start(redis.port()).await.unwrap();
    (redis, proxy)
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap()
}

/// The next bytes: `None` if there are none, `""` if the connection is closed.
async fn receive(stream: &mut TcpStream) -> Option<String> {
    let mut buffer = [0; 256];
    let read = timeout(TIMEOUT, stream.read(&mut buffer)).await.ok()?;
    Some(String::from_utf8_lossy(&buffer[..read.unwrap_or(0)]).into_owned())
}

async fn ask(stream: &mut TcpStream, command: &str) -> Option<String> {
    // The answer shows whether the connection is closed.
    drop(stream.write_all(format!("{command}\r\n").as_bytes()).await);
    receive(stream).await
}

fn got(answer: &str) -> Option<String> {
    Some(answer.to_owned())
}

#[tokio::test]
async fn cut_closes_all_connections() {
    let (redis, proxy) = redis_and_proxy().await;
    let (mut first, mut second) = (connect(&proxy).await, connect(&proxy).await);
    assert_eq!(ask(&mut first, "SET a 1").await, got("+OK\r\n"));
    assert_eq!(ask(&mut second, "GET a").await, got("$1\r\n1\r\n"));
    proxy.set(LinkState::Cut);
    assert_eq!(receive(&mut first).await, got(""));
    assert_eq!(ask(&mut second, "GET a").await, got(""));
    assert_eq!(ask(&mut connect(&proxy).await, "PING").await, got(""));
    proxy.set(LinkState::Open);
    assert_eq!(ask(&mut connect(&proxy).await, "INCR a").await, got(":2\r\n"));
    assert_eq!(redis.cli(&["GET", "a"]), "2");
}

#[tokio::test]
async fn stalled_bytes_arrive_later() {
    let (redis, proxy) = redis_and_proxy().await;
    let mut open = connect(&proxy).await;
    assert_eq!(ask(&mut open, "PING").await, got("+PONG\r\n"));
    proxy.set(LinkState::Stalled);
    let mut new = connect(&proxy).await;
    assert_eq!(ask(&mut open, "SET a 1").await, None);
    assert_eq!(ask(&mut new, "SET b 1").await, None);
    assert_eq!(redis.cli(&["EXISTS", "a", "b"]), "0");
    proxy.set(LinkState::Open);
    assert_eq!(receive(&mut open).await, got("+OK\r\n"));
    assert_eq!(receive(&mut new).await, got("+OK\r\n"));
    // A cut during the stall discards the held bytes.
    proxy.set(LinkState::Stalled);
    assert_eq!(ask(&mut open, "SET a 2").await, None);
    proxy.set(LinkState::Cut);
    assert_eq!(receive(&mut open).await, got(""));
    assert_eq!(redis.cli(&["GET", "a"]), "1");
}

#[tokio::test]
async fn half_open_connection_is_never_answered() {
    let (redis, proxy) = redis_and_proxy().await;
    let mut open = connect(&proxy).await;
    assert_eq!(ask(&mut open, "PING").await, got("+PONG\r\n"));
    proxy.set(LinkState::HalfOpen);
    let mut new = connect(&proxy).await;
    assert_eq!(ask(&mut open, "SET a 1").await, None);
    assert_eq!(ask(&mut new, "SET a 1").await, None);
    redis.kill();
    assert_eq!(receive(&mut open).await, None);
    redis.restart();
    proxy.set(LinkState::Open);
    assert_eq!(ask(&mut open, "SET a 1").await, None);
    assert_eq!(ask(&mut new, "SET a 1").await, None);
    assert_eq!(ask(&mut connect(&proxy).await, "EXISTS a").await, got(":0\r\n"));
}

#[tokio::test]
async fn lost_answer_keeps_its_request() {
    let (redis, proxy) = redis_and_proxy().await;
    let mut open = connect(&proxy).await;
    assert_eq!(ask(&mut open, "INCR a").await, got(":1\r\n"));
    proxy.lose_answers();
    let mut new = connect(&proxy).await;
    assert_eq!(ask(&mut open, "INCR a").await, got(""));
    assert_eq!(redis.cli(&["GET", "a"]), "2");
    assert_eq!(ask(&mut new, "INCR a").await, got(":3\r\n"));
}

#[tokio::test]
async fn redirect_closes_and_leads_to_the_new_port() {
    let (first, proxy) = redis_and_proxy().await;
    let mut open = connect(&proxy).await;
    assert_eq!(ask(&mut open, "SET a 1").await, got("+OK\r\n"));
    let second = tokio::task::spawn_blocking(RedisServer::start).await.unwrap();
    proxy.redirect(second.port());
    assert_eq!(receive(&mut open).await, got(""));
    assert_eq!(ask(&mut connect(&proxy).await, "EXISTS a").await, got(":0\r\n"));
    first.kill();
    assert_eq!(ask(&mut connect(&proxy).await, "PING").await, got("+PONG\r\n"));
}

#[tokio::test]
async fn dropped_proxy_closes_its_connections() {
    let (_redis, proxy) = redis_and_proxy().await;
    let mut open = connect(&proxy).await;
    assert_eq!(ask(&mut open, "PING").await, got("+PONG\r\n"));
    let port = proxy.port();
    drop(proxy);
    assert_eq!(receive(&mut open).await, got(""));
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
}
