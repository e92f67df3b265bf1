//! The processes in their places, and their store. Whoever does something to one holds its place meanwhile.

use std::{
    io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard};

use crate::{
    Plan,
    backing::Backing,
    diary::Diary,
    fault::{Role, Who},
    process::Process,
};

pub(crate) struct Fleet {
    plan: Plan,
    pub(crate) backing: Backing,
    pub(crate) diary: Diary,
    /// Held by what happens to the store: one thing at a time.
    pub(crate) store: AsyncMutex<()>,
    roles: &'static [Role],
    places: Vec<AsyncMutex<Process>>,
    addresses: Mutex<Vec<Address>>,
}

/// Where the process listens that is in some place now.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) url: String,
    pub(crate) process: u32,
}

impl Fleet {
    pub(crate) async fn start(plan: &Plan) -> io::Result<Self> {
        std::fs::create_dir_all(&plan.folder)?;
        let roles = plan.store.scene().roles;
        let backing = Backing::start(plan.store, roles.len()).await?;
        let (mut places, mut addresses) = (Vec::new(), Vec::new());
        for (place, role) in roles.iter().enumerate() {
            let process = start(plan, &backing, place, *role).await?;
            addresses.push(Address::of(&process));
            places.push(AsyncMutex::new(process));
        }
        let (plan, diary, addresses) = (plan.clone(), Diary::default(), Mutex::new(addresses));
        Ok(Self { plan, backing, diary, store: AsyncMutex::default(), roles, places, addresses })
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// One that accepts.
    pub(crate) fn accepting(&self, number: usize) -> Address {
        let accepting: Vec<usize> = (0..self.roles.len()).filter(|place| self.roles[*place].is(Who::Accepts)).collect();
        self.addresses()[accepting[number % accepting.len()]].clone()
    }

    /// Any of them: all know every job.
    pub(crate) fn any(&self, number: usize) -> Address {
        let addresses = self.addresses();
        addresses[number % addresses.len()].clone()
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        ledger(&self.plan)
    }

    /// One to whom nothing happens now; none if something happens to all of them.
    pub(crate) fn take(&self, who: Who, rng: &mut fastrand::Rng) -> Option<(usize, AsyncMutexGuard<'_, Process>)> {
        let mut places: Vec<usize> = (0..self.places.len()).filter(|place| self.roles[*place].is(who)).collect();
        rng.shuffle(&mut places);
        places.into_iter().find_map(|place| Some((place, self.places[place].try_lock().ok()?)))
    }

    pub(crate) fn places(&self) -> usize {
        self.places.len()
    }

    /// That one, once nothing else happens to it.
    pub(crate) async fn wait_for(&self, place: usize) -> AsyncMutexGuard<'_, Process> {
        self.places[place].lock().await
    }

    pub(crate) async fn kill(&self, place: usize, process: &mut Process) -> io::Result<()> {
        self.diary.write().gone(process.id, true);
        process.kill().await?;
        self.replace(place, process).await
    }

    pub(crate) async fn restart(&self, place: usize, process: &mut Process) -> io::Result<()> {
        self.stop(process).await?;
        self.replace(place, process).await
    }

    /// Asks all to stop.
    pub(crate) async fn end(&self) -> io::Result<()> {
        for place in &self.places {
            self.stop(&mut *place.lock().await).await?;
        }
        Ok(())
    }

    async fn stop(&self, process: &mut Process) -> io::Result<()> {
        self.diary.write().gone(process.id, false);
        let wrong = process.stop().await?;
        self.diary.write().bad_exits.extend(wrong);
        Ok(())
    }

    async fn replace(&self, place: usize, process: &mut Process) -> io::Result<()> {
        *process = start(&self.plan, &self.backing, place, self.roles[place]).await?;
        self.addresses()[place] = Address::of(process);
        Ok(())
    }

    fn addresses(&self) -> MutexGuard<'_, Vec<Address>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Address {
    fn of(process: &Process) -> Self {
        Self { url: process.url.clone(), process: process.id }
    }
}

fn ledger(plan: &Plan) -> PathBuf {
    plan.folder.join("ledger")
}

async fn start(plan: &Plan, backing: &Backing, place: usize, role: Role) -> io::Result<Process> {
    let (store, ledger, lease) = (backing.url(place), ledger(plan), plan.lease.as_secs().to_string());
    let ledger = ledger.to_string_lossy();
    let vars =
        [("AE_STORE", store.as_str()), ("AE_ROLE", role.name()), ("AE_LEDGER", &ledger), ("AE_LEASE_SECONDS", &lease)];
    Process::start(&plan.demo, &plan.folder, &format!("log-{place}"), &vars).await
}
