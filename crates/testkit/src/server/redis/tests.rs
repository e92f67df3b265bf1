//! Tests of `RedisServer`: settings, faults, replication, TLS, removal.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
};

use super::*;

#[test]
fn drop_ends_the_server_and_removes_its_folder() {
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
fn server_starts_within_100_ms() {
    let is_quick = |_| {
        let start = Instant::now();
        drop(RedisServer::start());
        start.elapsed() < Duration::from_millis(100)
    };
    // One quick start is enough, as other processes may slow down the machine.
    assert!((0..50).any(is_quick));
}

#[test]
fn concurrent_starts_use_separate_ports() {
    let starting: Vec<_> = (0..16).map(|_| thread::spawn(RedisServer::start)).collect();
    let servers: Vec<RedisServer> = starting.into_iter().map(|server| server.join().unwrap()).collect();
    for (number, redis) in servers.iter().enumerate() {
        assert_eq!(redis.cli(&["SET", "number", &number.to_string()]), "OK");
    }
    for (number, redis) in servers.iter().enumerate() {
        assert_eq!(redis.cli(&["GET", "number"]), number.to_string());
    }
}

#[test]
fn start_on_a_taken_port_returns_none() {
    let first = RedisServer::start();
    let folder = Folder::new();
    folder.write("redis.conf", &config(&[], first.port(), None));
    assert!(Redis::start(&folder, first.port(), None, TIMEOUT).is_none());
    assert!(folder.log().contains("Address already in use"), "{}", folder.log());
}

#[test]
fn written_key_survives_kill_and_restart() {
    let redis = RedisServer::start();
    redis.cli(&["SET", "key", "value"]);
    redis.kill();
    assert!(TcpStream::connect(("127.0.0.1", redis.port())).is_err() && redis.pid().is_none());
    redis.restart();
    assert_eq!(redis.cli(&["GET", "key"]), "value");
}

#[test]
fn settings_and_password_are_applied() {
    let redis = RedisServer::with(&[("requirepass", "open-sesame"), ("maxmemory", "50mb")]);
    assert_eq!(redis.url(), format!("redis://:open-sesame@127.0.0.1:{}", redis.port()));
    assert_eq!(redis.cli(&["CONFIG", "GET", "maxmemory"]), "maxmemory\n52428800");
    redis.restart();
    assert_eq!(redis.cli(&["PING"]), "PONG");
}

#[test]
fn paused_server_answers_after_resume() {
    let redis = RedisServer::start();
    redis.pause();
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    assert!(stream.read(&mut [0; 8]).is_err());
    redis.resume();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), "+PONG\r\n".len());
}

#[test]
fn promoted_replica_replicates_to_the_old_primary() {
    let first = RedisServer::start();
    first.cli(&["SET", "key", "before"]);
    let second = RedisServer::replica_of(&first);
    assert_eq!(second.cli(&["GET", "key"]), "before");
    assert!(second.cli(&["SET", "key", "after"]).starts_with("READONLY"));
    second.promote();
    assert_eq!(second.cli(&["SET", "key", "after"]), "OK");
    first.follow(&second);
    assert_eq!(first.cli(&["GET", "key"]), "after");
}

#[test]
fn tls_server_answers_over_tls() {
    let redis = RedisServer::tls();
    let ca = redis.ca().unwrap();
    assert!(redis.url().starts_with("rediss://127.0.0.1:"));
    let port = redis.port().to_string();
    let args = ["-h", "127.0.0.1", "-p", &port, "--tls", "--cacert", ca.to_str().unwrap(), "PING"];
    let output = std::process::Command::new("redis-cli").args(args).output().unwrap();
    assert_eq!(output.stdout, b"PONG\n", "{output:?}");
    redis.restart();
    assert_eq!(redis.cli(&["PING"]), "PONG");
}

#[test]
fn shared_server_ends_with_its_last_handle() {
    let (first, second) = (RedisServer::shared(), RedisServer::shared());
    assert!(Arc::ptr_eq(&first, &second));
    let port = first.port();
    drop(first);
    assert_eq!(second.cli(&["PING"]), "PONG");
    drop(second);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert_eq!(RedisServer::shared().cli(&["PING"]), "PONG");
}
