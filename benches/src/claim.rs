//! What a claim costs with a thousand, a hundred thousand and a million jobs queued.

use std::{sync::Arc, time::Instant};

use async_endpoints::core::{JobName, MemoryStore, Store};
use tokio::runtime::Runtime;

use crate::{
    jobs::{self, CALLERS, Template},
    report::{Result, median, row, title},
};

pub(crate) const SIZES: [u32; 3] = [1_000, 100_000, 1_000_000];
/// Jobs taken from each store in a round; few, so that a thousand stay about a thousand.
const TAKEN: u32 = 320;

/// Stores and how many jobs each has queued; the first has the fewest.
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

/// Prints what claims cost on stores that are filled.
pub(crate) async fn on(name: &str, queues: &Queues, rounds: usize) -> Result<()> {
    let template = template()?;
    for batch in [1, 16] {
        title(&format!("Claim {name} in batches of {batch}, {rounds} rounds of {TAKEN} jobs, sizes in turns"));
        let mut costs = vec![Vec::new(); queues.len()];
        for _ in 0..rounds {
            for ((_, store), costs) in queues.iter().zip(&mut costs) {
                costs.push(claim(store, template.name(), batch).await?);
                template.fill(store, TAKEN, CALLERS).await?;
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
    for _ in 0..TAKEN / batch {
        let attempts = jobs::claim(&**store, name, batch).await?;
        assert_eq!(attempts.len(), batch as usize, "a claim came back short");
        std::hint::black_box(attempts);
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(TAKEN / batch * batch))
}
