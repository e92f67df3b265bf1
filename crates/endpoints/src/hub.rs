//! The only subscriber to a store's hints in this process: wakes the claimer for work, and notifies followers of jobs.
//!
//! One read of the store serves all followers of a job. Hints may be lost, so the versions of all followed jobs are
//! compared periodically, in one call for many jobs. Must not know workers or HTTP.

mod lines;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_endpoints_core::{
    JobId, JobName, StoreError,
    store::{Hint, JobLookup, Store},
};
use futures_util::{StreamExt, stream};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

pub(crate) use self::lines::{LINES, LogFollower};
use crate::{jitter, store_call::within, sync::Mutex, telemetry::events};

/// Maximum number of followers in one process, of all jobs together.
const FOLLOWERS: usize = 10_000;
/// Interval of version comparisons, for hints that were lost.
const POLL: Duration = Duration::from_secs(1);
/// Maximum number of jobs in one comparison.
const COMPARED: usize = 500;
/// Maximum number of concurrent reads.
const READS: usize = 16;

#[derive(Default)]
pub(crate) struct Hub {
    followed: Mutex<Followed>,
    /// Notified when a followed job may have changed.
    changed: Notify,
    /// Notified when a job whose log is followed stopped running.
    stopped_logging: Notify,
    /// Grows when jobs may have changed.
    #[cfg(feature = "dashboard")]
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Followed {
    jobs: HashMap<JobId, Channel>,
    followers: usize,
    /// Jobs to read again.
    changed: HashSet<JobId>,
}

struct Channel {
    followers: usize,
    /// The last published version.
    version: Option<u64>,
    latest: watch::Sender<Option<Arc<JobLookup>>>,
    /// None if the log is not followed.
    log: Option<lines::LogChannel>,
}

impl Channel {
    fn new() -> Self {
        Self { followers: 0, version: None, latest: watch::Sender::new(None), log: None }
    }

    fn publish(&mut self, lookup: JobLookup) {
        let version = version(&lookup);
        // Concurrent reads may end out of order.
        if version.is_some() && version < self.version {
            return;
        }
        self.version = version;
        self.latest.send_replace(Some(Arc::new(lookup)));
    }
}

/// A subscription to the changes of one job. Dropping it unsubscribes.
pub(crate) struct Follower {
    hub: Arc<Hub>,
    id: JobId,
    latest: watch::Receiver<Option<Arc<JobLookup>>>,
}

impl Hub {
    /// Receives hints and calls `on_work` for work hints: with a job type, or with `None` for all types. Never returns.
    pub(crate) async fn listen(&self, store: &dyn Store, on_work: impl Fn(Option<&JobName>)) {
        loop {
            let mut hints = store.hints();
            // Changes from before the subscription have no hints.
            on_work(None);
            self.mark_all();
            while let Some(hint) = hints.next().await {
                match hint {
                    Hint::Work(name) => {
                        // The job that made the queue non-empty is new, or waits again.
                        self.count_change();
                        on_work(Some(&name));
                    }
                    Hint::Jobs(ids) => self.mark(&ids),
                    Hint::Lagged => {
                        on_work(None);
                        self.mark_all();
                    }
                }
            }
            events::hints_ended();
            tokio::time::sleep(POLL).await;
        }
    }

    /// Reads changed jobs and publishes them to followers. Never returns. Runs beside `listen`, so that reads do not delay
    /// work hints.
    pub(crate) async fn publish_changes(&self, store: &dyn Store) {
        // Kept over iterations: frequent changes of some jobs must not postpone the comparison of all.
        let mut compare_at = Instant::now() + jitter::about(POLL);
        loop {
            let published = tokio::select! {
                biased;
                () = tokio::time::sleep_until(compare_at) => {
                    compare_at = Instant::now() + jitter::about(POLL);
                    self.publish_missed(store).await
                }
                () = self.changed.notified() => self.publish_marked(store).await,
            };
            if let Err(error) = published {
                events::store_failed("follow", &error);
            }
        }
    }

    /// Follows a job from now on. Returns `None` if there are too many followers.
    ///
    /// Read the job once after this call, since earlier changes are not published.
    pub(crate) fn follow(self: &Arc<Self>, id: JobId) -> Option<Follower> {
        let mut followed = self.followed.lock();
        if followed.followers >= FOLLOWERS {
            return None;
        }
        followed.followers += 1;
        let channel = followed.jobs.entry(id).or_insert_with(Channel::new);
        channel.followers += 1;
        Some(Follower { hub: self.clone(), id, latest: channel.latest.subscribe() })
    }

    /// A number that grows when any job may have changed.
    #[cfg(feature = "dashboard")]
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    #[cfg(feature = "dashboard")]
    pub(crate) fn changes_so_far(&self) -> u64 {
        *self.changes.borrow()
    }

    /// Says that a job was accepted. Stores give no hint of a job behind others.
    pub(crate) fn job_accepted(&self) {
        self.count_change();
    }

    fn count_change(&self) {
        #[cfg(feature = "dashboard")]
        if self.changes.receiver_count() > 0 {
            self.changes.send_modify(|changes| *changes += 1);
        }
    }

    fn mark(&self, ids: &[JobId]) {
        self.count_change();
        let mut followed = self.followed.lock();
        let Followed { jobs, changed, .. } = &mut *followed;
        if jobs.is_empty() {
            return;
        }
        let before = changed.len();
        changed.extend(ids.iter().filter(|id| jobs.contains_key(id)));
        if changed.len() > before {
            self.changed.notify_one();
        }
    }

    fn mark_all(&self) {
        self.count_change();
        let mut followed = self.followed.lock();
        let Followed { jobs, changed, .. } = &mut *followed;
        changed.extend(jobs.keys());
        self.changed.notify_one();
    }

    async fn publish_marked(&self, store: &dyn Store) -> Result<(), StoreError> {
        let changed: Vec<JobId> = self.followed.lock().changed.drain().collect();
        if changed.len() > READS {
            // Comparing versions first saves reads of unchanged jobs.
            return self.publish_different(store, changed).await;
        }
        self.read_and_publish(store, changed).await
    }

    async fn publish_missed(&self, store: &dyn Store) -> Result<(), StoreError> {
        let all: Vec<JobId> = self.followed.lock().jobs.keys().copied().collect();
        self.publish_different(store, all).await
    }

    /// Publishes the jobs whose version differs from the published one. A failed read does not affect other jobs.
    async fn publish_different(&self, store: &dyn Store, ids: Vec<JobId>) -> Result<(), StoreError> {
        let mut failed = None;
        for batch in ids.chunks(COMPARED) {
            let versions = within(store.versions(batch)).await?;
            let different = {
                let followed = self.followed.lock();
                let published = |id: &JobId| followed.jobs.get(id).and_then(|channel| channel.version);
                let ids = batch.iter().zip(versions).filter(|(id, version)| published(id) != *version);
                ids.map(|(id, _)| *id).collect()
            };
            failed = self.read_and_publish(store, different).await.err().or(failed);
        }
        failed.map_or(Ok(()), Err)
    }

    async fn read_and_publish(&self, store: &dyn Store, ids: Vec<JobId>) -> Result<(), StoreError> {
        let reads = ids.into_iter().map(|id| async move { (id, within(store.get(id)).await) });
        let mut reads = stream::iter(reads).buffer_unordered(READS);
        let mut failed = None;
        while let Some((id, read)) = reads.next().await {
            match read {
                Ok(lookup) => self.publish(id, lookup),
                // The next comparison repeats the read.
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn publish(&self, id: JobId, lookup: JobLookup) {
        if let Some(channel) = self.followed.lock().jobs.get_mut(&id) {
            channel.publish(lookup);
            if channel.stopped_logging() {
                self.stopped_logging.notify_one();
            }
        }
    }
}

/// The version of a job, or `None` if the job does not exist any more.
pub(crate) fn version(lookup: &JobLookup) -> Option<u64> {
    match lookup {
        JobLookup::Found(job) => Some(job.version),
        JobLookup::Gone { .. } | JobLookup::NotFound => None,
    }
}

impl Follower {
    /// Publishes the state that the follower itself has read, if it is newer than the last published one.
    pub(crate) fn saw(&self, lookup: &JobLookup) {
        if let Some(channel) = self.hub.followed.lock().jobs.get_mut(&self.id)
            && version(lookup) > channel.version
        {
            channel.publish(lookup.clone());
        }
    }

    /// Waits until the job is newer than version `seen` or gone, and returns it.
    pub(crate) async fn changed(&mut self, seen: Option<u64>) -> Arc<JobLookup> {
        loop {
            // The hub keeps the sender for the life of this follower.
            if self.latest.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let latest = self.latest.borrow_and_update().clone();
            // A read that began before the follower's own may be published after it.
            let is_newer = |latest: &Arc<JobLookup>| match version(latest) {
                Some(version) => seen.is_none_or(|seen| version > seen),
                None => true,
            };
            if let Some(latest) = latest.filter(is_newer) {
                return latest;
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut followed = self.hub.followed.lock();
        followed.followers -= 1;
        if let Some(channel) = followed.jobs.get_mut(&self.id) {
            channel.followers -= 1;
            if channel.followers == 0 {
                followed.jobs.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::{
        JobStore, MemoryStore,
        job::{Digest, ErrorRecord, JobTerms},
        store::{NewJob, StoreOperation},
    };
    use async_endpoints_testkit::{FlakyStore, When};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn queued(store: &MemoryStore) -> JobId {
        let name = JobName::new("Followed").expect("a valid name");
        let job = NewJob::new(JobId::random(), name, bytes::Bytes::new(), JobTerms::default(), Digest([0; 32]));
        let id = job.id;
        store.insert(job).await.expect("memory answers");
        id
    }

    async fn cancel(store: &MemoryStore, id: JobId) {
        let (code, title) = ("CANCELED".into(), "Canceled".into());
        let error = ErrorRecord { code, title, status: 410, detail: None, retryable: false, sources: Vec::new() };
        store.cancel(id, &error).await.expect("memory answers");
    }

    async fn follow(hub: &Arc<Hub>, store: &MemoryStore, id: JobId) -> (Follower, Option<u64>) {
        let follower = hub.follow(id).expect("below the limit");
        let lookup = store.get(id).await.expect("memory answers");
        follower.saw(&lookup);
        (follower, version(&lookup))
    }

    #[tokio::test]
    async fn follower_read_is_published_to_others() {
        let (store, hub) = (MemoryStore::new(), Arc::new(Hub::default()));
        let id = queued(&store).await;
        let (mut first, seen) = follow(&hub, &store, id).await;
        cancel(&store, id).await; // no task receives the hint
        let (_second, newer) = follow(&hub, &store, id).await;
        let latest = tokio::time::timeout(PATIENCE, first.changed(seen)).await.expect("a change");
        assert_eq!(version(&latest), newer);
    }

    #[tokio::test]
    async fn failed_read_does_not_affect_other_jobs() {
        let (memory, hub) = (Arc::new(MemoryStore::new()), Arc::new(Hub::default()));
        let store = FlakyStore::new(memory.clone());
        let mut followers = Vec::new();
        for _ in 0..=COMPARED {
            let id = queued(&memory).await;
            followers.push(follow(&hub, &memory, id).await);
            cancel(&memory, id).await;
        }
        store.fail_next(StoreOperation::Get, When::Never);
        assert!(hub.publish_missed(&store).await.is_err(), "one read failed");
        let published = followers.iter().filter(|(follower, seen)| {
            follower.latest.borrow().as_ref().is_some_and(|latest| version(latest) != *seen)
        });
        assert_eq!(published.count(), COMPARED);
    }

    #[cfg(feature = "dashboard")]
    #[tokio::test]
    async fn accepted_job_behind_others_is_a_change() {
        const PRINT: crate::JobType<(), ()> = crate::JobType::new("Print");
        let endpoints = crate::AsyncEndpoints::builder(MemoryStore::new()).build().expect("valid endpoints");
        let mut changes = endpoints.job_changes();
        for _ in 0..3 {
            changes.mark_unchanged();
            endpoints.submit(PRINT, ()).await.expect("memory answers");
            assert!(changes.has_changed().expect("the hub lives"), "without a hint of the store");
        }
    }

    #[tokio::test]
    async fn missed_change_is_found_during_other_changes() {
        let (store, hub) = (Arc::new(MemoryStore::new()), Arc::new(Hub::default()));
        let (busy, missed) = (queued(&store).await, queued(&store).await);
        let (_busy, _) = follow(&hub, &store, busy).await;
        let (mut follower, seen) = follow(&hub, &store, missed).await;
        cancel(&store, missed).await; // no task receives the hint
        let publishing = async { hub.publish_changes(&*store).await };
        let hinting = async {
            loop {
                hub.mark(&[busy]);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = publishing => {}
            () = hinting => {}
            latest = tokio::time::timeout(PATIENCE, follower.changed(seen)) => {
                assert!(latest.is_ok(), "the missed change");
            }
        }
    }
}
