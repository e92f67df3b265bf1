//! Runs the operator's command.

// The lint does not know helpers of tests.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::{Command, Output};

use async_endpoints_core::JobStore as _;
use async_endpoints_redis::Options;
use async_endpoints_testkit::server::RedisServer;
use common::{insert, open};

fn run(words: &[&str], url: Option<&str>) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_async-endpoints-redis"));
    let Output { status, stdout, stderr } =
        command.args(words).env_remove("REDIS_URL").envs(url.map(|url| ("REDIS_URL", url))).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[tokio::test]
async fn repair_prints_its_counts() {
    let server = RedisServer::with(&[("requirepass", "open-sesame")]);
    let store = open(&server, Options::new().prefix("mine")).await;
    let jobs = [insert(&store).await.unwrap(), insert(&store).await.unwrap()];
    server.cli(&["ZREM", "{mine}:queued:alpha", &jobs[0].id.to_string()]);
    server.cli(&["DEL", &format!("{{mine}}:body:{}", jobs[1].id)]);
    let output = |counts: [u8; 3]| {
        let [checked, repaired, quarantined] = counts;
        (
            Some(0),
            format!("checked      {checked}\nrepaired     {repaired}\nquarantined  {quarantined}\n"),
            String::new(),
        )
    };
    let url = server.url();
    assert_eq!(run(&["repair", &url], None), output([0, 0, 0]), "no job has the prefix ae");
    assert_eq!(run(&["repair", "--prefix", "mine", &url], None), output([5, 1, 1]));
    assert_eq!(run(&["repair", "-", "--prefix", "mine"], Some(&url)), output([5, 0, 0]));
    assert_eq!(store.claim(&common::claim_of("alpha", 9)).await.unwrap().attempts[0].lease.job, jobs[0].id);
}

#[test]
fn invalid_arguments_are_explained() {
    let unreachable = "redis://user:secret-word@127.0.0.1:1";
    for (words, wrong) in [
        (&[][..], "missing command"),
        (&["ment", unreachable], "unknown command"),
        (&["repair"], "missing address of the server"),
        (&["repair", unreachable, unreachable], "more than one address"),
        (&["repair", "--prefix"], "missing value of --prefix"),
        (&["repair", "--prefix=x", unreachable], "unknown option --prefix"),
        (&["repair", "--prefix", "a b", unreachable], "invalid prefix \"a b\""),
        (&["repair", "--root-certificate", "/nowhere/ca.pem", unreachable], "/nowhere/ca.pem: No such file"),
        (&["repair", "secret-word"], "invalid address of a Redis server"),
        (&["repair", "-"], "REDIS_URL is not set"),
        (&["repair", unreachable], "redis at 127.0.0.1:1: the server cannot be reached"),
    ] {
        let (code, out, err) = run(words, None);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{words:?}: {err}");
        assert!(err.contains(wrong) && !err.contains("secret-word"), "{words:?}: {err}");
    }
    let (code, out, err) = run(&["--help"], None);
    assert!(code == Some(0) && out.starts_with("usage: ") && err.is_empty(), "{out}{err}");
}

#[cfg(feature = "tls")]
#[test]
fn root_certificate_is_trusted() {
    let server = RedisServer::tls();
    let ca = server.ca().unwrap();
    let (code, out, err) = run(&["repair", "--root-certificate", ca.to_str().unwrap(), &server.url()], None);
    assert!(code == Some(0) && out.contains("repaired     0"), "{out}{err}");
    let (code, _, err) = run(&["repair", &server.url()], None);
    assert!(code == Some(1) && err.contains("certificate"), "{err}");
}
