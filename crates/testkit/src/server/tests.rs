//! Tests of the server fixture. Must not know any store.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
};

use super::*;

#[test]
fn server_has_documented_settings_and_stops_on_drop() {
    let redis = RedisServer::start();
    for (name, value) in [("appendonly", "yes"), ("appendfsync", "everysec"), ("save", ""), ("bind", "127.0.0.1")] {
        assert_eq!(redis.cli(&["CONFIG", "GET", name]), format!("{name}\n{value}").trim_end(), "{name}");
    }
    assert_eq!(redis.url(), format!("redis://127.0.0.1:{}", redis.port()));
    let (port, folder) = (redis.port(), redis.folder().to_owned());
    drop(redis);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(!folder.exists());
}

#[test]
fn server_starts_quickly() {
    let quick = |_| {
        let began = Instant::now();
        drop(RedisServer::start());
        began.elapsed() < Duration::from_millis(100)
    };
    // One quick start of many is enough: the machine may be busy.
    assert!((0..50).any(quick));
}

#[test]
fn concurrent_starts_use_distinct_servers() {
    let starting: Vec<_> = (0..16).map(|_| thread::spawn(RedisServer::start)).collect();
    let servers: Vec<RedisServer> = starting.into_iter().map(|one| one.join().unwrap()).collect();
    for (number, redis) in servers.iter().enumerate() {
        assert_eq!(redis.cli(&["SET", "number", &number.to_string()]), "OK");
    }
    for (number, redis) in servers.iter().enumerate() {
        assert_eq!(redis.cli(&["GET", "number"]), number.to_string());
    }
}

#[test]
fn taken_port_fails_start() {
    let first = RedisServer::start();
    let folder = Folder::new();
    folder.write("redis.conf", &config(&[], first.port(), None));
    assert!(Redis::start(&folder, first.port(), None, PATIENCE).is_none());
    assert!(folder.log().contains("Address already in use"), "{}", folder.log());
}

#[test]
fn data_survives_kill() {
    let redis = RedisServer::start();
    redis.cli(&["SET", "here", "still"]);
    redis.kill();
    assert!(TcpStream::connect(("127.0.0.1", redis.port())).is_err() && redis.pid().is_none());
    redis.restart();
    assert_eq!(redis.cli(&["GET", "here"]), "still");
}

#[test]
fn settings_and_password_are_used() {
    let redis = RedisServer::with(&[("requirepass", "open-sesame"), ("maxmemory", "50mb")]);
    assert_eq!(redis.url(), format!("redis://:open-sesame@127.0.0.1:{}", redis.port()));
    assert_eq!(redis.cli(&["CONFIG", "GET", "maxmemory"]), "maxmemory\n52428800");
    redis.restart();
    assert_eq!(redis.cli(&["PING"]), "PONG");
}

#[test]
fn paused_server_does_not_answer() {
    let redis = RedisServer::start();
    redis.pause();
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    assert!(stream.read(&mut [0; 8]).is_err());
    redis.resume();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), "+PONG\r\n".len());
}

#[test]
fn promoted_replica_is_primary() {
    let first = RedisServer::start();
    first.cli(&["SET", "key", "before"]);
    let second = RedisServer::replica_of(&first);
    assert_eq!(second.cli(&["GET", "key"]), "before");
    assert!(second.cli(&["SET", "key", "now"]).starts_with("READONLY"));
    second.promote();
    assert_eq!(second.cli(&["SET", "key", "now"]), "OK");
    first.follow(&second);
    assert_eq!(first.cli(&["GET", "key"]), "now");
}

#[test]
fn tls_server_answers_with_tls() {
    let redis = RedisServer::tls();
    let ca = redis.ca().unwrap();
    assert!(redis.url().starts_with("rediss://127.0.0.1:"));
    let port = redis.port().to_string();
    let words = ["-h", "127.0.0.1", "-p", &port, "--tls", "--cacert", ca.to_str().unwrap(), "PING"];
    let out = std::process::Command::new("redis-cli").args(words).output().unwrap();
    assert_eq!(out.stdout, b"PONG\n", "{out:?}");
    redis.restart();
    assert_eq!(redis.cli(&["PING"]), "PONG");
}

#[test]
fn shared_server_stops_with_last_user() {
    let (first, second) = (RedisServer::shared(), RedisServer::shared());
    assert!(Arc::ptr_eq(&first, &second));
    let port = first.port();
    drop(first);
    assert_eq!(second.cli(&["PING"]), "PONG");
    drop(second);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert_eq!(RedisServer::shared().cli(&["PING"]), "PONG");
}
