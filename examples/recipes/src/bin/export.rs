//! An export that ends in a download, for callers with a JWT.
//!
//! - A layer verifies the token: signature, issuer, audience and expiry. Its subject is the owner of the jobs.
//! - The handler writes a file. The result of the job is an address, since a result has at most 1 MiB.
//! - `GET /downloads/{id}` serves the file to the owner of the job, as long as the service keeps the job
//!   (`AE_RETENTION_SECONDS`). Later it answers 410. A task deletes the files of expired jobs.
//!
//! `export token ada` prints a token, as the identity provider does in production. There the key is the provider's public one:
//! `DecodingKey::from_rsa_pem` of the feature `use_pem`, with `Algorithm::RS256`.
//!
//! ```console
//! $ cargo run -p async-endpoints-recipes --bin export & sleep 1
//! listening on http://127.0.0.1:8080
//! $ ADA="Authorization: Bearer $(cargo run -q -p async-endpoints-recipes --bin export token ada)"
//! $ BOB="Authorization: Bearer $(cargo run -q -p async-endpoints-recipes --bin export token bob)"
//! $ URL=$(curl -s localhost:8080/exports -H "$ADA" --json '{"rows": 3}' -H 'Prefer: wait=10' | jq -r .result.url)
//! $ curl -si localhost:8080$URL -H "$ADA" | grep -iE '^HTTP|^content|,ada'
//! HTTP/1.1 200 OK
//! content-type: text/csv
//! content-disposition: attachment; filename="export.csv"
//! content-length: 18
//! 1,ada
//! 2,ada
//! 3,ada
//! $ curl -s localhost:8080$URL -H "$BOB" | jq -c '{status, code}'
//! {"status":404,"code":"EXPORT_NOT_FOUND"}
//! $ curl -s localhost:8080/exports -H 'Authorization: Bearer x.y.z' --json '{"rows": 3}' | jq -c '{status, code}'
//! {"status":401,"code":"UNAUTHORIZED"}
//! ```

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_endpoints::{
    AsyncEndpoints, Endpoint, JobContext, JobError, JobId, JobLookup, JobOwner, JobStatus, JobType, MemoryStore,
    Options, Problem,
};
use axum::{
    Extension, Router,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::get,
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncWriteExt, time::interval};

const ISSUER: &str = "https://login.example";
const AUDIENCE: &str = "exports";
/// The key of a development service. In production it comes from the environment or the identity provider.
const KEY: &[u8] = b"not secret, for development only";

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    iss: String,
    aud: String,
    exp: u64,
}

/// The caller. [`authenticate`] puts it into the request's extensions.
#[derive(Clone)]
struct User(String);

fn token(user: &str) -> Result<String, Box<dyn std::error::Error>> {
    let exp = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 3600;
    let claims = Claims { sub: user.to_owned(), iss: ISSUER.to_owned(), aud: AUDIENCE.to_owned(), exp };
    Ok(encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(KEY)?)?)
}

/// The user of a valid token.
fn user(headers: &HeaderMap) -> Option<User> {
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    // The algorithm is the service's choice, never that of the token.
    let mut rules = Validation::new(Algorithm::HS256);
    rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    rules.set_issuer(&[ISSUER]);
    rules.set_audience(&[AUDIENCE]);
    let claims = decode::<Claims>(token, &DecodingKey::from_secret(KEY).ok()?, &rules).ok()?.claims;
    Some(User(claims.sub))
}

/// A layer that rejects requests without a valid token.
async fn authenticate(mut request: Request, next: Next) -> Response {
    let Some(user) = user(request.headers()) else {
        return Problem::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "A valid token is needed")
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
            .into_response();
    };
    request.extensions_mut().insert(user);
    next.run(request).await
}

#[derive(Deserialize)]
struct Order {
    rows: u64,
}

#[derive(Serialize)]
struct Export {
    url: String,
    rows: u64,
}

const EXPORT: JobType<Order, Export> = JobType::new("Export");

/// The files, one for each job.
#[derive(Clone)]
struct Files {
    folder: Arc<PathBuf>,
}

impl Files {
    fn path(&self, job: JobId) -> PathBuf {
        self.folder.join(format!("{job}.csv"))
    }

    /// Deletes files that were written before this time.
    async fn delete_before(&self, time: SystemTime) -> io::Result<()> {
        let mut files = tokio::fs::read_dir(&*self.folder).await?;
        while let Some(file) = files.next_entry().await? {
            if file.metadata().await?.modified()? < time {
                tokio::fs::remove_file(file.path()).await?;
            }
        }
        Ok(())
    }
}

async fn export(ctx: JobContext<Order>, files: Files) -> Result<Export, JobError> {
    let owner = ctx.owner().and_then(JobOwner::label).unwrap_or_default();
    let rows = ctx.request().rows;
    // A part of its own for each attempt: an attempt that lost its lease may still write.
    let part = files.folder.join(format!("{}.{}.part", ctx.job_id(), ctx.attempt()));
    let mut file = tokio::fs::File::create(&part).await?;
    for row in 1..=rows {
        ctx.check_canceled()?;
        file.write_all(format!("{row},{owner}\n").as_bytes()).await?;
        ctx.progress().set(row, rows);
    }
    file.sync_all().await?;
    tokio::fs::rename(part, files.path(ctx.job_id())).await?;
    Ok(Export { url: format!("/downloads/{}", ctx.job_id()), rows })
}

/// Serves the file of a completed job to its owner.
async fn download(
    State((endpoints, files)): State<(AsyncEndpoints, Files)>,
    Extension(User(user)): Extension<User>,
    Path(id): Path<JobId>,
) -> Result<Response, Problem> {
    let missing = || Problem::new(StatusCode::NOT_FOUND, "EXPORT_NOT_FOUND", "There is no such export");
    let expired = || Problem::new(StatusCode::GONE, "EXPORT_EXPIRED", "The export has expired");
    match endpoints.jobs().owner(&user).job(id).await? {
        JobLookup::Found(job) if job.status == JobStatus::Completed => {}
        JobLookup::Found(_) | JobLookup::NotFound => return Err(missing()),
        JobLookup::Gone { .. } => return Err(expired()),
    }
    // `tokio_util::io::ReaderStream` serves a file that is too large for memory.
    let csv = tokio::fs::read(files.path(id)).await.map_err(|_| expired())?;
    let headers =
        [(header::CONTENT_TYPE, "text/csv"), (header::CONTENT_DISPOSITION, "attachment; filename=\"export.csv\"")];
    Ok((headers, csv).into_response())
}

/// Deletes the files of expired jobs, some two minutes later at the latest.
async fn delete_expired(files: Files, retention: Duration) {
    let mut turns = interval(Duration::from_secs(60).min(retention));
    loop {
        turns.tick().await;
        // A job ends after its file is written, and expires that much later.
        let Some(time) = SystemTime::now().checked_sub(retention + Duration::from_secs(60)) else { continue };
        if let Err(error) = files.delete_before(time).await {
            eprintln!("cannot delete expired files: {error}");
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [command, user] = args.as_slice()
        && command == "token"
    {
        println!("{}", token(user)?);
        return Ok(());
    }
    // Handlers see the names of owners.
    let options = Options { owner_labels: true, ..Options::from_env("AE_")? };
    let retention = options.retention;
    let folder = std::env::temp_dir().join(format!("exports-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let files = Files { folder: Arc::new(folder) };
    let endpoints = AsyncEndpoints::builder(MemoryStore::new())
        .options(options)
        .endpoint(Endpoint::post("/exports", EXPORT).layer(from_fn(authenticate)))
        .owner(|request| request.extensions.get::<User>().map(|user| user.0.clone()))
        .handler_with(EXPORT, files.clone(), export)
        .build()?;
    let downloads =
        Router::new().route("/downloads/{id}", get(download)).with_state((endpoints.clone(), files.clone()));
    let protected = downloads.merge(endpoints.job_routes()).layer(from_fn(authenticate));
    let app = protected.merge(endpoints.submit_routes());
    tokio::spawn(delete_expired(files, retention));
    let address = args.first().cloned().unwrap_or("127.0.0.1:8080".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(endpoints.serve(listener, app).await?)
}
