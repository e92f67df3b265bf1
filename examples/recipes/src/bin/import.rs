//! A large file that is uploaded once, passed to a job by reference, and read in chunks. After a crash the job continues at its
//! last checkpoint.
//!
//! - `PUT /uploads` streams the body into a file. A request has at most 1 MiB, so the job carries the key of the file.
//! - A checkpoint has the position in the file and the sums up to it, and is written in one step. An attempt starts at the
//!   checkpoint, so each line counts once. A chunk that was read after the last checkpoint is read again.
//! - The handler does not delete the file, since a later attempt may need it. Delete uploads by age, as a lifecycle rule of
//!   object storage does.
//!
//! The folder in the second argument stands for object storage. It also has the file `jobs.db`, whose jobs survive a crash.
//!
//! ```console
//! $ cargo build -p async-endpoints-recipes --bin import && mkdir -p /var/tmp/import
//! $ target/debug/import 127.0.0.1:8080 /var/tmp/import & sleep 1
//! listening on http://127.0.0.1:8080
//! $ FILE=$(seq 1000000 | sed 's/$/,3/' | curl -s -T - localhost:8080/uploads | jq -r .file)
//! $ JOB=localhost:8080/jobs/$(curl -s localhost:8080/api/import --json "{\"file\": \"$FILE\"}" | jq -r .id)
//! $ sleep 2; curl -s $JOB | jq -c '{status, attempt, message: .progress.message}'
//! {"status":"InProgress","attempt":1,"message":"478391 lines"}
//! $ kill -9 $!; target/debug/import 127.0.0.1:8080 /var/tmp/import &
//! listening on http://127.0.0.1:8080
//! $ curl -s "$JOB?wait=30" | jq -c '{status, attempt, result}'
//! {"status":"Completed","attempt":2,"result":{"lines":1000000,"sum":3000000,"startedAt":4522104}}
//! ```

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_endpoints::{
    AsyncEndpoints, DomainError, Endpoint, JobContext, JobError, JobId, JobType, Options, Problem, SqliteStore,
    Submission,
};
use axum::{Json, Router, body::Body, extract::State, http::StatusCode, routing::put};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

/// Bytes between two checkpoints.
const CHUNK: u64 = 64 * 1024;
/// Maximum size of an upload.
const MAX_BYTES: usize = 1 << 30;

#[derive(Deserialize)]
struct Import {
    file: Uuid,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Imported {
    lines: u64,
    sum: u64,
    /// Where the last attempt started in the file.
    started_at: u64,
}

#[derive(Debug, thiserror::Error)]
enum ImportError {
    #[error("there is no file {0}")]
    UnknownFile(Uuid),
    #[error("line {number} is {text:?}: expected ID,AMOUNT")]
    InvalidLine { number: u64, text: String },
}

impl DomainError for ImportError {
    const CODES: &'static [&'static str] = &["UNKNOWN_FILE", "INVALID_LINE"];

    fn job_error(&self) -> JobError {
        let code = match self {
            Self::UnknownFile(_) => "UNKNOWN_FILE",
            Self::InvalidLine { .. } => "INVALID_LINE",
        };
        JobError::permanent(code, self.to_string()).status(422)
    }
}

const IMPORT: JobType<Import, Imported> = JobType::new("Import").errors::<ImportError>();

/// How far a job has come. The sums depend on the position alone. An attempt that lost its lease may still write an older
/// checkpoint: the next attempt then repeats some chunks, with the same sums.
#[derive(Copy, Clone, Default, Serialize, Deserialize)]
struct Checkpoint {
    position: u64,
    lines: u64,
    sum: u64,
}

/// Uploads and checkpoints. Each is written under another name first: a crash leaves no half of one.
struct Storage {
    folder: PathBuf,
}

impl Storage {
    fn upload(&self, file: Uuid) -> PathBuf {
        self.folder.join(format!("{file}.csv"))
    }

    async fn store(&self, body: Body) -> io::Result<Uuid> {
        let file = Uuid::new_v4();
        let part = self.folder.join(format!("{file}.part"));
        if let Err(error) = write(&part, body).await {
            tokio::fs::remove_file(&part).await?;
            return Err(error);
        }
        tokio::fs::rename(&part, self.upload(file)).await?;
        Ok(file)
    }

    fn checkpoint(&self, job: JobId) -> io::Result<Checkpoint> {
        match fs::read(self.folder.join(format!("{job}.json"))) {
            Ok(json) => Ok(serde_json::from_slice(&json)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Checkpoint::default()),
            Err(error) => Err(error),
        }
    }

    fn set_checkpoint(&self, job: JobId, checkpoint: Checkpoint) -> io::Result<()> {
        let part = self.folder.join(format!("{}.part", Uuid::new_v4()));
        fs::write(&part, serde_json::to_vec(&checkpoint)?)?;
        fs::rename(part, self.folder.join(format!("{job}.json")))
    }
}

/// Writes a body to a file, chunk by chunk.
async fn write(path: &Path, body: Body) -> io::Result<()> {
    let mut file = tokio::fs::File::create(path).await?;
    let (mut chunks, mut bytes) = (body.into_data_stream(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(io::Error::other)?;
        bytes += chunk.len();
        if bytes > MAX_BYTES {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        file.write_all(&chunk).await?;
    }
    file.sync_all().await
}

async fn upload(State(storage): State<Arc<Storage>>, body: Body) -> Result<(StatusCode, Json<Value>), Problem> {
    match storage.store(body).await {
        Ok(file) => Ok((StatusCode::CREATED, Json(json!({ "file": file })))),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            let problem = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "FILE_TOO_LARGE", "The file is too large");
            Err(problem.with_detail(format!("A file has at most {MAX_BYTES} bytes.")))
        }
        Err(error) => {
            eprintln!("cannot store an upload: {error}");
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "STORAGE_ERROR", "The file was not stored"))
        }
    }
}

/// The handler, on a thread of its own, since it blocks.
fn import(ctx: &JobContext<Import>, storage: &Storage) -> Result<Imported, JobError> {
    let file = File::open(storage.upload(ctx.request().file))?;
    let size = file.metadata()?.len();
    let mut at = storage.checkpoint(ctx.job_id())?;
    let (started_at, mut reader) = (at.position, BufReader::new(file));
    reader.seek(SeekFrom::Start(started_at))?;
    while at.position < size {
        ctx.check_canceled()?;
        at = read_chunk(&mut reader, at)?;
        storage.set_checkpoint(ctx.job_id(), at)?;
        ctx.progress().set(at.position, size);
        ctx.progress().message(format!("{} lines", at.lines));
    }
    Ok(Imported { lines: at.lines, sum: at.sum, started_at })
}

/// Reads whole lines, up to the first that ends behind the chunk.
fn read_chunk(reader: &mut impl BufRead, from: Checkpoint) -> Result<Checkpoint, JobError> {
    let (mut at, mut line) = (from, String::new());
    while at.position < from.position + CHUNK {
        line.clear();
        let bytes = reader.read_line(&mut line)?;
        if bytes == 0 {
            break;
        }
        at.lines += 1;
        let text = line.trim_end();
        let amount = text.split_once(',').and_then(|(_id, amount)| amount.parse::<u64>().ok());
        let amount = amount.ok_or_else(|| ImportError::InvalidLine { number: at.lines, text: text.to_owned() })?;
        at.sum = at.sum.saturating_add(amount);
        at.position += bytes as u64;
    }
    std::thread::sleep(Duration::from_millis(20)); // the slow work
    Ok(at)
}

/// Refuses a job whose file does not exist.
fn check(order: Submission<Import>, storage: &Storage) -> Result<Submission<Import>, Problem> {
    let file = order.request().file;
    if storage.upload(file).is_file() { Ok(order) } else { Err(ImportError::UnknownFile(file).into()) }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or("127.0.0.1:8080".to_owned());
    let folder = PathBuf::from(args.next().unwrap_or(".".to_owned()));
    let store = SqliteStore::open(folder.join("jobs.db")).await?;
    let storage = Arc::new(Storage { folder });
    let (known, read) = (storage.clone(), storage.clone());
    let endpoint =
        Endpoint::post("/api/import", IMPORT).validate(move |order| std::future::ready(check(order, &known)));
    let endpoints = AsyncEndpoints::builder(store)
        .options(Options::from_env("AE_")?)
        .endpoint(endpoint)
        .blocking_handler(IMPORT, move |ctx| import(&ctx, &read))
        .build()?;
    let uploads = Router::new().route("/uploads", put(upload)).with_state(storage);
    let app = uploads.merge(endpoints.submit_routes()).merge(endpoints.job_routes());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(endpoints.serve(listener, app).await?)
}
