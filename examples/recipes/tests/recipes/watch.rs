//! The client against the service, as two programs.

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
/// How an event begins within which the connection is cut.
const MARK: &[u8] = b"event: progress\nid: ";

#[tokio::test]
async fn a_job_is_watched_to_its_end() {
    let service = Service::start(PROGRESS).await;
    let (lines, status) = Program::start(WATCH, &[&service.url, "8"]).end().await;
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    assert_eq!(lines.last().unwrap(), "Completed: {\"photos\":8}");
    let (events, told) = (&lines[..lines.len() - 1], |text: &str| lines.iter().any(|line| line.contains(text)));
    assert!(events.iter().all(|line| line.starts_with("status ") || line.starts_with("progress ")), "{lines:#?}");
    assert!(told("progress InProgress") && told("packing photo") && told("status   Completed"), "{lines:#?}");
}

#[tokio::test]
async fn ctrl_c_cancels_the_job_and_tells_its_end() {
    let service = Service::start(PROGRESS).await;
    let mut watch = Program::start(WATCH, &[&service.url, "100000"]);
    while !watch.line().await.unwrap().contains("packing photo") {}
    assert!(watch.signal("INT").await.unwrap().success());
    let (lines, status) = watch.end().await;
    assert_eq!(status.code(), Some(1), "{lines:#?}");
    assert!(lines.iter().any(|line| line == "asking it to stop"), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("status   Canceled")), "{lines:#?}");
    assert_eq!(lines.last().unwrap(), "Canceled at 0 %: The job was canceled (JOB_CANCELED)");
}

#[tokio::test]
async fn a_lost_connection_is_taken_up_where_it_was() {
    let service = Service::start(PROGRESS).await;
    let (address, way) = cutting(service.url.strip_prefix("http://").unwrap().to_owned()).await;
    let (lines, status) = Program::start(WATCH, &[&format!("http://{address}"), "8"]).end().await;
    assert_eq!(status.code(), Some(0), "{lines:#?}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("connection lost")).count(), 1, "{lines:#?}");
    let sent = String::from_utf8(way.sent.lock().unwrap().clone()).unwrap();
    assert_eq!(sent.matches("last-event-id: ").count(), 1, "{sent}");
}

#[tokio::test]
async fn a_service_that_is_not_there_is_told() {
    let ended = in_time("its end", Command::new(WATCH).arg("http://127.0.0.1:1").output()).await.unwrap();
    assert_eq!((ended.status.code(), &*ended.stdout), (Some(1), &b""[..]));
    assert!(ended.stderr.starts_with(b"error sending request for url (http://127.0.0.1:1/"), "{ended:?}");
}

/// A way to the service that breaks once, within the first progress event. Keeps what clients sent.
async fn cutting(service: String) -> (String, Arc<Way>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let way = Arc::new(Way { service, sent: Mutex::default(), was_cut: AtomicBool::new(false) });
    let kept = way.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let way = way.clone();
            // It ends with an error if either side hangs up while it is written to.
            tokio::spawn(async move { way.join(client).await });
        }
    });
    (address, kept)
}

struct Way {
    service: String,
    sent: Mutex<Vec<u8>>,
    was_cut: AtomicBool,
}

impl Way {
    /// Passes everything on until one side is gone.
    async fn join(&self, client: TcpStream) -> io::Result<()> {
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
