//! Job types: numbers and names, which never change once they are stored.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_endpoints_core::{JobName, store::Result};
use tokio_postgres::types::Type;

use crate::{
    link::{Lane, Link},
    schema::Schema,
    value::{Columns, Read, answer},
};

/// The types that this process has seen.
#[derive(Default)]
pub(crate) struct Types(Mutex<Known>);

#[derive(Default)]
struct Known {
    numbers: HashMap<JobName, i32>,
    names: HashMap<i32, JobName>,
}

impl Types {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, number: i32, name: JobName) {
        let mut known = self.known();
        known.numbers.insert(name.clone(), number);
        known.names.insert(number, name);
    }

    /// The number of a type, which is stored if it is new.
    pub(crate) async fn number(&self, link: &Link, schema: &Schema, name: &JobName) -> Result<i32> {
        let known = self.known().numbers.get(name).copied();
        if let Some(number) = known {
            return Ok(number);
        }
        let rows =
            link.query(Lane::Submit, &schema.sql("SELECT ae.type_v1($1)"), &[(&name.as_str(), Type::TEXT)]).await?;
        let number = answer(rows.first().ok_or_else(|| "no row".to_owned()).and_then(|row| Columns::new(row).read()))?;
        self.add(number, name.clone());
        Ok(number)
    }

    /// The numbers of types, in order. None for a type that is not stored.
    pub(crate) async fn numbers(&self, link: &Link, schema: &Schema, names: &[&JobName]) -> Result<Vec<Option<i32>>> {
        self.look_up(link, &schema.sql("SELECT type, name FROM ae.types WHERE name = ANY ($1)"), names).await
    }

    /// The numbers of types, in order, which are stored if they are new. None for a type whose first job is in an open transaction.
    pub(crate) async fn store(&self, link: &Link, schema: &Schema, names: &[&JobName]) -> Result<Vec<Option<i32>>> {
        self.look_up(link, &schema.sql("SELECT type, name FROM ae.types_v1($1)"), names).await
    }

    async fn look_up(&self, link: &Link, sql: &str, names: &[&JobName]) -> Result<Vec<Option<i32>>> {
        let find = |names: &[&JobName]| -> Vec<Option<i32>> {
            let known = self.known();
            names.iter().map(|name| known.numbers.get(*name).copied()).collect()
        };
        let numbers = find(names);
        if numbers.iter().all(Option::is_some) {
            return Ok(numbers);
        }
        let texts: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        self.load(&link.query(Lane::Work, sql, &[(&texts, Type::TEXT_ARRAY)]).await?)?;
        Ok(find(names))
    }

    /// Makes [`name`](Self::name) find all of these.
    pub(crate) async fn require(
        &self,
        link: &Link,
        schema: &Schema,
        numbers: impl IntoIterator<Item = i32>,
    ) -> Result<()> {
        let unknown = {
            let known = self.known();
            numbers.into_iter().any(|number| !known.names.contains_key(&number))
        };
        if unknown {
            self.load(&link.query(Lane::Work, &schema.sql("SELECT type, name FROM ae.types"), &[]).await?)?;
        }
        Ok(())
    }

    fn load(&self, rows: &[tokio_postgres::Row]) -> Result<()> {
        for row in rows {
            let mut columns = Columns::new(row);
            let number = answer(columns.read())?;
            let name = answer(columns.read::<&str>())?;
            // An invalid name is found when a job of it is read.
            if let Ok(name) = JobName::new(name) {
                self.add(number, name);
            }
        }
        Ok(())
    }

    pub(crate) fn name(&self, number: i32) -> Read<JobName> {
        self.known().names.get(&number).cloned().ok_or_else(|| format!("unknown type {number}"))
    }
}
