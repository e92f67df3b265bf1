//! Roles, small documents, and the probe.

use async_endpoints_core::{
    JobStore as _, SharedState as _,
    store::{DocVersion, JobLookup, PutOutcome, Role, RoleToken, StatsQuery},
};
use bytes::Bytes;
use uuid::Uuid;

use crate::{Rig, rig::LONG};

async fn role(rig: &Rig, name: &str, holder: Uuid, ttl: u32) -> Role {
    rig.store.role(name, holder, rig.units(ttl)).await.expect("the store answers")
}

async fn held(rig: &Rig, name: &str, holder: Uuid, ttl: u32) -> RoleToken {
    match role(rig, name, holder, ttl).await {
        Role::Held(token) => token,
        other => panic!("the role is free, not {other:?}"),
    }
}

async fn put(
    rig: &Rig,
    expected: Option<DocVersion>,
    bytes: &'static [u8],
    role: Option<(&str, RoleToken)>,
) -> PutOutcome {
    rig.store.put_document("alerts", expected, Bytes::from_static(bytes), role).await.expect("the store answers")
}

async fn stored(rig: &Rig, expected: Option<DocVersion>, bytes: &'static [u8]) -> DocVersion {
    match put(rig, expected, bytes, None).await {
        PutOutcome::Stored(version) => version,
        other => panic!("it is written, not {other:?}"),
    }
}

/// One holds a role; its token stays the same while it keeps it.
pub async fn role_has_one_holder(rig: &Rig) {
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    let token = held(rig, "leader", one, 900).await;
    assert_eq!(held(rig, "leader", one, 900).await, token);
    let Role::Other(left) = role(rig, "leader", two, 900).await else { panic!("it is held") };
    assert!(left <= rig.units(900) && left > rig.units(800), "{left:?} at most");
    assert_eq!(held(rig, "leader", one, 900).await, token, "asking took nothing away");
    let other = held(rig, "other", two, 900).await;
    assert_ne!(other, token, "roles have nothing to do with one another");
}

/// A role that is not kept is free, and its next holder has another token.
pub async fn role_expires(rig: &Rig) {
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    let token = held(rig, "leader", one, 4).await;
    rig.advance(5).await;
    let next = held(rig, "leader", two, 900).await;
    assert_ne!(next, token);
    assert!(matches!(role(rig, "leader", one, 900).await, Role::Other(_)));
}

/// A role that is kept lasts from then on.
pub async fn renewed_role_does_not_expire(rig: &Rig) {
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    let token = held(rig, "leader", one, 20).await;
    for _ in 0..3 {
        rig.advance(8).await;
        assert_eq!(held(rig, "leader", one, 20).await, token);
    }
    assert!(matches!(role(rig, "leader", two, 20).await, Role::Other(_)));
}

/// A ttl of zero gives a role up at once, and takes it from nobody else.
pub async fn resigned_role_is_free(rig: &Rig) {
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    assert_eq!(role(rig, "leader", one, 0).await, Role::Resigned, "never had it");
    let token = held(rig, "leader", one, 900).await;
    assert_eq!(role(rig, "leader", two, 0).await, Role::Resigned);
    assert_eq!(held(rig, "leader", one, 900).await, token, "another's goodbye changes nothing");
    assert_eq!(role(rig, "leader", one, 0).await, Role::Resigned);
    let next = held(rig, "leader", two, 900).await;
    assert_ne!(next, token);
    assert_eq!(role(rig, "leader", one, 0).await, Role::Resigned);
    assert_eq!(held(rig, "leader", two, 900).await, next);
    // Back to the first holder: still another token.
    assert_eq!(role(rig, "leader", two, 0).await, Role::Resigned);
    assert_ne!(held(rig, "leader", one, 900).await, token);
}

/// Many ask for a role: one holds it.
pub async fn concurrent_role_requests_have_one_winner(rig: &Rig) {
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (store, ttl) = (rig.store.clone(), rig.units(LONG));
            tokio::spawn(async move { store.role("leader", Uuid::new_v4(), ttl).await.expect("the store answers") })
        })
        .collect();
    let mut holders = 0;
    for task in tasks {
        holders += u32::from(matches!(task.await.expect("no task panics"), Role::Held(_)));
    }
    assert_eq!(holders, 1);
}

/// A document is created once, and then written by who knows its version.
pub async fn document_is_written_by_version(rig: &Rig) {
    assert_eq!(rig.store.document("alerts").await.expect("the store answers"), None);
    let unknown = DocVersion(Uuid::new_v4());
    assert_eq!(put(rig, Some(unknown), b"x", None).await, PutOutcome::Stale, "there is none yet");
    let first = stored(rig, None, b"one").await;
    assert_eq!(put(rig, None, b"x", None).await, PutOutcome::Stale, "there is one");
    let second = stored(rig, Some(first), b"\xfftwo\0").await;
    assert_ne!(first, second);
    assert_eq!(put(rig, Some(first), b"x", None).await, PutOutcome::Stale);
    let third = stored(rig, Some(second), b"\xfftwo\0").await;
    assert_ne!(second, third, "each write has its version");
    let document = rig.store.document("alerts").await.expect("the store answers").expect("it was written");
    assert_eq!((document.version, &document.bytes[..]), (third, &b"\xfftwo\0"[..]));
    assert_eq!(rig.store.document("other").await.expect("the store answers"), None);
    let empty = stored(rig, Some(third), b"").await;
    let document = rig.store.document("alerts").await.expect("the store answers").expect("empty is not absent");
    assert_eq!((document.version, document.bytes.len()), (empty, 0));
}

/// A document that a role guards is written by the holder alone.
pub async fn role_fences_document_writes(rig: &Rig) {
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    let token = held(rig, "leader", one, 20).await;
    let PutOutcome::Stored(first) = put(rig, None, b"one", Some(("leader", token))).await else { panic!("it leads") };
    let forged = RoleToken(Uuid::new_v4());
    assert_eq!(put(rig, Some(first), b"x", Some(("leader", forged))).await, PutOutcome::Fenced);
    assert_eq!(put(rig, Some(first), b"x", Some(("other", token))).await, PutOutcome::Fenced);
    rig.advance(21).await;
    assert_eq!(put(rig, Some(first), b"x", Some(("leader", token))).await, PutOutcome::Fenced, "it led too long ago");
    let next = held(rig, "leader", two, 900).await;
    assert_eq!(put(rig, Some(first), b"x", Some(("leader", token))).await, PutOutcome::Fenced);
    let PutOutcome::Stored(_) = put(rig, Some(first), b"two", Some(("leader", next))).await else {
        panic!("it leads now")
    };
    role(rig, "leader", two, 0).await;
    let document = rig.store.document("alerts").await.expect("the store answers").expect("it was written");
    assert_eq!(put(rig, Some(document.version), b"x", Some(("leader", next))).await, PutOutcome::Fenced, "it resigned");
    assert_eq!(&document.bytes[..], b"two");
}

/// Many write one version: one wins.
pub async fn concurrent_document_writes_have_one_winner(rig: &Rig) {
    let first = stored(rig, None, b"one").await;
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let store = rig.store.clone();
            let write = async move { store.put_document("alerts", Some(first), Bytes::new(), None).await };
            tokio::spawn(write)
        })
        .collect();
    let mut written = 0;
    for task in tasks {
        let answer = task.await.expect("no task panics").expect("the store answers");
        written += u32::from(matches!(answer, PutOutcome::Stored(_)));
    }
    assert_eq!(written, 1);
}

/// A probe answers, and leaves nothing behind.
pub async fn probe_writes_nothing(rig: &Rig) {
    for _ in 0..3 {
        rig.store.probe().await.expect("a store that works says so");
    }
    let stats = rig.stats(&StatsQuery { since_minute: Some(0), cutoffs: Vec::new() }).await;
    assert_eq!((stats.types.len(), stats.minutes.len(), stats.workers.len()), (0, 0, 0));
    assert_eq!(rig.ids(None).await, []);
    let unknown = async_endpoints_core::JobId::random();
    assert_eq!(rig.lookup(unknown).await, JobLookup::NotFound);
}
