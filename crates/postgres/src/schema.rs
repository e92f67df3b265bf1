//! The schema: its name in SQL texts, its versions, and the migration to the newest. Must not know jobs.

use tokio_postgres::{Row, types::Type};

use crate::{fail::OpenError, link::Link};

/// The schema that this program needs.
pub(crate) const VERSION: i32 = 1;
/// The oldest version whose programs can use that schema.
const MIN_VERSION: i32 = 1;

/// The steps from each version to the next. A released step never changes.
const STEPS: [&[&str]; VERSION as usize] = [&[
    include_str!("sql/001_tables.sql"),
    include_str!("sql/time.sql"),
    include_str!("sql/insert.sql"),
    include_str!("sql/enqueue.sql"),
    include_str!("sql/read.sql"),
    include_str!("sql/client.sql"),
    include_str!("sql/claim.sql"),
    include_str!("sql/settle.sql"),
    include_str!("sql/sweep.sql"),
    include_str!("sql/stats.sql"),
    include_str!("sql/shared.sql"),
]];

/// The name of a schema: a plain identifier, which needs no quotes.
#[derive(Clone, Debug)]
pub(crate) struct Schema(Box<str>);

impl Schema {
    /// The schema of a name that the options have checked.
    pub(crate) fn new(name: &str) -> Self {
        Self(name.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// An SQL text with this schema's name instead of `ae`.
    pub(crate) fn sql(&self, text: &str) -> String {
        let mut sql = String::with_capacity(text.len() + 64);
        let mut rest = text;
        while let Some(at) = rest.find("ae.") {
            let (before, after) = rest.split_at(at);
            sql.push_str(before);
            let is_in_word = before.bytes().last().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            sql.push_str(if is_in_word { "ae" } else { &self.0 });
            rest = &after[2..];
        }
        sql.push_str(rest);
        sql
    }

    /// Creates or upgrades the schema. Processes that start at the same time wait for each other.
    ///
    /// # Errors
    /// Fails if the schema needs a newer program, and names both versions.
    pub(crate) async fn migrate(&self, link: &Link) -> Result<(), OpenError> {
        if self.version(link).await?.is_none_or(|(version, _)| version < VERSION) {
            link.query_opening(&self.migration(), &[]).await?;
        }
        match self.version(link).await? {
            Some((version, min_version)) if min_version > VERSION => Err(OpenError::Newer {
                server: link.server().address.clone(),
                found: version.unsigned_abs(),
                known: VERSION.unsigned_abs(),
            }),
            Some(_) => Ok(()),
            None => Err(OpenError::Refused(format!("schema {} has no version", self.as_str()))),
        }
    }

    /// The version of the schema, and the oldest version whose programs can use it. None if there is no schema.
    async fn version(&self, link: &Link) -> Result<Option<(i32, i32)>, OpenError> {
        let exists = "SELECT to_regclass($1) IS NOT NULL";
        let rows = link.query_opening(exists, &[(&self.sql("ae.meta"), Type::TEXT)]).await?;
        if !get::<bool>(rows.first(), 0)? {
            return Ok(None);
        }
        let rows = link.query_opening(&self.sql("SELECT version, min_version FROM ae.meta"), &[]).await?;
        Ok(Some((get(rows.first(), 0)?, get(rows.first(), 1)?)))
    }

    /// One statement, and so one transaction, that runs the missing steps.
    fn migration(&self) -> String {
        let mut sql = String::from(
            "DO $migration$ DECLARE found int := 0; BEGIN
            PERFORM pg_advisory_xact_lock(hashtext('ae.migration'));
            IF to_regnamespace('{schema}') IS NULL THEN CREATE SCHEMA {schema}; END IF;
            IF to_regclass('ae.meta') IS NOT NULL THEN EXECUTE 'SELECT version FROM ae.meta' INTO found; END IF;\n",
        )
        .replace("{schema}", self.as_str());
        for (from, texts) in STEPS.iter().enumerate() {
            let texts = texts.concat();
            let to = from + 1;
            sql.push_str(&format!("IF found <= {from} THEN EXECUTE $step${texts}$step$; EXECUTE 'UPDATE ae.meta SET version = {to}, min_version = {MIN_VERSION}'; END IF;\n"));
        }
        sql.push_str("END $migration$");
        self.sql(&sql)
    }
}

fn get<'r, T: tokio_postgres::types::FromSql<'r>>(row: Option<&'r Row>, at: usize) -> Result<T, OpenError> {
    let row = row.ok_or_else(|| OpenError::Refused("the schema has no version".to_owned()))?;
    row.try_get(at).map_err(|error| OpenError::Refused(format!("the schema's version cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schema_name_replaces_whole_words_only() {
        let schema = Schema::new("jobs_2");
        let sql = schema.sql("SELECT ae.f(ae.t.x), 'ae.types', mae.b FROM ae.t");
        assert_eq!(sql, "SELECT jobs_2.f(jobs_2.t.x), 'jobs_2.types', mae.b FROM jobs_2.t");
    }
}
