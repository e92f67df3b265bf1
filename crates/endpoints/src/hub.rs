//! The one listener to a store's hints in this process. Waiting logic is written once, here: claimers wake for work,
//! and everybody who follows a job is told of its changes, however many follow it, by one read of the store.
//!
//! Hints may be lost, so the versions of all followed jobs are compared now and then, in one call for many jobs.
//! Must not know workers or HTTP.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, MutexGuard},
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

use crate::{jitter, store_call::within, sync::Mutex, telemetry::events};

/// Followers of one process, all jobs together.
const FOLLOWERS: usize = 10_000;
/// Between two comparisons of versions, for hints that were lost.
const POLL: Duration = Duration::from_secs(1);
/// Jobs in one comparison.
const COMPARED: usize = 500;
/// Jobs read at once.
const READS: usize = 16;

#[derive(Default)]
pub(crate) struct Hub {
    followed: Mutex<Followed>,
    /// Somebody's job may have changed.
    changed: Notify,
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
    /// The version that followers know of.
    told: Option<u64>,
    /// What they were told last.
    news: watch::Sender<Option<Arc<JobLookup>>>,
}

impl Channel {
    fn new() -> Self {
        Self { followers: 0, told: None, news: watch::Sender::new(None) }
    }

    fn publish(&mut self, lookup: JobLookup) {
        let version = version(&lookup);
        // A read that began earlier may end later.
        if version.is_some() && version < self.told {
            return;
        }
        self.told = version;
        self.news.send_replace(Some(Arc::new(lookup)));
    }
}

/// Somebody's interest in one job, until it is dropped.
pub(crate) struct Follower {
    hub: Arc<Hub>,
    id: JobId,
    news: watch::Receiver<Option<Arc<JobLookup>>>,
}

impl Hub {
    /// Passes hints on for ever.
    pub(crate) async fn listen(&self, store: &dyn Store, work: impl Fn(Option<&JobName>)) {
        loop {
            let mut hints = store.hints();
            // What happened before is not told.
            work(None);
            self.mark_all();
            while let Some(hint) = hints.next().await {
                match hint {
                    Hint::Work(name) => work(Some(&name)),
                    Hint::Jobs(ids) => self.mark(&ids),
                    Hint::Lagged => {
                        work(None);
                        self.mark_all();
                    }
                }
            }
            events::hints_ended();
            tokio::time::sleep(POLL).await;
        }
    }

    /// Tells followers what changed, for ever. Apart from `listen`, so that no read holds up work.
    pub(crate) async fn tell(&self, store: &dyn Store) {
        // Not begun anew with each change: many changes of some jobs must not put off what was missed of others.
        let mut compare_at = Instant::now() + jitter::about(POLL);
        loop {
            let told = tokio::select! {
                biased;
                () = tokio::time::sleep_until(compare_at) => {
                    compare_at = Instant::now() + jitter::about(POLL);
                    self.tell_missed(store).await
                }
                () = self.changed.notified() => self.tell_changed(store).await,
            };
            if let Err(error) = told {
                events::store_failed("follow", &error);
            }
        }
    }

    /// Follows a job from now on; none if too many do. Look at the job once after this: what changed before is not told.
    pub(crate) fn follow(self: &Arc<Self>, id: JobId) -> Option<Follower> {
        let mut followed = self.followed();
        if followed.followers >= FOLLOWERS {
            return None;
        }
        followed.followers += 1;
        let channel = followed.jobs.entry(id).or_insert_with(Channel::new);
        channel.followers += 1;
        Some(Follower { hub: self.clone(), id, news: channel.news.subscribe() })
    }

    fn mark(&self, ids: &[JobId]) {
        let mut followed = self.followed();
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

    /// Some hints were lost: the next comparison finds what they would have told.
    fn mark_all(&self) {
        let mut followed = self.followed();
        let Followed { jobs, changed, .. } = &mut *followed;
        changed.extend(jobs.keys());
        self.changed.notify_one();
    }

    async fn tell_changed(&self, store: &dyn Store) -> Result<(), StoreError> {
        let changed: Vec<JobId> = self.followed().changed.drain().collect();
        if changed.len() > READS {
            // Many at once: most may be as they were.
            return self.compare(store, changed).await;
        }
        self.read(store, changed).await
    }

    async fn tell_missed(&self, store: &dyn Store) -> Result<(), StoreError> {
        let all: Vec<JobId> = self.followed().jobs.keys().copied().collect();
        self.compare(store, all).await
    }

    /// Reads those jobs again whose version is not the one that was told. One that cannot be read holds no other up.
    async fn compare(&self, store: &dyn Store, ids: Vec<JobId>) -> Result<(), StoreError> {
        let mut failed = None;
        for some in ids.chunks(COMPARED) {
            let versions = within(store.versions(some)).await?;
            let moved = {
                let followed = self.followed();
                let told = |id: &JobId| followed.jobs.get(id).and_then(|channel| channel.told);
                some.iter().zip(versions).filter(|(id, version)| told(id) != *version).map(|(id, _)| *id).collect()
            };
            failed = self.read(store, moved).await.err().or(failed);
        }
        failed.map_or(Ok(()), Err)
    }

    async fn read(&self, store: &dyn Store, ids: Vec<JobId>) -> Result<(), StoreError> {
        let reads = ids.into_iter().map(|id| async move { (id, within(store.get(id)).await) });
        let mut reads = stream::iter(reads).buffer_unordered(READS);
        let mut failed = None;
        while let Some((id, read)) = reads.next().await {
            match read {
                Ok(lookup) => self.publish(id, lookup),
                // The next comparison finds it.
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn publish(&self, id: JobId, lookup: JobLookup) {
        if let Some(channel) = self.followed().jobs.get_mut(&id) {
            channel.publish(lookup);
        }
    }

    fn followed(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock()
    }
}

/// The version of a job that is there.
pub(crate) fn version(lookup: &JobLookup) -> Option<u64> {
    match lookup {
        JobLookup::Found(job) => Some(job.version),
        JobLookup::Gone { .. } | JobLookup::NotFound => None,
    }
}

impl Follower {
    /// Says what the follower found by itself: only what is newer is told, and others learn of it if it is news to them.
    pub(crate) fn saw(&self, lookup: &JobLookup) {
        if let Some(channel) = self.hub.followed().jobs.get_mut(&self.id)
            && version(lookup) > channel.told
        {
            channel.publish(lookup.clone());
        }
    }

    /// What the store says of the job when it is no longer as `seen`.
    pub(crate) async fn changed(&mut self, seen: Option<u64>) -> Arc<JobLookup> {
        loop {
            // The sender is in the hub for as long as this follower is.
            if self.news.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let news = self.news.borrow_and_update().clone();
            // A read that began before the follower's own may be told after it.
            let newer = |news: &Arc<JobLookup>| match version(news) {
                Some(version) => seen.is_none_or(|seen| version > seen),
                None => true,
            };
            if let Some(news) = news.filter(newer) {
                return news;
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut followed = self.hub.followed();
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

    /// Far longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn queued(store: &MemoryStore) -> JobId {
        let name = JobName::new("Followed").expect("a name");
        let job = NewJob::new(JobId::random(), name, bytes::Bytes::new(), JobTerms::default(), Digest([0; 32]));
        let id = job.id;
        store.insert(job).await.expect("memory is there");
        id
    }

    async fn cancel(store: &MemoryStore, id: JobId) {
        let (code, title) = ("CANCELED".into(), "Canceled".into());
        let error = ErrorRecord { code, title, status: 410, detail: None, retryable: false };
        store.cancel(id, &error).await.expect("memory is there");
    }

    async fn follow(hub: &Arc<Hub>, store: &MemoryStore, id: JobId) -> (Follower, Option<u64>) {
        let follower = hub.follow(id).expect("few follow");
        let lookup = store.get(id).await.expect("memory is there");
        follower.saw(&lookup);
        (follower, version(&lookup))
    }

    #[tokio::test]
    async fn what_one_follower_found_is_news_to_the_others() {
        let (store, hub) = (MemoryStore::new(), Arc::new(Hub::default()));
        let id = queued(&store).await;
        let (mut first, seen) = follow(&hub, &store, id).await;
        cancel(&store, id).await; // and its hint is lost: nobody listens here
        let (_second, newer) = follow(&hub, &store, id).await;
        let news = tokio::time::timeout(PATIENCE, first.changed(seen)).await.expect("the first hears of it");
        assert_eq!(version(&news), newer);
    }

    #[tokio::test]
    async fn a_job_that_cannot_be_read_holds_no_other_up() {
        let (memory, hub) = (Arc::new(MemoryStore::new()), Arc::new(Hub::default()));
        let store = FlakyStore::new(memory.clone());
        let mut followers = Vec::new();
        for _ in 0..=COMPARED {
            let id = queued(&memory).await;
            followers.push(follow(&hub, &memory, id).await);
            cancel(&memory, id).await;
        }
        store.fail_next(StoreOperation::Get, When::Never);
        assert!(hub.tell_missed(&store).await.is_err(), "it is told that one failed");
        let told = followers
            .iter()
            .filter(|(follower, seen)| follower.news.borrow().as_ref().is_some_and(|news| version(news) != *seen));
        assert_eq!(told.count(), COMPARED);
    }

    #[tokio::test]
    async fn a_missed_change_is_found_while_others_keep_coming() {
        let (store, hub) = (Arc::new(MemoryStore::new()), Arc::new(Hub::default()));
        let (busy, missed) = (queued(&store).await, queued(&store).await);
        let (_busy, _) = follow(&hub, &store, busy).await;
        let (mut follower, seen) = follow(&hub, &store, missed).await;
        cancel(&store, missed).await; // and its hint is lost: nobody listens here
        let telling = async { hub.tell(&*store).await };
        let hinting = async {
            loop {
                hub.mark(&[busy]);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = telling => {}
            () = hinting => {}
            news = tokio::time::timeout(PATIENCE, follower.changed(seen)) => {
                assert!(news.is_ok(), "it is never told");
            }
        }
    }
}
