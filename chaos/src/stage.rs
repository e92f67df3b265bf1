//! Lets things happen, and writes down what happened. What may happen is said by the scene; who it happens to, and when,
//! by the seed.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    diary::Happened,
    fault::{Deck, Fault, Span, Who},
    file,
    fleet::Fleet,
    proxy::Way,
};

/// After an outage, or after one was cut off: so long nothing else happens that would hide how it came back.
const AFTERMATH: Duration = Duration::from_secs(6);

/// Until then. In the end everything is as it should be.
pub(crate) async fn play(fleet: &Arc<Fleet>, until: Instant, rng: &mut fastrand::Rng) -> io::Result<()> {
    let mut deck = Deck::new(fleet.plan().store.scene().faults);
    let mut running = JoinSet::new();
    while Instant::now() < until {
        sleep(Duration::from_millis(rng.u64(300..2500))).await;
        while let Some(over) = running.try_join_next() {
            over??;
        }
        let Some(fault) = deck.draw(rng) else { continue };
        let alone = fault.is_outage() && rng.u8(..3) > 0;
        let happening = Box::pin(happen(fleet.clone(), fault, alone, rng.fork()));
        if !alone {
            running.spawn(async { happening.await.map(drop) });
        } else if happening.await? {
            sleep(AFTERMATH).await;
        }
    }
    while let Some(over) = running.join_next().await {
        over??;
    }
    Ok(())
}

/// Whether it could: not if nobody is free for it.
async fn happen(fleet: Arc<Fleet>, fault: Fault, alone: bool, mut rng: fastrand::Rng) -> io::Result<bool> {
    let from = Timestamp::now();
    let happened = |process| Happened { fault, process, from, until: Timestamp::now(), alone };
    match fault {
        Fault::Kill(who) | Fault::Stop(who) | Fault::Freeze(who, _) | Fault::CutOff(who, _) => {
            return to_one(&fleet, fault, who, &mut rng).await;
        }
        Fault::Roll => {
            for place in 0..fleet.places() {
                fleet.restart(place, &mut *fleet.wait_for(place).await).await?;
            }
        }
        Fault::LoseAnswers => fleet.backing.lose_answers(),
        Fault::FlushScripts => fleet.backing.tell(&["SCRIPT", "FLUSH"]).await?,
        Fault::KillClients("pubsub") => fleet.backing.tell(&["CLIENT", "KILL", "TYPE", "pubsub"]).await?,
        Fault::KillClients(_) => fleet.backing.tell(&["CLIENT", "KILL", "TYPE", "normal"]).await?,
        Fault::Outage(_) | Fault::KillStore | Fault::FreezeStore | Fault::FillStore | Fault::Promote => {
            let Ok(_held) = fleet.store.try_lock() else { return Ok(false) };
            let until = outage(&fleet, fault, &mut rng).await?;
            fleet.diary.write().happened.push(Happened { until, ..happened(None) });
            return Ok(true);
        }
    }
    fleet.diary.write().happened.push(happened(None));
    Ok(true)
}

async fn to_one(fleet: &Fleet, fault: Fault, who: Who, rng: &mut fastrand::Rng) -> io::Result<bool> {
    let Some((place, mut process)) = fleet.take(who, rng) else { return Ok(false) };
    let (from, id, lease) = (Timestamp::now(), process.id, fleet.plan().lease);
    let over = |until| {
        fleet.diary.write().happened.push(Happened { fault, process: Some(id), from, until, alone: false });
    };
    let mut with_the_store = false;
    match fault {
        Fault::Kill(_) => fleet.kill(place, &mut process).await?,
        Fault::Freeze(_, span) => {
            process.freeze().await?;
            with_the_store = file::is_written_by(id, &fleet.plan().file());
            sleep(span.draw(lease, rng)).await;
            process.thaw().await?;
        }
        Fault::CutOff(_, way) => {
            fleet.backing.set_one(place, way);
            sleep(Span::PastLease.draw(lease, rng)).await;
            fleet.backing.set_one(place, Way::Open);
            over(Timestamp::now());
            sleep(AFTERMATH).await;
            return Ok(true);
        }
        _ => fleet.restart(place, &mut process).await?,
    }
    let until = Timestamp::now();
    over(until);
    if with_the_store {
        let fault = Fault::FreezeStore;
        fleet.diary.write().happened.push(Happened { fault, process: None, from, until, alone: false });
    }
    Ok(true)
}

/// When it was over for everybody.
async fn outage(fleet: &Fleet, fault: Fault, rng: &mut fastrand::Rng) -> io::Result<Timestamp> {
    let (backing, span) = (&fleet.backing, Duration::from_millis(rng.u64(1000..8000)));
    match fault {
        Fault::KillStore => {
            backing.kill().await?;
            sleep(span / 2).await;
            backing.restart().await?;
        }
        Fault::FreezeStore => {
            backing.freeze().await?;
            sleep(span).await;
            backing.thaw().await?;
        }
        Fault::FillStore => {
            backing.tell(&["CONFIG", "SET", "maxmemory", "1"]).await?;
            sleep(span).await;
            backing.tell(&["CONFIG", "SET", "maxmemory", "0"]).await?;
        }
        Fault::Promote => {
            backing.promote().await?;
            let over = Timestamp::now();
            backing.follow().await?;
            return Ok(over);
        }
        Fault::Outage(way) => {
            backing.set_all(way);
            sleep(span).await;
            backing.set_all(Way::Open);
        }
        _ => {}
    }
    Ok(Timestamp::now())
}
