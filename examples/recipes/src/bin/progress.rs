//! A long job that reports progress and can be canceled. The recipe `watch` is a client for it.
//!
//! ```console
//! $ cargo run -p async-endpoints-recipes --bin progress
//! listening on http://127.0.0.1:8080
//! ```
//!
//! Each change of a job is sent as an event, for `EventSource` in a browser or any other client:
//!
//! ```console
//! $ pack() { curl -s localhost:8080/api/pack -H 'Content-Type: application/json' -d "{\"photos\": $1}" | jq -r .id; }
//! $ curl -sN localhost:8080/jobs/$(pack 4)/events | sed -n 's/^data: //p' |
//!     jq -c '[.status, .progress.percent, .progress.message]'
//! ["InProgress",null,"packing photo 1 of 4"]
//! ["InProgress",25,"packing photo 2 of 4"]
//! ["InProgress",75,"packing photo 4 of 4"]
//! ["Completed",100,"packing photo 4 of 4"]
//! $ JOB=$(pack 1000)
//! $ curl -s -X POST localhost:8080/jobs/$JOB/cancel | jq -c '{status, cancelRequestedAt}'
//! {"status":"InProgress","cancelRequestedAt":"2026-11-23T15:51:49.844327Z"}
//! $ curl -s "localhost:8080/jobs/$JOB?wait=10" | jq -c '{status, progress: .progress | {completed, percent, message}}'
//! {"status":"Canceled","progress":{"completed":19,"percent":1.9,"message":"discarded 19 photos"}}
//! ```

use std::time::Duration;

use async_endpoints::{AsyncEndpoints, Endpoint, JobContext, JobError, JobType, MemoryStore};

#[derive(serde::Deserialize)]
struct Album {
    photos: u64,
}

#[derive(serde::Serialize)]
struct Archive {
    photos: u64,
}

const PACK: JobType<Album, Archive> = JobType::new("Pack");

async fn pack(ctx: JobContext<Album>) -> Result<Archive, JobError> {
    let photos = ctx.request().photos;
    for photo in 1..=photos {
        ctx.progress().message(format!("packing photo {photo} of {photos}"));
        tokio::select! {
            () = pack_one() => ctx.progress().set(photo, photos),
            // The job was canceled, timed out, or the worker stops and the job will run again. Between two photos
            // `ctx.check_canceled()?` would be shorter.
            () = ctx.cancellation().cancelled() => {
                ctx.progress().message(format!("discarded {} photos", photo - 1));
                return Err(JobError::canceled());
            }
        }
    }
    Ok(Archive { photos })
}

/// The slow work.
async fn pack_one() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoints = AsyncEndpoints::builder(MemoryStore::new())
        .endpoint(Endpoint::post("/api/pack", PACK))
        .handler(PACK, pack)
        .build()?;
    let app = axum::Router::new().merge(endpoints.submit_routes()).merge(endpoints.job_routes());
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(endpoints.serve(listener, app).await?)
}
