//! Roles, documents and the probe.

use async_endpoints_core::{
    JobId, JobStore as _, SharedState as _,
    store::{DocVersion, JobLookup, PutOutcome, Role, RoleToken, StatsQuery},
};
use bytes::Bytes;
use uuid::Uuid;

use super::run_concurrently;
use crate::{Rig, rig::LONG};

/// Requests the role `name` for `ttl` units.
async fn request(rig: &Rig, name: &str, holder: Uuid, ttl: u32) -> Role {
    rig.store.role(name, holder, rig.units(ttl)).await.expect("the store answers")
}

async fn acquire(rig: &Rig, name: &str, holder: Uuid, ttl: u32) -> RoleToken {
    match request(rig, name, holder, ttl).await {
        Role::Held(token) => token,
        other => panic!("{holder} gets the role, not {other:?}"),
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

async fn put_unfenced(rig: &Rig, expected: Option<DocVersion>, bytes: &'static [u8]) -> DocVersion {
    match put(rig, expected, bytes, None).await {
        PutOutcome::Stored(version) => version,
        other => panic!("the document is stored, not {other:?}"),
    }
}

/// A role has one holder, and the holder keeps its token when it renews the role.
pub async fn role_has_one_holder(rig: &Rig) {
    let (worker_a, worker_b) = (Uuid::new_v4(), Uuid::new_v4());
    let token = acquire(rig, "leader", worker_a, 900).await;
    assert_eq!(acquire(rig, "leader", worker_a, 900).await, token);
    let Role::Other(rest) = request(rig, "leader", worker_b, 900).await else { panic!("the role has a holder") };
    assert!(rest <= rig.units(900) && rest > rig.units(800), "{rest:?} until the role expires");
    assert_eq!(acquire(rig, "leader", worker_a, 900).await, token, "a refused request changes nothing");
    assert_ne!(acquire(rig, "other", worker_b, 900).await, token, "roles are independent");
}

/// An expired role is free, and its next holder gets another token.
pub async fn role_expires(rig: &Rig) {
    let (worker_a, worker_b) = (Uuid::new_v4(), Uuid::new_v4());
    let token = acquire(rig, "leader", worker_a, 4).await;
    rig.advance(5).await;
    let next = acquire(rig, "leader", worker_b, 900).await;
    assert_ne!(next, token);
    assert!(matches!(request(rig, "leader", worker_a, 900).await, Role::Other(_)));
}

/// A renewed role lasts from the time of its renewal.
pub async fn renewed_role_does_not_expire(rig: &Rig) {
    let (worker_a, worker_b) = (Uuid::new_v4(), Uuid::new_v4());
    let token = acquire(rig, "leader", worker_a, 20).await;
    for _ in 0..3 {
        rig.advance(8).await;
        assert_eq!(acquire(rig, "leader", worker_a, 20).await, token);
    }
    assert!(matches!(request(rig, "leader", worker_b, 20).await, Role::Other(_)));
}

/// A ttl of zero resigns the caller's role at once. The role of another holder is unchanged.
pub async fn resigned_role_is_free(rig: &Rig) {
    let (worker_a, worker_b) = (Uuid::new_v4(), Uuid::new_v4());
    assert_eq!(request(rig, "leader", worker_a, 0).await, Role::Resigned, "the caller was no holder");
    let token = acquire(rig, "leader", worker_a, 900).await;
    assert_eq!(request(rig, "leader", worker_b, 0).await, Role::Resigned);
    assert_eq!(acquire(rig, "leader", worker_a, 900).await, token, "only the holder can resign");
    assert_eq!(request(rig, "leader", worker_a, 0).await, Role::Resigned);
    let next = acquire(rig, "leader", worker_b, 900).await;
    assert_ne!(next, token);
    assert_eq!(request(rig, "leader", worker_a, 0).await, Role::Resigned);
    assert_eq!(acquire(rig, "leader", worker_b, 900).await, next);
    // A former holder gets a new token.
    assert_eq!(request(rig, "leader", worker_b, 0).await, Role::Resigned);
    assert_ne!(acquire(rig, "leader", worker_a, 900).await, token);
}

pub async fn concurrent_role_requests_have_one_winner(rig: &Rig) {
    let requests = (0..16).map(|_| {
        let (store, ttl) = (rig.store.clone(), rig.units(LONG));
        async move { store.role("leader", Uuid::new_v4(), ttl).await.expect("the store answers") }
    });
    let roles = run_concurrently(requests).await;
    assert_eq!(roles.iter().filter(|role| matches!(role, Role::Held(_))).count(), 1);
}

/// A document is created once. Later writes must name its current version.
pub async fn document_is_written_by_version(rig: &Rig) {
    assert_eq!(rig.store.document("alerts").await.expect("the store answers"), None);
    let unknown = DocVersion(Uuid::new_v4());
    assert_eq!(put(rig, Some(unknown), b"x", None).await, PutOutcome::Stale, "no document exists");
    let first = put_unfenced(rig, None, b"one").await;
    assert_eq!(put(rig, None, b"x", None).await, PutOutcome::Stale, "the document exists");
    let second = put_unfenced(rig, Some(first), b"\xfftwo\0").await;
    assert_ne!(first, second);
    assert_eq!(put(rig, Some(first), b"x", None).await, PutOutcome::Stale);
    let third = put_unfenced(rig, Some(second), b"\xfftwo\0").await;
    assert_ne!(second, third, "each write creates a version");
    let document = rig.store.document("alerts").await.expect("the store answers").expect("the document exists");
    assert_eq!((document.version, &document.bytes[..]), (third, &b"\xfftwo\0"[..]));
    assert_eq!(rig.store.document("other").await.expect("the store answers"), None);
    let empty = put_unfenced(rig, Some(third), b"").await;
    let document = rig.store.document("alerts").await.expect("the store answers").expect("an empty document exists");
    assert_eq!((document.version, document.bytes.len()), (empty, 0));
}

/// A fenced write needs the token of the role's current holder.
pub async fn role_fences_document_writes(rig: &Rig) {
    let (worker_a, worker_b) = (Uuid::new_v4(), Uuid::new_v4());
    let token = acquire(rig, "leader", worker_a, 20).await;
    let PutOutcome::Stored(first) = put(rig, None, b"one", Some(("leader", token))).await else {
        panic!("the holder writes")
    };
    let forged = RoleToken(Uuid::new_v4());
    assert_eq!(put(rig, Some(first), b"x", Some(("leader", forged))).await, PutOutcome::Fenced);
    assert_eq!(put(rig, Some(first), b"x", Some(("other", token))).await, PutOutcome::Fenced);
    rig.advance(21).await;
    assert_eq!(put(rig, Some(first), b"x", Some(("leader", token))).await, PutOutcome::Fenced, "the role has expired");
    let next = acquire(rig, "leader", worker_b, 900).await;
    assert_eq!(put(rig, Some(first), b"x", Some(("leader", token))).await, PutOutcome::Fenced);
    let PutOutcome::Stored(_) = put(rig, Some(first), b"two", Some(("leader", next))).await else {
        panic!("the next holder writes")
    };
    request(rig, "leader", worker_b, 0).await;
    let document = rig.store.document("alerts").await.expect("the store answers").expect("the document exists");
    assert_eq!(
        put(rig, Some(document.version), b"x", Some(("leader", next))).await,
        PutOutcome::Fenced,
        "the holder resigned"
    );
    assert_eq!(&document.bytes[..], b"two");
}

pub async fn concurrent_document_writes_have_one_winner(rig: &Rig) {
    let first = put_unfenced(rig, None, b"one").await;
    let writes = (0..16).map(|_| {
        let store = rig.store.clone();
        async move { store.put_document("alerts", Some(first), Bytes::new(), None).await.expect("the store answers") }
    });
    let outcomes = run_concurrently(writes).await;
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, PutOutcome::Stored(_))).count(), 1);
}

pub async fn probe_and_health_write_nothing(rig: &Rig) {
    for _ in 0..3 {
        rig.store.probe().await.expect("a working store passes the probe");
        rig.store.health().await.expect("a working store reports its health");
    }
    let stats = rig.stats(&StatsQuery { since_minute: Some(0), cutoffs: Vec::new() }).await;
    assert_eq!((stats.types.len(), stats.minutes.len(), stats.workers.len()), (0, 0, 0));
    assert_eq!(rig.ids(None).await, []);
    assert_eq!(rig.lookup(JobId::random()).await, JobLookup::NotFound);
}
