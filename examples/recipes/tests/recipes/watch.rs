//! Tests of the client with the service, as two programs.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    net::{TcpListener, TcpStream},
    process::Command,
};

use crate::support::{Program, Service, in_time};

const PROGRESS: &str = env!("CARGO_BIN_EXE_progress");
const WATCH: &str = env!("CARGO_BIN_EXE_watch");
/// The connection is cut after these bytes, within an event.
const MARK: &[u8] = b"event: progress\nid: ";

#[tokio::test]
async fn job_is_followed_to_its_end() {
    let service = Service::start(PROGRESS).await;
    let (lines, status) = Program::start(WATCH, &[&service.url, "8"]).end().await;
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    assert_eq!(lines.last().unwrap(), "Completed: {\"photos\":8}");
    let (events, has_line) = (&lines[..lines.len() - 1], |text: &str| lines.iter().any(|line| line.contains(text)));
    assert!(events.iter().all(|line| line.starts_with("status ") || line.starts_with("progress ")), "{lines:#?}");
    assert!(
        has_line("progress InProgress") && has_line("packing photo") && has_line("status   Completed"),
        "{lines:#?}"
    );
}

#[tokio::test]
async fn ctrl_c_cancels_the_job() {
    let service = Service::start(PROGRESS).await;
    let mut watch = Program::start(WATCH, &[&service.url, "100000"]);
    while !watch.line().await.unwrap().contains("packing photo") {}
    assert!(watch.signal("INT").await.unwrap().success());
    let (lines, status) = watch.end().await;
    assert_eq!(status.code(), Some(1), "{lines:#?}");
    assert!(lines.iter().any(|line| line == "requesting cancellation"), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("status   Canceled")), "{lines:#?}");
    assert_eq!(lines.last().unwrap(), "Canceled at 0 %: The job was canceled (JOB_CANCELED)");
}

#[tokio::test]
async fn lost_connection_is_resumed() {
    let service = Service::start(PROGRESS).await;
    let (address, proxy) = cutting_proxy(service.url.strip_prefix("http://").unwrap().to_owned()).await;
    let (lines, status) = Program::start(WATCH, &[&format!("http://{address}"), "8"]).end().await;
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("connection lost")).count(), 1, "{lines:#?}");
    let sent = String::from_utf8(proxy.sent.lock().unwrap().clone()).unwrap();
    assert_eq!(sent.matches("last-event-id: ").count(), 1, "{sent}");
}

#[tokio::test]
async fn unreachable_service_is_an_error() {
    let ended = in_time("its end", Command::new(WATCH).arg("http://127.0.0.1:1").output()).await.unwrap();
    assert_eq!((ended.status.code(), &*ended.stdout), (Some(1), &b""[..]));
    assert!(ended.stderr.starts_with(b"error sending request for url (http://127.0.0.1:1/"), "{ended:?}");
}

/// Starts a proxy that cuts the connection once, within the first progress event.
async fn cutting_proxy(service: String) -> (String, Arc<Proxy>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let proxy = Arc::new(Proxy { service, sent: Mutex::default(), was_cut: AtomicBool::new(false) });
    let kept = proxy.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let proxy = proxy.clone();
            tokio::spawn(async move { proxy.forward(client).await });
        }
    });
    (address, kept)
}

struct Proxy {
    service: String,
    /// Bytes that clients sent.
    sent: Mutex<Vec<u8>>,
    was_cut: AtomicBool,
}

impl Proxy {
    /// Forwards bytes until one side closes.
    async fn forward(&self, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(&self.service).await?;
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (split(client), split(server));
        let (mut request, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        loop {
            tokio::select! {
                Ok(n @ 1..) = from_client.read(&mut request) => {
                    self.sent.lock().unwrap().extend(&request[..n]);
                    to_server.write_all(&request[..n]).await?;
                }
                Ok(n @ 1..) = from_server.read(&mut answer) => {
                    let progress = answer[..n].windows(MARK.len()).position(|bytes| bytes == MARK);
                    let cut = progress.filter(|_| !self.was_cut.swap(true, Ordering::Relaxed));
                    to_client.write_all(&answer[..cut.map_or(n, |start| start + MARK.len())]).await?;
                    if cut.is_some() {
                        return Ok(());
                    }
                }
                else => return Ok(()),
            }
        }
    }
}
