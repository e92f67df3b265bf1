//! The demo's SQLite database, `AE_DATA`: weather observations, and the results that jobs write.
//!
//! It is separate from the job store and stands for the effects of handlers. Writes are idempotent, because an attempt may
//! be repeated.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, Result, Row, TransactionBehavior, named_params, params, params_from_iter};
use serde::Serialize;

use crate::day::Day;

/// 2 922 daily observations. `data/README.md` names the source.
const OBSERVATIONS: &str = include_str!("../data/weather.csv");

/// Timeout for the lock while another process writes to the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS observation (
        id INTEGER PRIMARY KEY,
        location TEXT NOT NULL,
        date TEXT NOT NULL,
        precipitation REAL NOT NULL,
        temp_max REAL NOT NULL,
        temp_min REAL NOT NULL,
        wind REAL NOT NULL,
        category TEXT NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS observation_by_category ON observation (category, date);
    CREATE TABLE IF NOT EXISTS processed (
        job_id TEXT NOT NULL,
        observation_id INTEGER NOT NULL REFERENCES observation (id),
        feels_like REAL NOT NULL,
        temp_range REAL NOT NULL,
        summary TEXT NOT NULL,
        processed_at TEXT NOT NULL,
        PRIMARY KEY (job_id, observation_id)
    ) STRICT, WITHOUT ROWID;";

/// The weather of one place on one day.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Observation {
    pub(crate) id: i64,
    pub(crate) location: String,
    /// `YYYY-MM-DD`.
    pub(crate) date: String,
    /// Millimetres.
    pub(crate) precipitation: f64,
    /// °C.
    pub(crate) temp_max: f64,
    /// °C.
    pub(crate) temp_min: f64,
    /// Metres per second.
    pub(crate) wind: f64,
    pub(crate) category: String,
}

/// The result for one observation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Processed {
    pub(crate) observation: i64,
    /// °C.
    pub(crate) feels_like: f64,
    /// °C between the day's extremes.
    pub(crate) temp_range: f64,
    pub(crate) summary: String,
}

/// The open database. Its calls block.
pub(crate) struct Weather {
    // One connection is enough: a read takes a millisecond, and SQLite has one writer at a time.
    connection: Mutex<Connection>,
}

impl Weather {
    /// Opens the file, and fills it if it is new. Several processes may do so at the same time.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        write_ahead(&connection)?;
        // The lock is taken before the count, so exactly one of several processes loads the data. After a crash before
        // the commit, the next start loads them.
        let load = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        load.execute_batch(TABLES)?;
        if load.query_row("SELECT count(*) FROM observation", [], |row| row.get::<_, i64>(0))? == 0 {
            insert_observations(&load)?;
        }
        load.commit()?;
        Ok(Self { connection: Mutex::new(connection) })
    }

    /// Observations of a category from the day `from` to the day `to`, both included, oldest first.
    pub(crate) fn select(&self, category: &str, from: Option<Day>, to: Option<Day>) -> Result<Vec<Observation>> {
        // Dates in this format sort as text.
        let (from, to) = (from.map(|day| day.to_string()), to.map(|day| day.to_string()));
        self.connection()
            .prepare_cached(
                "SELECT id, location, date, precipitation, temp_max, temp_min, wind, category FROM observation
                 WHERE category = :category AND (:from IS NULL OR date >= :from) AND (:to IS NULL OR date <= :to)
                 ORDER BY date, id",
            )?
            .query_map(named_params! { ":category": category, ":from": from, ":to": to }, observation)?
            .collect()
    }

    /// Whether the table has rows.
    pub(crate) fn has_observations(&self) -> Result<bool> {
        self.connection().query_row("SELECT EXISTS (SELECT 1 FROM observation)", [], |row| row.get(0))
    }

    /// All categories, sorted.
    pub(crate) fn categories(&self) -> Result<Vec<String>> {
        self.connection()
            .prepare_cached("SELECT DISTINCT category FROM observation ORDER BY category")?
            .query_map([], |row| row.get(0))?
            .collect()
    }

    /// Writes the results of a job in one transaction. Idempotent: rows that exist are kept.
    pub(crate) fn save(&self, job: &str, at: &str, rows: &[Processed]) -> Result<()> {
        let mut connection = self.connection();
        let save = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut insert = save.prepare_cached("INSERT OR IGNORE INTO processed VALUES (?, ?, ?, ?, ?, ?)")?;
            for row in rows {
                insert.execute(params![job, row.observation, row.feels_like, row.temp_range, row.summary, at])?;
            }
        }
        save.commit()
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic rolls back the transaction.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Switches the file to write-ahead logging, so that readers do not wait for writers. Retries, because SQLite ignores the
/// busy timeout for this switch.
fn write_ahead(connection: &Connection) -> Result<()> {
    let until = Instant::now() + BUSY_TIMEOUT;
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())) {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < until => {
                thread::sleep(Duration::from_millis(5));
            }
            done => return done,
        }
    }
}

fn insert_observations(connection: &Connection) -> Result<()> {
    let mut insert = connection.prepare(
        "INSERT INTO observation (location, date, precipitation, temp_max, temp_min, wind, category)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?;
    // No field contains a comma. Numbers are bound as text, and the strict columns convert them.
    for line in OBSERVATIONS.lines().skip(1) {
        insert.execute(params_from_iter(line.split(',')))?;
    }
    Ok(())
}

fn observation(row: &Row<'_>) -> Result<Observation> {
    Ok(Observation {
        id: row.get(0)?,
        location: row.get(1)?,
        date: row.get(2)?,
        precipitation: row.get(3)?,
        temp_max: row.get(4)?,
        temp_min: row.get(5)?,
        wind: row.get(6)?,
        category: row.get(7)?,
    })
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::Barrier};

    use super::*;

    fn day(text: &str) -> Option<Day> {
        Some(text.parse().unwrap())
    }

    fn memory() -> Weather {
        Weather::open(Path::new(":memory:")).unwrap()
    }

    /// A temporary database file, removed on drop.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("weather-{name}-{}.db", std::process::id()));
            let scratch = Self(path);
            scratch.remove();
            scratch
        }

        fn remove(&self) {
            for end in ["", "-wal", "-shm"] {
                let mut path = self.0.clone().into_os_string();
                path.push(end);
                drop(std::fs::remove_file(path));
            }
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            self.remove();
        }
    }

    #[test]
    fn new_file_has_all_observations() {
        let weather = memory();
        let counts: Vec<(String, usize)> = weather
            .categories()
            .unwrap()
            .into_iter()
            .map(|category| (category.clone(), weather.select(&category, None, None).unwrap().len()))
            .collect();
        let expected = [("drizzle", 111), ("fog", 139), ("rain", 1087), ("snow", 119), ("sun", 1466)];
        assert_eq!(counts, expected.map(|(category, n)| (category.to_owned(), n)));
        let first = &weather.select("drizzle", None, day("2012-01-01")).unwrap()[0];
        assert_eq!((first.location.as_str(), first.date.as_str()), ("Seattle", "2012-01-01"));
        assert_eq!((first.precipitation, first.temp_max, first.temp_min, first.wind), (0.0, 12.8, 5.0, 4.7));
    }

    #[test]
    fn first_and_last_day_are_included() {
        let weather = memory();
        let count = |from, to| weather.select("rain", from, to).unwrap().len();
        assert_eq!(count(day("2012-01-01"), day("2012-01-31")), 23);
        assert_eq!(count(None, day("2012-01-31")), 23);
        assert_eq!(weather.select("snow", day("2014-01-01"), None).unwrap().len(), 42);
        let found = weather.select("rain", day("2012-01-02"), day("2012-01-02")).unwrap();
        assert!(!found.is_empty() && found.iter().all(|row| row.date == "2012-01-02"));
        assert_eq!(count(day("2012-01-31"), day("2012-01-01")), 0);
        assert_eq!(weather.select("hail", None, None).unwrap(), []);
    }

    #[test]
    fn repeated_save_keeps_the_first_rows() {
        let weather = memory();
        let rows: Vec<Processed> = (1..=3)
            .map(|id| Processed { observation: id, feels_like: 1.5, temp_range: 2.0, summary: "cold".to_owned() })
            .collect();
        for (job, at) in [("a", "first"), ("a", "second"), ("b", "second")] {
            weather.save(job, at, &rows).unwrap();
        }
        let connection = weather.connection();
        let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(count("SELECT count(*) FROM processed"), 6);
        assert_eq!(count("SELECT count(*) FROM processed WHERE job_id = 'a' AND processed_at = 'first'"), 3);
    }

    #[test]
    fn concurrent_opens_load_the_data_once() {
        // Several rounds, because without the retries of `write_ahead` only some fail.
        for round in 0..5 {
            let scratch = Scratch::new(&format!("many-{round}"));
            let barrier = Barrier::new(8);
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        barrier.wait();
                        let weather = Weather::open(&scratch.0).unwrap();
                        assert_eq!(weather.select("sun", None, None).unwrap().len(), 1466);
                    });
                }
            });
            let again = Weather::open(&scratch.0).unwrap();
            assert_eq!(again.select("sun", None, None).unwrap().len(), 1466);
        }
    }
}
