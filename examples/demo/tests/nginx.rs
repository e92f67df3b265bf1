//! Operator routes behind nginx with its shortest configuration.

mod support;

use std::{fs, path::Path};

use async_endpoints_testkit::server::free_port;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use support::{Demo, Folder, in_time, peer::Peer, until};
use tokio::net::TcpStream;

/// Starts nginx in front of the demo. Returns its handle and its URL.
async fn nginx(folder: &Folder, demo: &Demo) -> (Peer, String) {
    let (listen, demo) = (format!("127.0.0.1:{}", free_port()), demo.url(""));
    // One process, so that the handle ends all of it; the paths are in the folder of the test.
    let config = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr; events {{}}
        http {{
            access_log off;
            client_body_temp_path body; proxy_temp_path proxy;
            fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
            server {{ listen {listen}; location / {{ proxy_pass {demo}; }} }}
        }}"
    );
    fs::write(folder.join("nginx.conf"), config).expect("a file");
    let prefix = folder.join("").display().to_string();
    let args = ["-p", &prefix, "-c", "nginx.conf", "-e", "stderr"];
    let peer = Peer::start(folder, Path::new("/usr/sbin/nginx"), "the Debian package nginx-light", &args);
    in_time("a connection to nginx", async {
        while TcpStream::connect(&listen).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    (peer, format!("http://{listen}"))
}

#[tokio::test]
async fn operator_routes_are_closed_behind_nginx() {
    let folder = Folder::new();
    let demo = Demo::start(&folder, &[("AE_STORE", "memory:")]).await;
    until("the warning", || demo.log().contains("AE_ADMIN_TOKEN is not set")).await;
    let (_nginx, url) = nginx(&folder, &demo).await;
    let job = demo.submit("/api/process-data", &json!({ "category": "hail" })).await;
    demo.ended(&job).await;
    let client = Client::new();
    let send = |method, path: &str| in_time("an answer", client.request(method, format!("{url}{path}")).send());
    assert_eq!(send(Method::GET, &job).await.expect("an answer").status(), StatusCode::OK);
    for (method, path) in
        [(Method::GET, "/jobs"), (Method::GET, "/metrics"), (Method::GET, "/metrics/jobs"), (Method::POST, "/retry")]
    {
        let path = if path == "/retry" { format!("{job}{path}") } else { path.to_owned() };
        let answer = send(method.clone(), &path).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{method} {path}");
        assert_eq!(answer.json::<Value>().await.expect("a problem")["code"], "FORBIDDEN");
        let here = demo.url(&path);
        assert!(client.request(method, here).send().await.expect("an answer").status().is_success(), "{path}");
    }
}
