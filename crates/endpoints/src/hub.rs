//! The one listener to a store's hints in this process. Waiting logic is written once, here: claimers wake for work,
//! and everybody who follows a job is told of its changes, however many follow it, by one read of the store.
//!
//! Hints may be lost, so the versions of all followed jobs are compared now and then, in one call for many jobs.
//! Must not know workers or HTTP.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_endpoints_core::{
    JobId, JobName, StoreError,
    store::{Hint, Lookup, Store},
};
use futures_util::{StreamExt, stream};
use tokio::sync::{Notify, watch};

use crate::{jitter, submit::within, telemetry::events};

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
    news: watch::Sender<Option<Arc<Lookup>>>,
}

impl Channel {
    fn new() -> Self {
        Self { followers: 0, told: None, news: watch::Sender::new(None) }
    }
}

/// Somebody's interest in one job, until it is dropped.
pub(crate) struct Follower {
    hub: Arc<Hub>,
    id: JobId,
    news: watch::Receiver<Option<Arc<Lookup>>>,
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
        loop {
            let told = tokio::select! {
                () = self.changed.notified() => self.tell_changed(store).await,
                () = tokio::time::sleep(jitter::about(POLL)) => self.tell_missed(store).await,
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

    /// Reads those jobs again whose version is not the one that was told.
    async fn compare(&self, store: &dyn Store, ids: Vec<JobId>) -> Result<(), StoreError> {
        for some in ids.chunks(COMPARED) {
            let versions = within(store.versions(some)).await?;
            let moved = {
                let followed = self.followed();
                let told = |id: &JobId| followed.jobs.get(id).and_then(|channel| channel.told);
                some.iter().zip(versions).filter(|(id, version)| told(id) != *version).map(|(id, _)| *id).collect()
            };
            self.read(store, moved).await?;
        }
        Ok(())
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

    fn publish(&self, id: JobId, lookup: Lookup) {
        if let Some(channel) = self.followed().jobs.get_mut(&id) {
            channel.told = version(&lookup);
            channel.news.send_replace(Some(Arc::new(lookup)));
        }
    }

    fn followed(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The version of a job that is there.
pub(crate) fn version(lookup: &Lookup) -> Option<u64> {
    match lookup {
        Lookup::Found(job) => Some(job.version),
        Lookup::Gone { .. } | Lookup::NotFound => None,
    }
}

impl Follower {
    /// Says what the follower found by itself, so that only what is newer is told.
    pub(crate) fn saw(&self, lookup: &Lookup) {
        if let Some(channel) = self.hub.followed().jobs.get_mut(&self.id) {
            channel.told = channel.told.max(version(lookup));
        }
    }

    /// What the store says of the job when it is no longer as `seen`.
    pub(crate) async fn changed(&mut self, seen: Option<u64>) -> Arc<Lookup> {
        loop {
            // The sender is in the hub for as long as this follower is.
            if self.news.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let news = self.news.borrow_and_update().clone();
            // A read that began before the follower's own may be told after it.
            let newer = |news: &Arc<Lookup>| match version(news) {
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
