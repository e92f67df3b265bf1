//! The model of roles and of one document. Must not know jobs.

use std::time::Duration;

use async_endpoints_core::{
    Store, Timestamp,
    store::{DocVersion, PutOutcome, Role, RoleToken},
};
use bytes::Bytes;
use uuid::Uuid;

use super::{
    compare::{Comparison, answered, odd, same},
    ops::Which,
};

/// A holder of a role.
#[derive(Copy, Clone, Debug)]
struct Held {
    holder: Uuid,
    token: RoleToken,
    until: Timestamp,
}

/// Two roles and a document.
#[derive(Debug, Default)]
pub(super) struct Shared {
    held: [Option<Held>; 2],
    former: [Option<RoleToken>; 2],
    written: Option<(DocVersion, Bytes)>,
    former_version: Option<DocVersion>,
    writes: u64,
}

const ROLES: [&str; 2] = ["sweeper", "alerts"];

impl Shared {
    pub(super) async fn role(
        &mut self,
        store: &dyn Store,
        now: Timestamp,
        name: bool,
        holder: u8,
        ttl: u8,
    ) -> Comparison {
        let at = usize::from(name);
        let holder = Uuid::from_u128(100 + u128::from(holder));
        let ttl = if ttl == 0 { Duration::ZERO } else { odd(ttl, 13) };
        let answer = store.role(ROLES[at], holder, ttl).await.map_err(answered)?;
        let live = self.held[at].filter(|held| held.until > now);
        let wrong = Err(format!("{answer:?} to {holder} for {ttl:?}, it was {:?}", self.held[at]));
        match (answer, live) {
            (Role::Resigned, _) if ttl.is_zero() => {
                if let Some(held) = self.held[at].filter(|held| held.holder == holder) {
                    self.former[at] = Some(held.token);
                    self.held[at] = None;
                }
                Ok(())
            }
            _ if ttl.is_zero() => wrong,
            (Role::Other(left), Some(held)) if held.holder != holder && left == held.until.since(now) => Ok(()),
            (Role::Held(token), Some(held)) if held.holder == holder && token == held.token => {
                self.held[at] = Some(Held { until: now + ttl, ..held });
                Ok(())
            }
            (Role::Held(token), None) if self.may_be(at, holder, token) => {
                let before = self.held[at].replace(Held { holder, token, until: now + ttl });
                self.former[at] = before.map(|held| held.token).or(self.former[at]);
                Ok(())
            }
            _ => wrong,
        }
    }

    /// Whether a free role may be given with this token: a new holder gets a new token, the former holder may keep its token.
    fn may_be(&self, at: usize, holder: Uuid, token: RoleToken) -> bool {
        self.former[at] != Some(token) && self.held[at].is_none_or(|held| held.token != token || held.holder == holder)
    }

    fn token(&self, at: usize, which: Which) -> RoleToken {
        let unknown = RoleToken(Uuid::from_u128(7));
        match which {
            Which::Absent => unknown,
            Which::Current => self.held[at].map_or(unknown, |held| held.token),
            Which::Former => self.former[at].unwrap_or(unknown),
        }
    }

    pub(super) async fn document(
        &mut self,
        store: &dyn Store,
        now: Timestamp,
        version: Which,
        role: Option<(bool, Which)>,
    ) -> Comparison {
        let current = self.written.as_ref().map(|written| written.0);
        let expected = match version {
            Which::Absent => None,
            Which::Current => current,
            Which::Former => Some(self.former_version.unwrap_or(DocVersion(Uuid::from_u128(8)))),
        };
        let role = role.map(|(name, which)| (usize::from(name), self.token(usize::from(name), which)));
        let fenced =
            role.is_some_and(|(at, token)| !self.held[at].is_some_and(|held| held.token == token && held.until > now));
        self.writes += 1;
        let bytes = Bytes::from(self.writes.to_string());
        let guard = role.map(|(at, token)| (ROLES[at], token));
        let answer = store.put_document("state", expected, bytes.clone(), guard).await.map_err(answered)?;
        match answer {
            PutOutcome::Stored(version) if !fenced && expected == current && Some(version) != current => {
                self.former_version = current;
                self.written = Some((version, bytes));
            }
            PutOutcome::Fenced if fenced => {}
            PutOutcome::Stale if expected != current => {}
            _ => return Err(format!("{answer:?} to {expected:?}; it is {current:?}; fenced: {fenced}")),
        }
        let document = store.document("state").await.map_err(answered)?;
        let found = document.map(|document| (document.version, document.bytes));
        same("the document", &found, &self.written)
    }
}
