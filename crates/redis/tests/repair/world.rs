//! Jobs in all states, and random damage to their keys. Knows nothing of repairs.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_endpoints_core::{
    JobId, JobStatus, JobStore as _, StoreError,
    job::Digest,
    store::{
        Histogram, InsertOutcome, JobLookup, ListFilter, NewJob, Outcome, Page, Report, ReportedProgress, Settled,
        StatsQuery, TypeCutoffs,
    },
};
use async_endpoints_redis::{Options, RedisStore};
use async_endpoints_testkit::{
    ManualClock,
    jobs::{completed, digest, error, job, key, line, name},
    server::RedisServer,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::common::{self, HOUR, claim_of, open, settlement, sweep};

const TYPES: [&str; 2] = ["alpha", "beta"];
/// The owner of jobs without a key, which is readable text, and the index of its jobs.
const OWNER: Digest = digest(b'a');
const OWNED: &str = "owned:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// Terms of a later format, and invalid terms: a priority of two digits, a time that is not exact in a double.
const TERMS: &str = "2 1795000000000000 4 3 5 3600000000 2 0 more";
const WRONG: &str = "1 99999999999999999999 44 3 5 3600000000 2 0";
/// Fields of `meta` that hold numbers, and values that are no exact numbers.
pub(crate) const META: [&str; 4] = ["order", "swept", "quiet", "repaired"];
pub(crate) const NUMBERS: [&str; 8] =
    ["?", "", "nan", "inf", "1.5", "-9223372036854775808", "9223372036854775807", "99999999999999999999"];
pub(crate) const LEASE: Duration = Duration::from_secs(30);

/// A store in a namespace of its own, with methods that damage its keys.
pub(crate) struct World {
    pub(crate) server: std::sync::Arc<RedisServer>,
    pub(crate) prefix: String,
    pub(crate) clock: ManualClock,
    pub(crate) store: RedisStore,
    pub(crate) rng: StdRng,
    pub(crate) jobs: Vec<NewJob>,
    /// Jobs that completed. None may complete twice.
    pub(crate) completed: BTreeSet<JobId>,
}

impl World {
    pub(crate) async fn new(seed: u64) -> Self {
        let (server, clock, prefix) = (RedisServer::shared(), ManualClock::new(), common::prefix());
        let options = Options::new().prefix(prefix.clone()).clock(clock.clone()).check_every(HOUR);
        let store = open(&server, options).await;
        let rng = StdRng::seed_from_u64(seed);
        Self { server, prefix, clock, store, rng, jobs: Vec::new(), completed: BTreeSet::new() }
    }

    pub(crate) fn cli(&self, words: &[&str]) -> String {
        self.server.cli(words)
    }

    pub(crate) fn key(&self, rest: impl std::fmt::Display) -> String {
        format!("{{{}}}:{rest}", self.prefix)
    }

    /// Jobs in all states.
    pub(crate) async fn work(&mut self) {
        self.store.reclaim(&sweep(LEASE)).await.unwrap();
        for number in 0..50 {
            let delayed = self.rng.random_bool(0.3);
            let delay = if delayed { Duration::from_secs(self.rng.random_range(1..100)) } else { Duration::ZERO };
            let key = self.rng.random_bool(0.4).then(|| key(&format!("k{number}")));
            let owner = key.is_none().then_some(OWNER);
            let new = job(TYPES[number % 2], HOUR).key(key).owner(owner).delay(delay);
            assert!(matches!(self.store.insert(new.clone()).await.unwrap(), InsertOutcome::Inserted { .. }));
            self.jobs.push(new);
            self.clock.advance(Duration::from_millis(500));
            if self.rng.random_bool(0.4) {
                self.attempt().await;
            }
        }
    }

    async fn attempt(&mut self) {
        let claim = async_endpoints_core::store::Claim {
            lease: LEASE * 20,
            ..claim_of(TYPES.choose(&mut self.rng).unwrap(), 2)
        };
        for attempt in self.store.claim(&claim).await.unwrap().attempts {
            let progress = ReportedProgress { completed: 1, total: Some(2), percent: Some(50.0), message: None };
            let report = Report { lease: attempt.lease, progress: Some(progress), logs: vec![line("one")] };
            self.store.report(&[report]).await.unwrap();
            let outcome = match self.rng.random_range(0..6) {
                0 => Outcome::Retry { delay: Duration::from_secs(20), error: error("R") },
                1 => Outcome::Failed { error: error("F") },
                2 => Outcome::Released,
                3 => completed("1"),
                4 => {
                    self.store.cancel(attempt.lease.job, &error("C")).await.unwrap();
                    continue;
                }
                _ => continue,
            };
            if matches!(outcome, Outcome::Completed { .. }) {
                self.completed.insert(attempt.lease.job);
            }
            self.store.settle(&[settlement(attempt.lease, outcome)]).await.unwrap();
        }
    }

    fn any_index(&mut self) -> String {
        if self.rng.random_bool(0.1) {
            return self.key(OWNED);
        }
        let index = ["queued", "scheduled", "running", "completed", "failed", "canceled", "accepted"];
        let (index, kind) = (index.choose(&mut self.rng).unwrap(), TYPES.choose(&mut self.rng).unwrap());
        self.key(format_args!("{index}:{kind}"))
    }

    fn any_score(&mut self) -> String {
        let time = self.clock_now();
        let scores = ["0", "-5", "inf", "-inf", "1.5", "1e300", "9007199254740993", &time].map(str::to_owned);
        scores.choose(&mut self.rng).unwrap().clone()
    }

    fn clock_now(&self) -> String {
        use async_endpoints_core::Clock as _;
        self.clock.now().as_micros().to_string()
    }

    /// Makes one random change to the stored keys. Returns a description.
    pub(crate) fn damage(&mut self) -> String {
        let id = self.jobs.choose(&mut self.rng).unwrap().id.to_string();
        let (index, score) = (self.any_index(), self.any_score());
        let [hash, body, end, past] = ["job", "body", "end", "past"].map(|of| self.key(format_args!("{of}:{id}")));
        let words: Vec<String> = match self.rng.random_range(0..17) {
            0 => {
                for index in ["queued", "scheduled", "running", "completed", "failed", "canceled", "accepted"] {
                    for kind in TYPES {
                        self.cli(&["ZREM", &self.key(format_args!("{index}:{kind}")), &id]);
                    }
                }
                self.cli(&["ZREM", &self.key(OWNED), &id]);
                return format!("all entries of {id}");
            }
            1 | 2 => vec!["ZADD".into(), index, score, id],
            3 => vec!["ZADD".into(), index, score, JobId::random().to_string()],
            4 => vec!["ZADD".into(), index, "1".into(), "not an id".into()],
            5 => vec!["DEL".into(), hash],
            6 | 7 => {
                let fields = [
                    "s", "t", "w", "w", "w", "f", "d", "n", "a", "st", "du", "en", "tk", "rs", "k", "l", "sd", "ls",
                    "ll", "lb", "lg",
                ];
                let values = [
                    "",
                    "garbage",
                    "-1",
                    "1.5",
                    "77",
                    "99999999999999999999",
                    "1",
                    "0",
                    "1 2 3",
                    "nan",
                    "inf",
                    "1e999",
                    TERMS,
                    WRONG,
                ];
                let (field, value) = (fields.choose(&mut self.rng).unwrap(), values.choose(&mut self.rng).unwrap());
                // The name of another type would be valid.
                let value = if *field == "t" { &"?" } else { value };
                if self.rng.random_bool(0.5) {
                    vec!["HSET".into(), hash, (*field).into(), (*value).into()]
                } else {
                    vec!["HDEL".into(), hash, (*field).into()]
                }
            }
            8 => {
                let place = [hash, body, end, past].choose(&mut self.rng).unwrap().clone();
                self.cli(&["DEL", &place]);
                vec!["SADD".into(), place, "another type".into()]
            }
            9 => vec!["DEL".into(), body],
            10 => vec!["SREM".into(), self.key("types"), "alpha".into()],
            11 => vec![["SREM", "SADD"].choose(&mut self.rng).unwrap().to_string(), self.key("delayed:alpha"), id],
            12 => {
                if self.rng.random_bool(0.5) {
                    vec!["ZREM".into(), self.key("leased"), id]
                } else {
                    vec!["ZADD".into(), self.key("leased"), score, id]
                }
            }
            13 => {
                let record = self.jobs.iter().filter_map(|job| Some((job.name.as_str(), job.key.as_ref()?.as_str())));
                let record =
                    record.collect::<Vec<_>>().choose(&mut self.rng).map(|(kind, key)| format!("key:{kind}::{key}"));
                vec!["DEL".into(), self.key(record.unwrap_or_default())]
            }
            14 => vec!["SADD".into(), self.key("types"), "no name!".into()],
            15 => vec![
                "HSET".into(),
                self.key("meta"),
                META.choose(&mut self.rng).unwrap().to_string(),
                NUMBERS.choose(&mut self.rng).unwrap().to_string(),
            ],
            _ => {
                let value = *NUMBERS.choose(&mut self.rng).unwrap();
                self.miscount(value);
                return format!("all counts of this minute: {value}");
            }
        };
        let answer = self.cli(&words.iter().map(String::as_str).collect::<Vec<_>>());
        format!("{words:?}: {answer}")
    }

    /// Sets all counts of the current minute to a value: all that scripts may count, given that the clock moves by 500 ms.
    pub(crate) fn miscount(&self, value: &str) {
        let minute = self.key(format_args!("minute:{}", self.clock_now().parse::<i64>().unwrap() / 60_000_000));
        let mut words = vec!["HSET".to_owned(), minute];
        let durations = (0..200).map(|halves| Duration::from_millis(500 * halves));
        let buckets: BTreeSet<u16> = durations.map(Histogram::bucket_of).collect();
        for kind in TYPES {
            let plain = ["new", "wait", "run", "slow", "e4", "e5", "5"].map(str::to_owned);
            let timed = |bucket| ["q", "0", "1", "2", "3", "4"].map(|of| format!("{of}|{bucket}"));
            for what in plain.into_iter().chain(buckets.iter().flat_map(timed)) {
                words.extend([format!("{kind}|{what}"), value.to_owned()]);
            }
        }
        self.cli(&words.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Calls that read many jobs succeed, whatever is damaged.
    pub(crate) async fn survey(&self) {
        let cutoffs = TYPES.map(|kind| TypeCutoffs {
            name: name(kind),
            slow_after: LEASE,
            overdue_after: LEASE,
            stuck_after: LEASE,
        });
        self.store.stats(&StatsQuery { since_minute: Some(0), cutoffs: cutoffs.into() }).await.expect("statistics");
        for status in JobStatus::ALL.iter().copied().map(Some).chain([None]) {
            let (filter, mut cursor) = (ListFilter { status, ..ListFilter::default() }, None);
            for pages in 0.. {
                assert!(pages < 100, "the list has no end");
                let page = self.store.list(&filter, &Page { cursor, limit: 7 }).await.expect("listed");
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
        }
        let ids: Vec<JobId> = self.jobs.iter().map(|job| job.id).collect();
        self.store.versions(&ids).await.expect("versions");
        for id in ids {
            match self.store.get(id).await {
                Ok(_) | Err(StoreError::Unreadable(_) | StoreError::Corrupt(_)) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    /// Runs all jobs until none is left.
    pub(crate) async fn drain(&mut self) {
        for _ in 0..40 {
            self.clock.advance(Duration::from_secs(20));
            self.store.reclaim(&sweep(Duration::from_secs(25))).await.expect("reclaimed");
            for kind in TYPES {
                loop {
                    let claimed = self.store.claim(&claim_of(kind, 8)).await.expect("claimed");
                    if claimed.attempts.is_empty() {
                        break;
                    }
                    for attempt in claimed.attempts {
                        let settle = settlement(attempt.lease, completed("1"));
                        let settled = self.store.settle(&[settle]).await.expect("settled").remove(0);
                        if settled == Settled::Settled(JobStatus::Completed) {
                            assert!(self.completed.insert(attempt.lease.job), "{} completed twice", attempt.lease.job);
                        }
                    }
                }
            }
        }
    }

    /// The indexes that contain an id.
    fn places(&self, id: JobId) -> Vec<String> {
        let script = "local found = {} \
            for _, index in ipairs({'queued', 'scheduled', 'running', 'completed', 'failed', 'canceled'}) do \
              for at = 2, #ARGV do local place = index .. ':' .. ARGV[at] \
                if redis.call('ZSCORE', KEYS[1] .. place, ARGV[1]) then found[#found + 1] = place end end end \
            return found";
        let found = self.cli(&["EVAL", script, "1", &self.key(""), &id.to_string(), TYPES[0], TYPES[1]]);
        found.lines().filter(|place| !place.is_empty()).map(str::to_owned).collect()
    }

    fn quarantine(&self) -> BTreeMap<String, String> {
        let text = self.cli(&["HGETALL", &self.key("quarantine")]);
        let lines: Vec<&str> = text.lines().collect();
        lines.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect()
    }

    /// After a repair, each job is in the index of its state, or is quarantined with a reason.
    pub(crate) async fn check(&self) {
        let quarantine = self.quarantine();
        assert!(quarantine.values().all(|why| why.splitn(3, ' ').count() == 3), "{quarantine:?}");
        let stats = self.store.stats(&StatsQuery::default()).await.unwrap();
        assert_eq!(stats.quarantined, quarantine.len() as u64);
        let of_owner = ListFilter { owner: Some(OWNER), ..ListFilter::default() };
        let page = self.store.list(&of_owner, &Page { cursor: None, limit: 200 }).await.unwrap();
        let listed: BTreeSet<JobId> = page.jobs.iter().map(|job| job.id).collect();
        for job in &self.jobs {
            let places = self.places(job.id);
            if quarantine.contains_key(&job.id.to_string()) {
                assert_eq!(places, Vec::<String>::new(), "{} is quarantined: {:?}", job.id, quarantine);
                continue;
            }
            match self.store.get(job.id).await {
                Ok(JobLookup::Found(view)) => {
                    let index =
                        ["queued", "scheduled", "running", "completed", "failed", "canceled"][view.status as usize];
                    assert_eq!(places, [format!("{index}:{}", view.name)], "{}", job.id);
                    let owned = self.cli(&["ZSCORE", &self.key(OWNED), &job.id.to_string()]);
                    assert!(view.owner.is_none() || !owned.trim().is_empty(), "{}", job.id);
                    // Entries of jobs of another owner stay, and the owner's list skips them.
                    assert_eq!(view.owner.is_some(), listed.contains(&job.id), "{}", job.id);
                }
                // The outcome or an attempt is damaged; the job itself runs.
                Err(StoreError::Unreadable(_) | StoreError::Corrupt(_)) => assert_eq!(places.len(), 1, "{}", job.id),
                // The end time or the whole job is lost.
                Ok(JobLookup::Gone { .. } | JobLookup::NotFound) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        let counted: u64 = stats.types.iter().flat_map(|of| of.counts).sum();
        let indexed = self.jobs.iter().filter(|job| !self.places(job.id).is_empty()).count() as u64;
        assert_eq!(counted, indexed, "an index has a foreign entry");
    }

    /// No readable job waits or runs.
    pub(crate) async fn ended(&self) {
        let quarantine = self.quarantine();
        for job in &self.jobs {
            match self.store.get(job.id).await {
                Ok(JobLookup::Found(view)) => assert!(view.status.is_terminal(), "{view:?}"),
                Ok(_) => {}
                Err(error) => {
                    let known = quarantine.contains_key(&job.id.to_string()) || self.places(job.id).len() == 1;
                    assert!(
                        matches!(error, StoreError::Unreadable(_) | StoreError::Corrupt(_)) && known,
                        "{error} {quarantine:?}"
                    );
                }
            }
        }
        let stats = self.store.stats(&StatsQuery::default()).await.unwrap();
        assert!(stats.types.iter().all(|of| of.counts[..3] == [0; 3] && of.never_started == 0), "{:?}", stats.types);
    }
}
