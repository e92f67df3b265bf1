//! Draws faults from the scenario, carries them out and records them. The seed decides order, times and processes.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    fault::{Deck, Fault, Span, Target},
    file,
    fleet::Fleet,
    history::FaultEvent,
    proxy::LinkState,
    server::Server,
};

/// Pause after an outage or a disconnection, so that no other fault hides the recovery.
const RECOVERY: Duration = Duration::from_secs(6);

const END_SESSIONS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                            WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";

/// Injects faults until the given time. Returns when all of them are over.
pub(crate) async fn inject_faults(fleet: &Arc<Fleet>, until: Instant, rng: &mut fastrand::Rng) -> io::Result<()> {
    let mut deck = Deck::new(fleet.plan().store.scenario().faults);
    let mut running = JoinSet::new();
    while Instant::now() < until {
        sleep(Duration::from_millis(rng.u64(300..2500))).await;
        while let Some(result) = running.try_join_next() {
            result??;
        }
        let Some(fault) = deck.draw(rng) else { continue };
        let alone = fault.is_outage() && rng.u8(..3) > 0;
        let injection = Box::pin(inject(fleet.clone(), fault, alone, rng.fork()));
        if !alone {
            running.spawn(async { injection.await.map(drop) });
        } else if injection.await? {
            sleep(RECOVERY).await;
        }
    }
    while let Some(result) = running.join_next().await {
        result??;
    }
    Ok(())
}

/// Returns false if no process is free for the fault, or the fault concerns the server and an outage is in progress.
async fn inject(fleet: Arc<Fleet>, fault: Fault, alone: bool, mut rng: fastrand::Rng) -> io::Result<bool> {
    let from = Timestamp::now();
    let event = |process| FaultEvent { fault, process, from, until: Timestamp::now(), alone };
    match fault {
        Fault::Kill(target) | Fault::Stop(target) | Fault::Freeze(target, _) | Fault::CutOff(target, _) => {
            return inject_into_one(&fleet, fault, target, &mut rng).await;
        }
        Fault::Roll => {
            for place in 0..fleet.places() {
                fleet.restart(place, &mut *fleet.wait_for(place).await).await?;
            }
        }
        Fault::LoseAnswers => fleet.servers.lose_answers(),
        Fault::FlushScripts => return command(&fleet, event(None), "SCRIPT FLUSH").await,
        Fault::KillClients("pubsub") => return command(&fleet, event(None), "CLIENT KILL TYPE pubsub").await,
        Fault::KillClients(_) => return command(&fleet, event(None), "CLIENT KILL TYPE normal").await,
        Fault::EndSessions => return command(&fleet, event(None), END_SESSIONS).await,
        Fault::Outage(_) | Fault::KillStore | Fault::FreezeStore | Fault::RefuseWrites | Fault::Promote(_) => {
            let Ok(_held) = fleet.outage.try_lock() else { return Ok(false) };
            let until = outage(&fleet, fault, &mut rng).await?;
            fleet.history.lock().events.push(FaultEvent { until, ..event(None) });
            return Ok(true);
        }
    }
    fleet.history.lock().events.push(event(None));
    Ok(true)
}

async fn inject_into_one(fleet: &Fleet, fault: Fault, target: Target, rng: &mut fastrand::Rng) -> io::Result<bool> {
    let Some((place, mut process)) = fleet.take(target, rng) else { return Ok(false) };
    let (from, id, lease) = (Timestamp::now(), process.id, fleet.plan().lease);
    let record = |until| {
        fleet.history.lock().events.push(FaultEvent { fault, process: Some(id), from, until, alone: false });
    };
    let mut held_write_lock = false;
    match fault {
        Fault::Kill(_) => fleet.kill(place, &mut process).await?,
        Fault::Freeze(_, span) => {
            process.freeze().await?;
            held_write_lock = file::is_written_by(id, &fleet.plan().file());
            sleep(span.draw(lease, rng)).await;
            process.thaw().await?;
        }
        Fault::CutOff(_, link) => {
            fleet.servers.set_one(place, link);
            sleep(Span::PastLease.draw(lease, rng)).await;
            fleet.servers.set_one(place, LinkState::Open);
            record(Timestamp::now());
            sleep(RECOVERY).await;
            return Ok(true);
        }
        _ => fleet.restart(place, &mut process).await?,
    }
    let until = Timestamp::now();
    record(until);
    if held_write_lock {
        let fault = Fault::FreezeStore;
        fleet.history.lock().events.push(FaultEvent { fault, process: None, from, until, alone: false });
    }
    Ok(true)
}

/// Sends a command to the server. Returns false during an outage.
async fn command(fleet: &Fleet, event: FaultEvent, command: &'static str) -> io::Result<bool> {
    let Ok(_held) = fleet.outage.try_lock() else { return Ok(false) };
    fleet.servers.command(command).await?;
    fleet.history.lock().events.push(FaultEvent { until: Timestamp::now(), ..event });
    Ok(true)
}

/// Carries out an outage. Returns the time of its end.
async fn outage(fleet: &Fleet, fault: Fault, rng: &mut fastrand::Rng) -> io::Result<Timestamp> {
    let (servers, span) = (&fleet.servers, Duration::from_millis(rng.u64(1000..8000)));
    match fault {
        Fault::KillStore => {
            servers.on_primary(Server::kill).await?;
            sleep(span / 2).await;
            servers.on_primary(Server::restart).await?;
        }
        Fault::FreezeStore => {
            servers.on_primary(Server::pause).await?;
            sleep(span).await;
            servers.on_primary(Server::resume).await?;
        }
        Fault::RefuseWrites => {
            servers.on_primary(|primary| primary.refuse_writes(true)).await??;
            sleep(span).await;
            servers.on_primary(|primary| primary.refuse_writes(false)).await??;
        }
        Fault::Promote(_) => {
            servers.promote().await?;
            let until = Timestamp::now();
            servers.follow().await?;
            return Ok(until);
        }
        Fault::Outage(link) => {
            servers.set_all(link);
            sleep(span).await;
            servers.set_all(LinkState::Open);
        }
        _ => {}
    }
    Ok(Timestamp::now())
}
