//! The processes of a run and their store. A fault locks the process that it affects.

use std::{
    io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard};

use crate::{
    Plan,
    fault::{Role, Target},
    history::FaultLog,
    process::Process,
    servers::StoreServers,
};

pub(crate) struct Fleet {
    plan: Plan,
    pub(crate) servers: StoreServers,
    pub(crate) history: FaultLog,
    /// Held during an outage of the store.
    pub(crate) outage: AsyncMutex<()>,
    roles: &'static [Role],
    places: Vec<AsyncMutex<Process>>,
    addresses: Mutex<Vec<Address>>,
}

/// The address of a running process.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) url: String,
    pub(crate) process: u32,
}

impl Fleet {
    pub(crate) async fn start(plan: &Plan) -> io::Result<Self> {
        std::fs::create_dir_all(&plan.folder)?;
        let roles = plan.store.scenario().roles;
        let servers = StoreServers::start(plan.store, roles.len()).await?;
        let (mut places, mut addresses) = (Vec::new(), Vec::new());
        for (place, role) in roles.iter().enumerate() {
            let process = start(plan, &servers, place, *role).await?;
            addresses.push(Address::of(&process));
            places.push(AsyncMutex::new(process));
        }
        let (plan, history, addresses) = (plan.clone(), FaultLog::default(), Mutex::new(addresses));
        Ok(Self { plan, servers, history, outage: AsyncMutex::default(), roles, places, addresses })
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// A process that accepts submissions.
    pub(crate) fn accepting(&self, number: usize) -> Address {
        let accepting: Vec<usize> =
            (0..self.roles.len()).filter(|place| self.roles[*place].is(Target::Accepting)).collect();
        self.addresses()[accepting[number % accepting.len()]].clone()
    }

    /// Any process: all of them serve every job.
    pub(crate) fn any(&self, number: usize) -> Address {
        let addresses = self.addresses();
        addresses[number % addresses.len()].clone()
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        ledger(&self.plan)
    }

    /// A random process that no other fault affects now. `None` if there is none.
    pub(crate) fn take(
        &self,
        target: Target,
        rng: &mut fastrand::Rng,
    ) -> Option<(usize, AsyncMutexGuard<'_, Process>)> {
        let mut places: Vec<usize> = (0..self.places.len()).filter(|place| self.roles[*place].is(target)).collect();
        rng.shuffle(&mut places);
        places.into_iter().find_map(|place| Some((place, self.places[place].try_lock().ok()?)))
    }

    pub(crate) fn places(&self) -> usize {
        self.places.len()
    }

    /// Waits until no other fault affects the process at `place`.
    pub(crate) async fn wait_for(&self, place: usize) -> AsyncMutexGuard<'_, Process> {
        self.places[place].lock().await
    }

    pub(crate) async fn kill(&self, place: usize, process: &mut Process) -> io::Result<()> {
        self.history.lock().gone(process.id, true);
        process.kill().await?;
        self.replace(place, process).await
    }

    pub(crate) async fn restart(&self, place: usize, process: &mut Process) -> io::Result<()> {
        self.stop(process).await?;
        self.replace(place, process).await
    }

    /// Stops all processes gracefully.
    pub(crate) async fn stop_all(&self) -> io::Result<()> {
        for place in &self.places {
            self.stop(&mut *place.lock().await).await?;
        }
        Ok(())
    }

    async fn stop(&self, process: &mut Process) -> io::Result<()> {
        self.history.lock().gone(process.id, false);
        let bad_exit = process.stop().await?;
        self.history.lock().bad_exits.extend(bad_exit);
        Ok(())
    }

    async fn replace(&self, place: usize, process: &mut Process) -> io::Result<()> {
        *process = start(&self.plan, &self.servers, place, self.roles[place]).await?;
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

async fn start(plan: &Plan, servers: &StoreServers, place: usize, role: Role) -> io::Result<Process> {
    let (store, ledger, lease) = (servers.url(place), ledger(plan), plan.lease.as_secs().to_string());
    let ledger = ledger.to_string_lossy();
    let vars =
        [("AE_STORE", store.as_str()), ("AE_ROLE", role.name()), ("AE_LEDGER", &ledger), ("AE_LEASE_SECONDS", &lease)];
    Process::start(&plan.demo, &plan.folder, &format!("log-{place}"), &vars).await
}
