//! Tests of the services whose jobs read and write files.

use std::{env, fs, path::PathBuf, process};

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::support::{Service, in_time};

/// A folder that is deleted with its handle.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("async-endpoints-recipes-{name}-{}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn json(request: RequestBuilder) -> Value {
    in_time("an answer", request.send()).await.unwrap().json().await.unwrap()
}

async fn upload(service: &Service, text: String) -> Value {
    json(service.client.put(format!("{}/uploads", service.url)).body(text)).await["file"].clone()
}

#[tokio::test]
async fn import_continues_at_its_checkpoint_after_a_crash() {
    let folder = Folder::new("import");
    // A short lease, so that the job runs again soon after the crash.
    let variables = [("AE_LEASE_SECONDS", "1")];
    let args = [folder.0.to_str().unwrap()];
    let start = || Service::start_with(env!("CARGO_BIN_EXE_import"), &args, &variables);
    let mut service = start().await;
    let lines = 500_000;
    let file = upload(&service, (1..=lines).map(|id| format!("{id},3\n")).collect()).await;
    let accepted = service.post("/api/import", &json!({ "file": file })).await;
    let path = accepted.headers()["location"].to_str().unwrap().to_owned();
    let mut events =
        in_time("events", service.client.get(format!("{}{path}/events", service.url)).send()).await.unwrap();
    let mut seen = String::new();
    while !seen.contains(" lines\"") {
        let chunk = in_time("an event", events.chunk()).await.unwrap().expect("the job has not ended");
        seen.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(service.program.signal("KILL").await.unwrap().success());
    service.program.end().await;

    service = start().await;
    let job = json(service.client.get(format!("{}{path}?wait=60", service.url))).await;
    assert_eq!((&job["status"], &job["attempt"]), (&json!("Completed"), &json!(2)), "{job}");
    let result = &job["result"];
    assert_eq!((&result["lines"], &result["sum"]), (&json!(lines), &json!(3 * lines)), "each line counts once");
    assert!(result["startedAt"].as_u64() > Some(0), "{result}");
}

#[tokio::test]
async fn import_rejects_unknown_files_and_invalid_lines() {
    let folder = Folder::new("invalid");
    let service = Service::start_with(env!("CARGO_BIN_EXE_import"), &[folder.0.to_str().unwrap()], &[]).await;
    let unknown = json!({ "file": "01a22606-884b-742a-b43b-111bf4aea753" });
    let refused = service.post("/api/import", &unknown).await;
    assert_eq!(refused.status(), 422);
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "UNKNOWN_FILE");

    let file = upload(&service, "1,3\n2,many\n".to_owned()).await;
    let failed = service.finish("/api/import", &json!({ "file": file })).await;
    assert_eq!((&failed["status"], &failed["attempt"]), (&json!("Failed"), &json!(1)));
    assert_eq!(failed["error"]["detail"], "line 2 is \"2,many\": expected ID,AMOUNT");
}
