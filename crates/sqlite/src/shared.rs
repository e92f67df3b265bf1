//! Roles and documents. Must not know jobs.

use std::time::Duration;

use async_endpoints_core::{
    Timestamp,
    store::{DocVersion, Document, PutOutcome, Role, RoleToken},
};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

use crate::{
    failure::Failure,
    state::{FAR_AHEAD, State},
};

struct Holder {
    id: Uuid,
    token: RoleToken,
    until: Timestamp,
}

impl State {
    /// The present holder of a role. An unreadable holder counts as none, since it cannot prove that it holds the role.
    fn holder(&self, name: &str) -> Result<Option<Holder>, Failure> {
        let mut find = self.conn.prepare_cached("SELECT holder, token, until FROM roles WHERE name = ?1")?;
        let holder = find.query_row([name], |row| {
            Ok(Holder {
                id: Uuid::from_bytes(row.get(0)?),
                token: RoleToken(Uuid::from_bytes(row.get(1)?)),
                until: Timestamp::from_micros(row.get(2)?),
            })
        });
        match holder.optional().map_err(Failure::from) {
            Ok(holder) => Ok(holder.filter(|holder| self.now < holder.until && holder.until <= self.now + FAR_AHEAD)),
            Err(Failure::Unreadable(_)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    pub(crate) fn role(&self, name: &str, id: Uuid, ttl: Duration) -> Result<Role, Failure> {
        Ok(match self.holder(name)? {
            Some(holder) if holder.id != id => match ttl {
                Duration::ZERO => Role::Resigned,
                _ => Role::Other(holder.until.since(self.now)),
            },
            _ if ttl.is_zero() => {
                self.conn.prepare_cached("DELETE FROM roles WHERE name = ?1")?.execute([name])?;
                Role::Resigned
            }
            held => {
                let token = held.map_or_else(|| RoleToken(Uuid::new_v4()), |holder| holder.token);
                let sql = "INSERT OR REPLACE INTO roles (name, holder, token, until) VALUES (?1, ?2, ?3, ?4)";
                let until = (self.now + ttl).as_micros();
                self.conn.prepare_cached(sql)?.execute(params![name, id.as_bytes(), token.0.as_bytes(), until])?;
                Role::Held(token)
            }
        })
    }

    pub(crate) fn put_document(
        &self,
        name: &str,
        expected: Option<DocVersion>,
        bytes: &[u8],
        role: Option<(&str, RoleToken)>,
    ) -> Result<PutOutcome, Failure> {
        if let Some((role, token)) = role
            && self.holder(role)?.is_none_or(|holder| holder.token != token)
        {
            return Ok(PutOutcome::Fenced);
        }
        if document(&self.conn, name)?.map(|document| document.version) != expected {
            return Ok(PutOutcome::Stale);
        }
        let version = Uuid::new_v4();
        self.conn
            .prepare_cached("INSERT OR REPLACE INTO documents (name, version, bytes) VALUES (?1, ?2, ?3)")?
            .execute(params![name, version.as_bytes(), bytes])?;
        Ok(PutOutcome::Stored(DocVersion(version)))
    }
}

pub(crate) fn document(conn: &Connection, name: &str) -> Result<Option<Document>, Failure> {
    let mut find = conn.prepare_cached("SELECT version, bytes FROM documents WHERE name = ?1")?;
    let found = find.query_row([name], |row| {
        let version = DocVersion(Uuid::from_bytes(row.get(0)?));
        Ok(Document { version, bytes: Bytes::from(row.get::<_, Vec<u8>>(1)?) })
    });
    Ok(found.optional()?)
}
