//! The processes, and what is done to them. Everything goes by process id, and only to processes that were started here.

use std::{
    collections::HashMap,
    fs::File,
    io,
    path::PathBuf,
    process::Stdio,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::Mutex as AsyncMutex,
    time::timeout,
};

use crate::Plan;

/// How long a process may take to start, and to stop when it is asked to.
const PATIENCE: Duration = Duration::from_secs(45);

pub(crate) struct Fleet {
    plan: Plan,
    places: Vec<AsyncMutex<Process>>,
    urls: Mutex<Vec<String>>,
    told: Mutex<Told>,
}

struct Process {
    child: Child,
    frozen: bool,
}

/// What was done to whom.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) kills: u32,
    pub(crate) stops: u32,
    pub(crate) freezes: u32,
    /// Stops that did not end with exit code 0.
    pub(crate) bad_exits: Vec<String>,
    /// When each process was killed, by its id.
    pub(crate) killed: HashMap<u32, Timestamp>,
}

impl Fleet {
    pub(crate) async fn start(plan: &Plan, processes: usize) -> io::Result<Self> {
        std::fs::create_dir_all(&plan.folder)?;
        let (mut places, mut urls) = (Vec::new(), Vec::new());
        for place in 0..processes {
            let (child, url) = spawn(plan, place).await?;
            places.push(AsyncMutex::new(Process { child, frozen: false }));
            urls.push(url);
        }
        Ok(Self { plan: plan.clone(), places, urls: Mutex::new(urls), told: Mutex::default() })
    }

    pub(crate) fn url(&self, place: usize) -> String {
        let urls = self.urls.lock().unwrap_or_else(PoisonError::into_inner);
        urls[place % urls.len()].clone()
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        ledger(&self.plan)
    }

    pub(crate) fn told(&self) -> Told {
        self.tell().clone()
    }

    /// Something happens to one of them.
    pub(crate) async fn disturb(&self, rng: &mut fastrand::Rng) -> io::Result<()> {
        let place = rng.usize(..self.places.len());
        let mut process = self.places[place].lock().await;
        match rng.u8(..10) {
            _ if process.frozen => self.thaw(&mut process).await,
            0..5 => {
                self.kill(&mut process).await?;
                self.replace(place, &mut process).await
            }
            5..8 => {
                self.ask_to_stop(&mut process).await?;
                self.replace(place, &mut process).await
            }
            _ => {
                self.tell().freezes += 1;
                process.frozen = true;
                signal("STOP", &process).await
            }
        }
    }

    /// Everybody runs, and nothing happens any more.
    pub(crate) async fn calm(&self) -> io::Result<()> {
        for place in &self.places {
            let mut process = place.lock().await;
            if process.frozen {
                self.thaw(&mut process).await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn stop(&self) -> io::Result<()> {
        for place in &self.places {
            self.ask_to_stop(&mut *place.lock().await).await?;
        }
        Ok(())
    }

    async fn thaw(&self, process: &mut Process) -> io::Result<()> {
        process.frozen = false;
        signal("CONT", process).await
    }

    async fn kill(&self, process: &mut Process) -> io::Result<()> {
        let id = process.child.id();
        process.child.kill().await?;
        let mut told = self.tell();
        told.kills += 1;
        told.killed.extend(id.map(|id| (id, Timestamp::now())));
        Ok(())
    }

    async fn ask_to_stop(&self, process: &mut Process) -> io::Result<()> {
        self.tell().stops += 1;
        signal("TERM", process).await?;
        let ended = timeout(PATIENCE, process.child.wait()).await;
        match ended {
            Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => {}
            Ok(status) => self.tell().bad_exits.push(format!("{status:?}")),
            Err(_) => {
                self.tell().bad_exits.push(format!("nothing in {PATIENCE:?}"));
                process.child.kill().await?;
            }
        }
        Ok(())
    }

    async fn replace(&self, place: usize, process: &mut Process) -> io::Result<()> {
        let (child, url) = spawn(&self.plan, place).await?;
        process.child = child;
        self.urls.lock().unwrap_or_else(PoisonError::into_inner)[place] = url;
        Ok(())
    }

    fn tell(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ledger(plan: &Plan) -> PathBuf {
    plan.folder.join("ledger")
}

/// Starts a demo and waits until it says where it listens. It does not outlive its handle.
async fn spawn(plan: &Plan, place: usize) -> io::Result<(Child, String)> {
    let log = File::options().create(true).append(true).open(plan.folder.join(format!("log-{place}")))?;
    let mut command = Command::new(&plan.demo);
    command.current_dir(&plan.folder).env_clear();
    command.env("AE_BIND", "127.0.0.1:0").env("AE_STORE", &plan.store).env("AE_LEDGER", ledger(plan));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        timeout(PATIENCE, BufReader::new(out).read_line(&mut line)).await??;
    }
    let url = line.trim().strip_prefix("listening on ").map(str::to_owned);
    let url = url.ok_or_else(|| io::Error::other(format!("the demo said {line:?}; see log-{place}")))?;
    Ok((child, url))
}

async fn signal(name: &str, process: &Process) -> io::Result<()> {
    if let Some(id) = process.child.id() {
        Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &id.to_string()]).status().await?;
    }
    Ok(())
}
