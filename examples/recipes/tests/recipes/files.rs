//! Tests of the services whose jobs read and write files.

use std::{env, fs, path::PathBuf, process};

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::support::{Program, Service, in_time};

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

async fn token(user: &str) -> String {
    let (lines, status) = Program::start(env!("CARGO_BIN_EXE_export"), &["token", user], &[]).end().await;
    assert!(status.success());
    lines.concat()
}

#[tokio::test]
async fn export_is_downloaded_by_its_owner_until_it_expires() {
    // Long enough for the downloads below, and short enough to wait for the end.
    let service = Service::start_with(env!("CARGO_BIN_EXE_export"), &[], &[("AE_RETENTION_SECONDS", "4")]).await;
    let (ada, bob) = (token("ada").await, token("bob").await);
    let get = |path: &str, token: &str| {
        let request = service.client.get(format!("{}{path}", service.url)).bearer_auth(token);
        async { in_time("an answer", request.send()).await.unwrap() }
    };
    let order = service.client.post(format!("{}/exports", service.url)).json(&json!({ "rows": 2 }));
    let job = json(order.bearer_auth(&ada).header("prefer", "wait=30")).await;
    let url = job["result"]["url"].as_str().unwrap_or_else(|| panic!("{job}"));
    let file = get(url, &ada).await;
    assert_eq!(file.headers()["content-type"], "text/csv");
    assert_eq!(file.text().await.unwrap(), "1,ada\n2,ada\n");
    assert_eq!(get(url, &bob).await.status(), 404);
    let unknown = format!("/jobs/{}", job["id"].as_str().unwrap());
    assert_eq!(get(&unknown, &bob).await.status(), 404);

    while get(url, &ada).await.status() == 200 {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert_eq!(get(url, &ada).await.status(), 410);
}

#[tokio::test]
async fn export_refuses_tokens_that_are_not_valid() {
    let service = Service::start(env!("CARGO_BIN_EXE_export")).await;
    let ada = token("ada").await;
    let (body, _signature) = ada.rsplit_once('.').unwrap();
    // {"alg":"none"} with the same claims.
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", body.split_once('.').unwrap().1);
    for token in [String::new(), "x.y.z".to_owned(), format!("{body}."), unsigned] {
        let order = service.client.post(format!("{}/exports", service.url)).json(&json!({ "rows": 2 }));
        let refused = in_time("an answer", order.bearer_auth(&token).send()).await.unwrap();
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["www-authenticate"]),
            (401, &"Bearer".parse().unwrap())
        );
    }
}
