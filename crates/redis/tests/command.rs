//! The operator's command, as it is run.

// Helpers are no tests to this lint.
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
async fn it_mends_and_counts() {
    let server = RedisServer::with(&[("requirepass", "open-sesame")]);
    let store = open(&server, Options::new().prefix("mine")).await;
    let jobs = [insert(&store).await.unwrap(), insert(&store).await.unwrap()];
    server.cli(&["ZREM", "{mine}:queued:alpha", &jobs[0].id.to_string()]);
    server.cli(&["DEL", &format!("{{mine}}:body:{}", jobs[1].id)]);
    let said = |counts: [u8; 3]| {
        let [looked_at, mended, put_aside] = counts;
        (Some(0), format!("looked at  {looked_at}\nmended     {mended}\nput aside  {put_aside}\n"), String::new())
    };
    let url = server.url();
    assert_eq!(run(&["mend", &url], None), said([0, 0, 0]), "nobody's jobs begin with ae");
    assert_eq!(run(&["mend", "--prefix", "mine", &url], None), said([5, 1, 1]));
    assert_eq!(run(&["mend", "-", "--prefix", "mine"], Some(&url)), said([5, 0, 0]));
    assert_eq!(store.claim(&common::claim_of("alpha", 9)).await.unwrap().attempts[0].lease.job, jobs[0].id);
}

#[test]
fn it_says_what_is_wrong() {
    let nobody = "redis://user:secret-word@127.0.0.1:1";
    for (words, wrong) in [
        (&[][..], "what to do is missing"),
        (&["ment", nobody], "is no command"),
        (&["mend"], "address of the server is missing"),
        (&["mend", nobody, nobody], "more than one address"),
        (&["mend", "--prefix"], "--prefix needs a value"),
        (&["mend", "--prefix=x", nobody], "--prefix is no option"),
        (&["mend", "--prefix", "a b", nobody], "\"a b\" is no prefix"),
        (&["mend", "--root-certificate", "/nowhere/ca.pem", nobody], "/nowhere/ca.pem: No such file"),
        (&["mend", "secret-word"], "no address of a Redis server"),
        (&["mend", "-"], "REDIS_URL is not set"),
        (&["mend", nobody], "redis at 127.0.0.1:1: it cannot be reached"),
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
fn it_trusts_an_authority_that_it_is_told() {
    let server = RedisServer::tls();
    let ca = server.ca().unwrap();
    let (code, out, err) = run(&["mend", "--root-certificate", ca.to_str().unwrap(), &server.url()], None);
    assert!(code == Some(0) && out.contains("mended     0"), "{out}{err}");
    let (code, _, err) = run(&["mend", &server.url()], None);
    assert!(code == Some(1) && err.contains("certificate"), "{err}");
}
