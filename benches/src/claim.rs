//! The cost of a claim with a thousand, a hundred thousand and a million queued jobs.

use std::{sync::Arc, time::Instant};

use async_endpoints::core::{JobName, MemoryStore, Store};
use tokio::runtime::Runtime;

use crate::{
    jobs::{self, CALLERS, Template},
    report::{Result, median, row, title},
};

pub(crate) const SIZES: [u32; 3] = [1_000, 100_000, 1_000_000];
/// Number of jobs claimed from each store in a round: few, so that the size of the queue hardly changes.
const CLAIMED: u32 = 320;

/// Number of queued jobs and the store that holds them. The first store has the fewest.
pub(crate) type Queues = Vec<(u32, Arc<dyn Store>)>;

pub(crate) fn template() -> Result<Template> {
    Template::plain("Queued")
}

pub(crate) fn run(runtime: &Runtime) -> Result<()> {
    let queues: Queues = SIZES.map(|size| (size, Arc::new(MemoryStore::new()) as Arc<dyn Store>)).into();
    let template = template()?;
    for (size, store) in &queues {
        runtime.block_on(template.fill(store, *size, CALLERS))?;
    }
    runtime.block_on(on("in memory", &queues, 101))
}

/// Prints the cost of claims on filled stores.
pub(crate) async fn on(name: &str, queues: &Queues, rounds: usize) -> Result<()> {
    let template = template()?;
    for batch in [1, 16] {
        title(&format!("Claim {name} in batches of {batch}, {rounds} rounds of {CLAIMED} jobs, sizes in turns"));
        let mut costs = vec![Vec::new(); queues.len()];
        for _ in 0..rounds {
            for ((_, store), costs) in queues.iter().zip(&mut costs) {
                costs.push(claim(store, template.name(), batch).await?);
                template.fill(store, CLAIMED, CALLERS).await?;
            }
        }
        let least = median(&costs[0]);
        for ((size, _), costs) in queues.iter().zip(&costs) {
            let (cost, least_size) = (median(costs), queues[0].0);
            let text = format!("{cost:>6.2} µs per job, {:.2} × that of {least_size}", cost / least);
            row(&format!("{size:>9} queued"), &text);
        }
    }
    Ok(())
}

/// Microseconds per job.
async fn claim(store: &Arc<dyn Store>, name: &JobName, batch: u32) -> Result<f64> {
    let began = Instant::now();
    for _ in 0..CLAIMED / batch {
        let attempts = jobs::claim(&**store, name, batch).await?;
        assert_eq!(attempts.len(), batch as usize, "incomplete batch");
        std::hint::black_box(attempts);
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(CLAIMED / batch * batch))
}
