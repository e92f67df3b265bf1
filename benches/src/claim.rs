//! What a claim costs with a thousand, a hundred thousand and a million jobs queued.

use std::time::{Duration, Instant};

use async_endpoints::core::{
    JobId, JobName, JobStore, MemoryStore, Priority,
    job::{Digest, JobTerms},
    store::{Claim, LeaseToken, NewJob, Want, WorkerId},
};
use bytes::Bytes;
use tokio::runtime::Runtime;

use crate::report::{median, row, title};

const SIZES: [u32; 3] = [1_000, 100_000, 1_000_000];
const ROUNDS: usize = 101;
/// Jobs taken from each store in a round; few, so that a thousand stay about a thousand.
const TAKEN: u32 = 320;

pub(crate) fn run(runtime: &Runtime) -> Result<(), Box<dyn std::error::Error>> {
    let stores: Vec<MemoryStore> = SIZES.iter().map(|_| MemoryStore::new()).collect();
    let name = JobName::new("Queued")?;
    for (store, size) in stores.iter().zip(SIZES) {
        runtime.block_on(fill(store, &name, size))?;
    }
    for batch in [1, 16] {
        title(&format!("Claim in batches of {batch}, {ROUNDS} rounds of {TAKEN} jobs, sizes in turns"));
        let mut costs = vec![Vec::new(); SIZES.len()];
        for _ in 0..ROUNDS {
            for (store, costs) in stores.iter().zip(&mut costs) {
                costs.push(runtime.block_on(claim(store, &name, batch))?);
                runtime.block_on(fill(store, &name, TAKEN))?;
            }
        }
        let least = median(&costs[0]);
        for (size, costs) in SIZES.iter().zip(&costs) {
            let cost = median(costs);
            row(&format!("{size:>9} queued"), &format!("{cost:>6.2} µs per job, {:.2} × that of 1000", cost / least));
        }
    }
    Ok(())
}

/// Microseconds per job.
async fn claim(store: &MemoryStore, name: &JobName, batch: u32) -> Result<f64, Box<dyn std::error::Error>> {
    let want = Want { name: name.clone(), n: batch, timeout: Duration::from_secs(60) };
    let mut claim = Claim {
        worker: WorkerId(uuid::Uuid::new_v4()),
        token: LeaseToken::random(),
        wants: vec![want],
        max: batch,
        max_bytes: 4 << 20,
        lease: Duration::from_secs(3600),
    };
    let began = Instant::now();
    for _ in 0..TAKEN / batch {
        claim.token = LeaseToken::random();
        let claimed = store.claim(&claim).await?;
        assert_eq!(claimed.attempts.len(), batch as usize, "a claim came back short");
        std::hint::black_box(claimed);
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(TAKEN / batch * batch))
}

pub(crate) async fn fill(store: &MemoryStore, name: &JobName, jobs: u32) -> Result<(), async_endpoints::StoreError> {
    for _ in 0..jobs {
        let job = NewJob {
            id: JobId::random(),
            id_chosen: false,
            name: name.clone(),
            payload: Bytes::from(vec![b'x'; 200]),
            terms: JobTerms {
                priority: Priority::default(),
                max_retries: 3,
                max_losses: 5,
                retention: Duration::from_secs(86_400),
            },
            delay: Duration::ZERO,
            queue_limit: None,
            key: None,
            fingerprint: Digest([7; 32]),
            owner: None,
            trace: None,
        };
        store.insert(job).await?;
    }
    Ok(())
}
