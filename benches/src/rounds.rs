//! The product on a durable store, in turns with that store's own calls: inserts, a backlog that is drained, and jobs from
//! submission to settlement.

use std::{sync::Arc, time::Duration};

use async_endpoints::core::Store;

use crate::{
    direct,
    jobs::{CALLERS, Template},
    process::cpu,
    product::{self, SLOTS},
    report::{self, Result, median, quantile, row, title},
};

/// Where stores are: each round begins with an empty one.
pub(crate) trait Place {
    async fn fresh(&mut self) -> Result<Arc<dyn Store>>;

    /// The process that holds the jobs, if that is another one.
    fn server(&self) -> Option<u32>;
}

/// How often something was done in a second, and the processor time that each took, of this process and of the server.
#[derive(Default)]
pub(crate) struct Rates {
    pub(crate) rates: Vec<f64>,
    own: Vec<f64>,
    server: Vec<f64>,
}

impl Rates {
    async fn add(&mut self, jobs: u32, server: Option<u32>, run: impl Future<Output = Result<f64>>) -> Result<()> {
        let now = || -> Result<(Duration, Option<Duration>)> {
            Ok((cpu("self")?, server.map(|server| cpu(&server.to_string())).transpose()?))
        };
        let micros = |took: Duration| took.as_secs_f64() * 1e6 / f64::from(jobs);
        let (own, others) = now()?;
        self.rates.push(run.await?);
        let (own_after, others_after) = now()?;
        self.own.push(micros(own_after - own));
        self.server.extend(others.zip(others_after).map(|(before, after)| micros(after - before)));
        Ok(())
    }

    fn show(&self, what: &str) {
        report::rate(what, "jobs/s", &self.rates);
        let own = format!("{:>9.1} µs of this process", median(&self.own));
        match self.server.is_empty() {
            true => row("  processor time of each", &own),
            false => row("  processor time of each", &format!("{own}, {:.1} µs of the server", median(&self.server))),
        }
    }
}

#[derive(Default)]
pub(crate) struct Rounds {
    /// By 1, 16 and 64 callers.
    inserts: [Rates; 3],
    pub(crate) submits: Rates,
    /// By `WAYS`.
    drains: [Rates; WAYS.len()],
    drained: Rates,
    /// In MiB.
    growths: Vec<f64>,
    /// By `DRIVERS`.
    lives: [Rates; DRIVERS.len()],
    settled: Rates,
}

const INSERTERS: [u32; 3] = [1, 16, CALLERS];
/// Those who claim and settle at once.
const DRIVERS: [u32; 3] = [1, 2, 4];
/// The same, and in batches of how many: the fastest is what the product is held against.
const WAYS: [(u32, u32); 6] = [(1, 16), (2, 16), (4, 16), (1, 64), (2, 64), (4, 64)];
/// What the product claims at once.
const BATCH: u32 = 64;

impl Rounds {
    pub(crate) async fn round(&mut self, place: &mut impl Place, template: &Template, jobs: u32) -> Result<()> {
        let (store, server) = (place.fresh().await?, place.server());
        let parts = [jobs / 20, jobs / 4, jobs - jobs / 20 - jobs / 4];
        for ((rates, callers), jobs) in self.inserts.iter_mut().zip(INSERTERS).zip(parts) {
            rates.add(jobs, server, direct::inserts(&store, template, jobs, callers)).await?;
        }
        let growths = &mut self.growths;
        let drained = async {
            let drained = product::drain(&store, jobs).await?;
            growths.push(drained.growth);
            Ok(drained.per_second)
        };
        self.drained.add(jobs, server, drained).await?;

        let store = place.fresh().await?;
        self.submits.add(jobs, server, product::submits(&store, jobs)).await?;
        let some = jobs / WAYS.len() as u32;
        for (rates, (drivers, batch)) in self.drains.iter_mut().zip(WAYS) {
            rates.add(some, server, direct::drain(&store, template.name(), some, drivers, batch)).await?;
        }

        let store = place.fresh().await?;
        self.settled.add(jobs, server, product::submit_to_settled(&store, jobs)).await?;
        let store = place.fresh().await?;
        let some = jobs / DRIVERS.len() as u32;
        for (rates, drivers) in self.lives.iter_mut().zip(DRIVERS) {
            rates.add(some, server, direct::lives(&store, template, some, drivers, BATCH)).await?;
        }
        Ok(())
    }

    pub(crate) fn show(&self) {
        for (rates, callers) in self.inserts.iter().zip(INSERTERS) {
            rates.show(&format!("inserts alone, {callers} callers"));
        }
        self.submits.show(&format!("submissions, {CALLERS} callers, nobody works"));
        report::ratio("  ratio to inserts alone", &self.submits.rates, &self.inserts[2].rates);
        let way = |(drivers, batch)| format!("claims and settlements alone, {drivers} × batches of {batch}");
        let reference = fastest(&self.drains, &WAYS.map(way));
        self.drained.show("a backlog drained by the worker");
        report::ratio("  ratio to the fastest claims and settlements", &self.drained.rates, &reference.rates);
        let text = format!("{:>9.1} MiB, {:.1} at most", median(&self.growths), quantile(&self.growths, 1.0));
        row("  growth of this process, from a tenth to the end", &text);
        let way = |drivers| format!("the three calls alone, {drivers} × batches of {BATCH}");
        let reference = fastest(&self.lives, &DRIVERS.map(way));
        self.settled.show("submit to settled");
        report::ratio("  ratio to the fastest three calls", &self.settled.rates, &reference.rates);
    }
}

/// Shows them all, and the one that comes first in the median: the reference.
fn fastest<'a, const N: usize>(ways: &'a [Rates; N], names: &[String; N]) -> &'a Rates {
    let mut best = (&ways[0], &names[0]);
    for (rates, name) in ways.iter().zip(names) {
        report::rate(name, "jobs/s", &rates.rates);
        if median(&rates.rates) > median(&best.0.rates) {
            best = (rates, name);
        }
    }
    best.0.show(&format!("{} (reference)", best.1));
    best.0
}

/// Rounds of so many jobs, and what they came to.
pub(crate) async fn run(name: &str, place: &mut impl Place, rounds: usize, jobs: u32) -> Result<()> {
    title(&format!("{name}: {rounds} rounds of {jobs} no-op jobs, {CALLERS} callers, {SLOTS} slots, in turns"));
    let template = Template::submitted().await?;
    // Not counted: processes get their memory.
    Rounds::default().round(place, &template, jobs / 10).await?;
    let mut all = Rounds::default();
    for _ in 0..rounds {
        all.round(place, &template, jobs).await?;
    }
    all.show();
    Ok(())
}
