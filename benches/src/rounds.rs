//! The product on a durable store, in turns with the store's own calls: inserts, draining a backlog, and jobs from
//! submission to settlement.

use std::{sync::Arc, time::Duration};

use async_endpoints::core::Store;

use crate::{
    direct,
    jobs::{CALLERS, Template},
    process::{cpu, cpu_with_children},
    product::{self, SLOTS},
    report::{self, Result, median, quantile, row, title},
};

/// Provides an empty store for each part of a round.
pub(crate) trait StorePlace {
    async fn fresh(&mut self) -> Result<Arc<dyn Store>>;

    /// Id of the store's server process, if there is one.
    fn server(&self) -> Option<u32>;
}

/// Jobs per second, and processor time for each job in microseconds, of this process and of the server.
#[derive(Default)]
pub(crate) struct Rates {
    pub(crate) rates: Vec<f64>,
    own: Vec<f64>,
    server: Vec<f64>,
}

impl Rates {
    async fn add(&mut self, jobs: u32, server: Option<u32>, run: impl Future<Output = Result<f64>>) -> Result<()> {
        let now = || -> Result<(Duration, Option<Duration>)> {
            Ok((cpu("self")?, server.map(cpu_with_children).transpose()?))
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
    /// With the callers of `INSERTERS`.
    direct_inserts: [Rates; 3],
    pub(crate) submits: Rates,
    /// With the drivers and batches of `DRAINS`.
    direct_drains: [Rates; DRAINS.len()],
    drained: Rates,
    /// In MiB.
    growths: Vec<f64>,
    /// With the drivers of `DRIVERS`.
    direct_settled: [Rates; DRIVERS.len()],
    settled: Rates,
}

const INSERTERS: [u32; 3] = [1, 16, CALLERS];
/// Numbers of concurrent drivers, which claim and settle.
const DRIVERS: [u32; 3] = [1, 2, 4];
/// Numbers of drivers and sizes of batches. The fastest pair is the reference.
const DRAINS: [(u32, u32); 6] = [(1, 16), (2, 16), (4, 16), (1, 64), (2, 64), (4, 64)];
/// The batch size of the product.
const BATCH: u32 = 64;

impl Rounds {
    pub(crate) async fn round(&mut self, place: &mut impl StorePlace, template: &Template, jobs: u32) -> Result<()> {
        let (store, server) = (place.fresh().await?, place.server());
        let parts = [jobs / 20, jobs / 4, jobs - jobs / 20 - jobs / 4];
        for ((rates, callers), jobs) in self.direct_inserts.iter_mut().zip(INSERTERS).zip(parts) {
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
        let some = jobs / DRAINS.len() as u32;
        for (rates, (drivers, batch)) in self.direct_drains.iter_mut().zip(DRAINS) {
            rates.add(some, server, direct::drain(&store, template.name(), some, drivers, batch)).await?;
        }

        let store = place.fresh().await?;
        self.settled.add(jobs, server, product::submit_to_settled(&store, jobs)).await?;
        let store = place.fresh().await?;
        let some = jobs / DRIVERS.len() as u32;
        for (rates, drivers) in self.direct_settled.iter_mut().zip(DRIVERS) {
            rates.add(some, server, direct::insert_to_settled(&store, template, some, drivers, BATCH)).await?;
        }
        Ok(())
    }

    pub(crate) fn show(&self) {
        for (rates, callers) in self.direct_inserts.iter().zip(INSERTERS) {
            rates.show(&format!("inserts alone, {callers} callers"));
        }
        self.submits.show(&format!("submissions, {CALLERS} callers, no worker"));
        report::ratio("  ratio to inserts alone", &self.submits.rates, &self.direct_inserts[2].rates);
        let name = |(drivers, batch)| format!("claims and settlements alone, {drivers} × batches of {batch}");
        let reference = fastest(&self.direct_drains, &DRAINS.map(name));
        self.drained.show("a backlog drained by the worker");
        report::ratio("  ratio to the fastest claims and settlements", &self.drained.rates, &reference.rates);
        let text = format!("{:>9.1} MiB, {:.1} at most", median(&self.growths), quantile(&self.growths, 1.0));
        row("  growth of this process, from a tenth to the end", &text);
        let name = |drivers| format!("the three calls alone, {drivers} × batches of {BATCH}");
        let reference = fastest(&self.direct_settled, &DRIVERS.map(name));
        self.settled.show("submit to settled");
        report::ratio("  ratio to the fastest three calls", &self.settled.rates, &reference.rates);
    }
}

/// Prints all rates, and returns the one with the highest median as the reference.
fn fastest<'a, const N: usize>(all: &'a [Rates; N], names: &[String; N]) -> &'a Rates {
    let mut best = (&all[0], &names[0]);
    for (rates, name) in all.iter().zip(names) {
        report::rate(name, "jobs/s", &rates.rates);
        if median(&rates.rates) > median(&best.0.rates) {
            best = (rates, name);
        }
    }
    best.0.show(&format!("{} (reference)", best.1));
    best.0
}

/// Runs rounds of this number of jobs, and prints the results.
pub(crate) async fn run(name: &str, place: &mut impl StorePlace, rounds: usize, jobs: u32) -> Result<()> {
    title(&format!("{name}: {rounds} rounds of {jobs} no-op jobs, {CALLERS} callers, {SLOTS} slots, in turns"));
    let template = Template::submitted().await?;
    // Not counted: the process allocates its memory.
    Rounds::default().round(place, &template, jobs / 10).await?;
    let mut all = Rounds::default();
    for _ in 0..rounds {
        all.round(place, &template, jobs).await?;
    }
    all.show();
    Ok(())
}
