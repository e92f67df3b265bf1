//! Roles and documents. Must not know jobs.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    store::{DocVersion, Document, PutOutcome, Role, RoleToken},
    time::Timestamp,
};

#[derive(Default)]
pub(super) struct Shared {
    roles: HashMap<String, Holder>,
    documents: HashMap<String, Document>,
}

struct Holder {
    id: Uuid,
    token: RoleToken,
    until: Timestamp,
}

impl Shared {
    pub(super) fn role(&mut self, name: &str, id: Uuid, ttl: Duration, now: Timestamp) -> Role {
        let holder = self.roles.get_mut(name).filter(|holder| holder.until > now);
        match holder {
            Some(holder) if holder.id != id => match ttl {
                Duration::ZERO => Role::Resigned,
                _ => Role::Other(holder.until.since(now)),
            },
            _ if ttl.is_zero() => {
                self.roles.remove(name);
                Role::Resigned
            }
            Some(holder) => {
                holder.until = now + ttl;
                Role::Held(holder.token)
            }
            None => {
                let token = RoleToken(Uuid::new_v4());
                self.roles.insert(name.to_owned(), Holder { id, token, until: now + ttl });
                Role::Held(token)
            }
        }
    }

    pub(super) fn document(&self, name: &str) -> Option<Document> {
        self.documents.get(name).cloned()
    }

    pub(super) fn put(
        &mut self,
        name: &str,
        expected: Option<DocVersion>,
        bytes: Bytes,
        role: Option<(&str, RoleToken)>,
        now: Timestamp,
    ) -> PutOutcome {
        let holds = |(role, token): (&str, RoleToken)| {
            self.roles.get(role).is_some_and(|holder| holder.token == token && holder.until > now)
        };
        if !role.is_none_or(holds) {
            return PutOutcome::Fenced;
        }
        if self.documents.get(name).map(|document| document.version) != expected {
            return PutOutcome::Stale;
        }
        let version = DocVersion(Uuid::new_v4());
        self.documents.insert(name.to_owned(), Document { version, bytes });
        PutOutcome::Stored(version)
    }
}
