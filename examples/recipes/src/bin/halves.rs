//! One service in two halves: `api` accepts jobs over HTTP and has no handlers, `worker` has handlers and no routes.
//!
//! Both use the module `jobs` and one store. With `MemoryStore` they must run in one process, as here. With SQLite or Redis
//! `api` and `worker` are two programs, each with its part of `main`, and any number of processes runs each of them.
//!
//! ```console
//! $ cargo run -p async-endpoints-recipes --bin halves
//! listening on http://127.0.0.1:8080
//! ```
//!
//! ```console
//! $ curl -s localhost:8080/api/count-words -H 'Content-Type: application/json' -H 'Prefer: wait=5' \
//!     -d '{"text": "to be or not to be"}' | jq -c '{status, result}'
//! {"status":"Completed","result":{"words":6}}
//! ```

use std::sync::Arc;

use async_endpoints::MemoryStore;
use axum::Router;

/// Shared by both halves. With two programs it belongs in a library.
mod jobs {
    use async_endpoints::JobType;
    use serde::{Deserialize, Serialize};

    /// Limits are part of the constant, so both halves use the same.
    pub(crate) const COUNT_WORDS: JobType<Text, Count> = JobType::new("CountWords").max_retries(1);

    #[derive(Deserialize)]
    pub(crate) struct Text {
        pub(crate) text: String,
    }

    #[derive(Serialize)]
    pub(crate) struct Count {
        pub(crate) words: usize,
    }
}

/// Accepts jobs.
mod api {
    use async_endpoints::{AsyncEndpoints, BuildError, Endpoint, Store};

    use crate::jobs::COUNT_WORDS;

    pub(crate) fn build(store: impl Store) -> Result<AsyncEndpoints, BuildError> {
        AsyncEndpoints::builder(store)
            .endpoint(Endpoint::post("/api/count-words", COUNT_WORDS))
            .handled_elsewhere(COUNT_WORDS)
            .build()
    }
}

/// Runs jobs.
mod worker {
    use async_endpoints::{AsyncEndpoints, BuildError, JobContext, JobError, Store};

    use crate::jobs::{COUNT_WORDS, Count, Text};

    pub(crate) fn build(store: impl Store) -> Result<AsyncEndpoints, BuildError> {
        AsyncEndpoints::builder(store).handler(COUNT_WORDS, count_words).build()
    }

    async fn count_words(ctx: JobContext<Text>) -> Result<Count, JobError> {
        Ok(Count { words: ctx.request().text.split_whitespace().count() })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Arc::new(MemoryStore::new());
    let (api, worker) = (api::build(store.clone())?, worker::build(store)?);
    let app = Router::new().merge(api.submit_routes()).merge(api.job_routes());
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    // Each half drains on SIGTERM and Ctrl-C. If a half ends for another reason, it shuts down the other.
    let serving = async {
        let served = api.serve(listener, app).await;
        worker.shutdown();
        served
    };
    let working = async {
        let worked = worker.run().await;
        api.shutdown();
        worked
    };
    let (served, worked) = tokio::join!(serving, working);
    Ok(served.and(worked)?)
}
