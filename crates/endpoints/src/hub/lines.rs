//! New lines of followed logs: one reader serves all followers of a log.
//!
//! A new line does not change its job, so no hint announces it. The reader polls the logs of running jobs, and reads once
//! more when a job stops running. It waits for no follower: one that missed lines reads the store itself.

use std::{sync::Arc, time::Duration};

use async_endpoints_core::{
    JobId, JobStatus, StoreError,
    job::LogLine,
    store::{JobLookup, Store},
};
use futures_util::{StreamExt, stream};
use tokio::sync::broadcast::{self, error::RecvError};

use super::{Channel, Follower, Hub, READS};
use crate::{jitter, store_call::within, telemetry::events};

/// Lines per read of the store.
pub(crate) const LINES: u32 = 500;
/// Polling interval for the lines of running jobs.
const POLL: Duration = Duration::from_millis(500);
/// Number of reads that a follower may be behind.
const READS_KEPT: usize = 8;

/// Lines that were read together.
struct Read {
    /// The number of the last line before them.
    after: u64,
    lines: Vec<LogLine>,
    /// The job had ended before the read, and no lines are left.
    is_last: bool,
}

/// The log of a job that is followed.
pub(super) struct LogChannel {
    followers: usize,
    /// The number of the last line that was read; none before the first read.
    last: Option<u64>,
    /// The version of the job before the last read.
    version: Option<u64>,
    reads: broadcast::Sender<Arc<Read>>,
}

/// A log to read.
struct Unread {
    id: JobId,
    after: u64,
    version: Option<u64>,
    has_ended: bool,
}

/// A subscription to the new lines of one job. Dropping it unsubscribes.
pub(crate) struct LogFollower {
    job: Follower,
    reads: broadcast::Receiver<Arc<Read>>,
}

/// New lines of a log.
#[derive(Debug, PartialEq)]
pub(crate) struct LogNews {
    /// None if the follower missed lines. It has to read the store.
    pub(crate) lines: Option<Vec<LogLine>>,
    /// The job has ended, and no lines come after these.
    pub(crate) is_last: bool,
}

impl Channel {
    fn status(&self) -> Option<JobStatus> {
        match self.latest.borrow().as_deref() {
            Some(JobLookup::Found(job)) => Some(job.status),
            _ => None,
        }
    }

    /// Whether the job runs, so that it may log.
    fn may_log(&self) -> bool {
        self.log.is_some() && self.status() == Some(JobStatus::InProgress)
    }

    /// Whether the job stopped running, and its last lines were not read since.
    pub(super) fn stopped_logging(&self) -> bool {
        let is_unread = self.log.as_ref().is_some_and(|log| log.version.is_none() || log.version != self.version);
        is_unread && self.status() != Some(JobStatus::InProgress)
    }

    fn unread(&self, id: JobId) -> Option<Unread> {
        let after = self.log.as_ref()?.last.unwrap_or(0);
        let has_ended = self.latest.borrow().is_some() && self.status().is_none_or(JobStatus::is_terminal);
        Some(Unread { id, after, version: self.version, has_ended })
    }
}

impl Hub {
    /// Reads new lines of followed logs and publishes them to followers. Never returns.
    pub(crate) async fn publish_lines(&self, store: &dyn Store) {
        let tick = tokio::time::sleep(jitter::about(POLL));
        tokio::pin!(tick);
        loop {
            tokio::select! {
                biased;
                () = &mut tick => {
                    tick.set(tokio::time::sleep(jitter::about(POLL)));
                    self.read_logs(store, |channel| channel.may_log() || channel.stopped_logging()).await;
                }
                () = self.stopped_logging.notified() => self.read_logs(store, Channel::stopped_logging).await,
            }
        }
    }

    /// Reads the logs that are due. A failed read does not affect other logs, and is repeated at the next poll.
    async fn read_logs(&self, store: &dyn Store, is_due: impl Fn(&Channel) -> bool) {
        let unread: Vec<Unread> = {
            let followed = self.followed.lock();
            let due = followed.jobs.iter().filter(|(_, channel)| is_due(channel));
            due.filter_map(|(id, channel)| channel.unread(*id)).collect()
        };
        let mut reads = stream::iter(unread).map(|unread| self.read_log(store, unread)).buffer_unordered(READS);
        let mut failed = None;
        while let Some(read) = reads.next().await {
            failed = read.err().or(failed);
        }
        if let Some(error) = failed {
            events::store_failed("follow", &error);
        }
    }

    /// Reads a log to its present end.
    async fn read_log(&self, store: &dyn Store, unread: Unread) -> Result<(), StoreError> {
        let Unread { id, mut after, version, has_ended } = unread;
        loop {
            let lines = within(store.logs(id, after, LINES)).await?;
            let is_full = lines.len() == LINES as usize;
            let last = lines.last().map_or(after, |line| line.line);
            self.publish_read(id, Read { after, lines, is_last: has_ended && !is_full }, version);
            if !is_full {
                return Ok(());
            }
            after = last;
        }
    }

    fn publish_read(&self, id: JobId, read: Read, version: Option<u64>) {
        let mut followed = self.followed.lock();
        let Some(log) = followed.jobs.get_mut(&id).and_then(|channel| channel.log.as_mut()) else { return };
        log.last = Some(read.lines.last().map_or(read.after, |line| line.line));
        log.version = version;
        if !read.lines.is_empty() || read.is_last {
            // Fails if no follower is left.
            let _ = log.reads.send(Arc::new(read));
        }
    }
}

impl Follower {
    /// Follows the log of the job, from now on.
    ///
    /// Read the job and then its lines once after this call, since earlier lines are not published.
    pub(crate) fn log(self) -> LogFollower {
        let mut followed = self.hub.followed.lock();
        // The channel exists as long as this follower.
        let log = &mut followed.jobs.entry(self.id).or_insert_with(Channel::new).log;
        let log = log.get_or_insert_with(|| LogChannel {
            followers: 0,
            last: None,
            version: None,
            reads: broadcast::Sender::new(READS_KEPT),
        });
        log.followers += 1;
        let reads = log.reads.subscribe();
        drop(followed);
        LogFollower { job: self, reads }
    }
}

impl LogFollower {
    /// Publishes the job that the follower has read, if it is newer than the last published one.
    pub(crate) fn saw(&self, lookup: &JobLookup) {
        self.job.saw(lookup);
    }

    /// Lets the reader begin after the lines that the follower has read, unless it has begun before.
    pub(crate) fn begin_after(&self, last: u64) {
        let mut followed = self.job.hub.followed.lock();
        if let Some(log) = followed.jobs.get_mut(&self.job.id).and_then(|channel| channel.log.as_mut()) {
            log.last.get_or_insert(last);
        }
    }

    /// Waits for lines with numbers above `last_read`, or for the end of the log.
    pub(crate) async fn news(&mut self, last_read: u64) -> LogNews {
        loop {
            let read = match self.reads.recv().await {
                Ok(read) => read,
                Err(RecvError::Lagged(_)) => return LogNews { lines: None, is_last: false },
                // The hub keeps the sender for the life of this follower.
                Err(RecvError::Closed) => std::future::pending().await,
            };
            if read.after > last_read {
                return LogNews { lines: None, is_last: read.is_last };
            }
            let lines: Vec<LogLine> = read.lines.iter().filter(|line| line.line > last_read).cloned().collect();
            if !lines.is_empty() || read.is_last {
                return LogNews { lines: Some(lines), is_last: read.is_last };
            }
        }
    }
}

impl Drop for LogFollower {
    fn drop(&mut self) {
        let mut followed = self.job.hub.followed.lock();
        let Some(channel) = followed.jobs.get_mut(&self.job.id) else { return };
        if let Some(log) = &mut channel.log {
            log.followers -= 1;
            if log.followers == 0 {
                channel.log = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_endpoints_core::{
        JobStore, MemoryStore, forward_store_calls,
        store::{Claim, Lease, LeaseToken, Report, Result, Settlement, SharedState, TypeQuota, WorkerId},
    };
    use async_endpoints_testkit::jobs;
    use async_trait::async_trait;

    use super::*;

    /// Counts reads of logs.
    #[derive(Default)]
    struct Counted {
        memory: MemoryStore,
        reads: AtomicU32,
    }

    #[async_trait]
    impl JobStore for Counted {
        forward_store_calls!(self => self.memory;
            insert, get, versions, list, payload, stats, claim, renew, report, settle, cancel, retry, reclaim, prune, probe, health,
            hints, kind);

        async fn logs(&self, id: JobId, after: u64, limit: u32) -> Result<Vec<LogLine>> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.memory.logs(id, after, limit).await
        }
    }

    #[async_trait]
    impl SharedState for Counted {
        forward_store_calls!(self => self.memory; shared_calls);
    }

    /// A running job whose log can be followed.
    struct Followed {
        store: Counted,
        hub: Arc<Hub>,
        lease: Lease,
    }

    impl Followed {
        async fn start() -> Self {
            let (store, hour) = (Counted::default(), Duration::from_secs(3600));
            store.insert(jobs::job("followed", hour)).await.expect("memory answers");
            let claim = Claim {
                worker: WorkerId(uuid::Uuid::new_v4()),
                token: LeaseToken::random(),
                quotas: vec![TypeQuota { name: jobs::name("followed"), max: 1, timeout: hour }],
                max: 1,
                max_bytes: 1,
                lease: hour,
            };
            let lease = store.claim(&claim).await.expect("memory answers").attempts[0].lease;
            Self { store, hub: Arc::new(Hub::default()), lease }
        }

        async fn get(&self) -> JobLookup {
            self.store.get(self.lease.job).await.expect("memory answers")
        }

        async fn follow(&self) -> LogFollower {
            let follower = self.hub.follow(self.lease.job).expect("below the limit").log();
            follower.saw(&self.get().await);
            follower
        }

        async fn log(&self, message: &str) {
            let report = Report { lease: self.lease, progress: None, logs: vec![jobs::line(message)] };
            self.store.report(&[report]).await.expect("memory answers");
        }

        /// Ends the job with a last line, and publishes its end.
        async fn end(&self, message: &str) {
            let settlement = Settlement::new(self.lease, jobs::completed("1"), jobs::error("IF_CANCELED"));
            let settlement = Settlement { logs: vec![jobs::line(message)], ..settlement };
            self.store.settle(&[settlement]).await.expect("memory answers");
            self.hub.publish(self.lease.job, self.get().await);
        }

        async fn poll(&self) {
            self.hub.read_logs(&self.store, |channel| channel.may_log() || channel.stopped_logging()).await;
        }

        fn reads(&self) -> u32 {
            self.store.reads.load(Ordering::Relaxed)
        }
    }

    fn messages(news: LogNews) -> Option<(Vec<String>, bool)> {
        let lines = news.lines?;
        Some((lines.into_iter().map(|line| line.message).collect(), news.is_last))
    }

    fn news(lines: &[&str], is_last: bool) -> Option<(Vec<String>, bool)> {
        Some((lines.iter().map(|line| (*line).to_owned()).collect(), is_last))
    }

    #[tokio::test]
    async fn one_read_serves_all_followers() {
        let job = Followed::start().await;
        let mut followers = Vec::new();
        for _ in 0..50 {
            followers.push(job.follow().await);
        }
        job.log("one").await;
        job.poll().await;
        job.log("two").await;
        job.poll().await;
        job.end("three").await;
        job.poll().await;
        job.poll().await;
        assert_eq!(job.reads(), 3, "one read per poll, none after the end");
        for follower in &mut followers {
            assert_eq!(messages(follower.news(0).await), news(&["one"], false));
            assert_eq!(messages(follower.news(1).await), news(&["two"], false));
            assert_eq!(messages(follower.news(2).await), news(&["three"], true));
        }
    }

    #[tokio::test]
    async fn slow_follower_reads_missed_lines() {
        let job = Followed::start().await;
        let (mut slow, mut quick) = (job.follow().await, job.follow().await);
        for number in 1..=READS_KEPT as u64 + 3 {
            job.log(&number.to_string()).await;
            job.poll().await;
            assert_eq!(messages(quick.news(number - 1).await), news(&[&number.to_string()], false));
        }
        job.end("the end").await;
        job.poll().await;
        let (mut lines, mut is_last) = (Vec::new(), false);
        while !is_last {
            let news = slow.news(lines.len() as u64).await;
            is_last = news.is_last;
            lines.extend(match news.lines {
                Some(lines) => lines,
                None => job.store.logs(job.lease.job, lines.len() as u64, LINES).await.expect("memory answers"),
            });
        }
        let numbers: Vec<u64> = lines.iter().map(|line| line.line).collect();
        assert_eq!(numbers, (1..=READS_KEPT as u64 + 4).collect::<Vec<_>>(), "each line once");
    }

    #[tokio::test]
    async fn reader_begins_after_the_first_follower() {
        let job = Followed::start().await;
        job.log("one").await;
        let (first, mut late) = (job.follow().await, job.follow().await);
        first.begin_after(1);
        job.end("two").await;
        job.poll().await;
        assert_eq!(late.news(0).await, LogNews { lines: None, is_last: true }, "a gap is no end without lines");
    }

    #[tokio::test]
    async fn logs_without_followers_are_not_read() {
        let job = Followed::start().await;
        let events = job.hub.follow(job.lease.job).expect("below the limit");
        drop(job.follow().await);
        job.log("one").await;
        job.poll().await;
        assert_eq!(job.reads(), 0);
        drop(events);
    }
}
