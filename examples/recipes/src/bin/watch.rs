//! A command-line client: submits a job to `progress`, follows its server-sent events and shows the progress. It resumes a
//! lost connection at the last event. Ctrl-C cancels the job and waits for its end. Exits with 0 if the job completed,
//! otherwise with 1.
//!
//! On a terminal it shows a bar, elsewhere a line for each event:
//!
//! ```console
//! $ cargo run -p async-endpoints-recipes --bin watch -- http://127.0.0.1:8080 8
//! ██████████████░░░░░░░░░░░░░░░░░░░░░░░░░░  37 % 1s InProgress packing photo 6 of 8
//! $ cargo run -p async-endpoints-recipes --bin watch -- http://127.0.0.1:8080 10 | cat
//! status   InProgress   0 %
//! progress InProgress   0 % packing photo 1 of 10
//! progress InProgress  20 % packing photo 3 of 10
//! progress InProgress  40 % packing photo 5 of 10
//! progress InProgress  60 % packing photo 7 of 10
//! progress InProgress  80 % packing photo 9 of 10
//! status   Completed  100 % packing photo 10 of 10
//! Completed: {"photos":10}
//! ```
//!
//! The output after Ctrl-C:
//!
//! ```console
//! requesting cancellation
//! status   InProgress   8 % packing photo 9 of 100
//! progress InProgress  10 % packing photo 11 of 100
//! …
//! status   Canceled    19 % discarded 19 photos
//! Canceled at 19 %: The job was canceled (JOB_CANCELED)
//! ```

use std::{
    io::{self, IsTerminal},
    mem,
    pin::pin,
    process::ExitCode,
    time::Duration,
};

use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::{signal::ctrl_c, time::sleep};

type Failure = Box<dyn std::error::Error>;

/// Maximum number of consecutive connections without an event.
const MAX_TRIES: u32 = 10;
/// A connection is dead after three missing heartbeats. The service sends one every 15 s.
const READ_TIMEOUT: Duration = Duration::from_secs(45);

/// The shown fields of a job document.
#[derive(Deserialize)]
struct Job {
    status: String,
    progress: Option<Progress>,
    result: Option<serde_json::Value>,
    error: Option<Problem>,
    links: Links,
}

#[derive(Deserialize)]
struct Progress {
    percent: Option<f64>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
    title: String,
    detail: Option<String>,
}

#[derive(Deserialize)]
struct Links {
    events: String,
    cancel: String,
}

impl Job {
    fn has_ended(&self) -> bool {
        ["Completed", "Failed", "Canceled"].contains(&self.status.as_str())
    }

    fn percent(&self) -> f64 {
        self.progress.as_ref().and_then(|progress| progress.percent).unwrap_or(0.0)
    }

    fn message(&self) -> &str {
        self.progress.as_ref().and_then(|progress| progress.message.as_deref()).unwrap_or_default()
    }

    /// The last line of the output.
    fn summary(&self) -> String {
        match (&self.error, &self.result) {
            (Some(Problem { code, title, detail }), _) => {
                let why = detail.as_ref().unwrap_or(title);
                format!("{} at {:.0} %: {why} ({code})", self.status, self.percent())
            }
            (None, Some(result)) => format!("{}: {result}", self.status),
            (None, None) => self.status.clone(),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match watch().await {
        Ok(job) if job.status == "Completed" => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Submits a job and follows it until its end.
async fn watch() -> Result<Job, Failure> {
    let mut args = std::env::args().skip(1);
    let service = Url::parse(&args.next().unwrap_or("http://127.0.0.1:8080".to_owned()))?;
    let photos: u64 = args.next().map_or(Ok(50), |photos| photos.parse())?;
    let client = Client::builder().read_timeout(READ_TIMEOUT).build()?;
    let Links { events, cancel } = submit(&client, &service, photos).await?.links;
    let display = Display::new()?;
    let following = follow(&client, service.join(&events)?, &display);
    let job = or_cancel(following, &client, service.join(&cancel)?, &display).await?;
    display.end(&job);
    Ok(job)
}

/// Waits for the job's end. The first Ctrl-C requests cancellation, the second stops waiting.
async fn or_cancel(
    following: impl Future<Output = Result<Job, Failure>>,
    client: &Client,
    cancel: Url,
    display: &Display,
) -> Result<Job, Failure> {
    let mut following = pin!(following);
    // Ctrl-C is polled first, so that its handler is installed before any output.
    tokio::select! {
        biased;
        Ok(()) = ctrl_c() => {}
        job = &mut following => return job,
    }
    display.note("requesting cancellation");
    request_cancel(client, cancel).await?;
    tokio::select! {
        biased;
        Ok(()) = ctrl_c() => Err("stopped waiting; cancellation was requested".into()),
        job = following => job,
    }
}

async fn submit(client: &Client, service: &Url, photos: u64) -> Result<Job, Failure> {
    let body = serde_json::json!({ "photos": photos });
    let answer = client.post(service.join("/api/pack")?).json(&body).send().await?;
    match answer.status() {
        StatusCode::ACCEPTED => Ok(answer.json().await?),
        _ => Err(refusal(answer).await.into()),
    }
}

async fn request_cancel(client: &Client, url: Url) -> Result<(), Failure> {
    let answer = client.post(url).send().await?;
    // Conflict means that the job has ended. Its last event follows.
    match answer.status() {
        StatusCode::OK | StatusCode::ACCEPTED | StatusCode::CONFLICT => Ok(()),
        _ => Err(refusal(answer).await.into()),
    }
}

async fn refusal(answer: Response) -> String {
    format!("{} answers {}: {}", answer.url().clone(), answer.status(), answer.text().await.unwrap_or_default())
}

/// The position in the stream of events, kept over reconnects.
struct Position {
    last_id: Option<String>,
    retry: Duration,
    tries: u32,
}

/// Why a connection ended before the job.
enum Lost {
    /// A reconnect may help.
    Temporary(String),
    Permanent(String),
}

/// Shows events until the job has ended, and reconnects when a connection is lost.
async fn follow(client: &Client, events: Url, display: &Display) -> Result<Job, Failure> {
    let mut at = Position { last_id: None, retry: Duration::from_secs(1), tries: 0 };
    loop {
        match listen(client, events.clone(), &mut at, display).await {
            Ok(job) => return Ok(job),
            Err(Lost::Temporary(why)) if at.tries < MAX_TRIES => {
                display.note(&format!("connection lost, reconnecting: {why}"));
            }
            Err(Lost::Temporary(why) | Lost::Permanent(why)) => return Err(why.into()),
        }
        at.tries += 1;
        sleep(at.retry).await;
    }
}

async fn connect(client: &Client, events: Url, last_id: Option<&str>) -> Result<Response, Lost> {
    let mut request = client.get(events);
    if let Some(id) = last_id {
        request = request.header("last-event-id", id);
    }
    let answer = request.send().await.map_err(|error| Lost::Temporary(error.to_string()))?;
    match answer.status() {
        StatusCode::OK => Ok(answer),
        status if status.is_server_error() => Err(Lost::Temporary(refusal(answer).await)),
        _ => Err(Lost::Permanent(refusal(answer).await)),
    }
}

/// Shows the events of one connection.
async fn listen(client: &Client, events: Url, at: &mut Position, display: &Display) -> Result<Job, Lost> {
    let answer = connect(client, events, at.last_id.as_deref()).await?;
    let (mut body, mut parser) = (pin!(answer.bytes_stream()), Parser::default());
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| Lost::Temporary(error.to_string()))?;
        for event in parser.push(&chunk) {
            let job: Job = serde_json::from_str(&event.data).map_err(|error| Lost::Permanent(error.to_string()))?;
            at.last_id = event.id.or(at.last_id.take());
            at.tries = 0;
            display.show(&event.kind, &job);
            if job.has_ended() {
                return Ok(job);
            }
        }
        at.retry = parser.retry.unwrap_or(at.retry);
    }
    Err(Lost::Temporary("the stream ended before the job".to_owned()))
}

/// One server-sent event.
#[derive(Clone, Debug, Default, PartialEq)]
struct Event {
    kind: String,
    id: Option<String>,
    data: String,
}

/// Parses events from a stream of chunks with arbitrary boundaries, as in the HTML standard, "Server-sent events". Each
/// connection has a new parser, which discards an incomplete event of the previous connection.
#[derive(Default)]
struct Parser {
    /// The incomplete line. Bytes, because a chunk may end within a character.
    line: Vec<u8>,
    after_cr: bool,
    event: Event,
    /// Time before a reconnect, if the service sent one.
    retry: Option<Duration>,
}

impl Parser {
    /// The events that this chunk completes.
    fn push(&mut self, chunk: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for &byte in chunk {
            match byte {
                // Second half of a CR LF.
                b'\n' if self.after_cr => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                _ => self.line.push(byte),
            }
            self.after_cr = byte == b'\r';
        }
        events
    }

    /// Processes a complete line. An empty line completes an event.
    fn end_line(&mut self) -> Option<Event> {
        let line = mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        if line.is_empty() {
            return self.end_event();
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.kind = value.to_owned(),
            "id" => self.event.id = Some(value.to_owned()),
            "data" => self.event.data.extend([value, "\n"]),
            "retry" => self.retry = value.parse().map(Duration::from_millis).ok().or(self.retry),
            // A comment has an empty name. Unknown fields are ignored.
            _ => {}
        }
        None
    }

    /// Returns the event unless it has no data. The id stays until another one follows.
    fn end_event(&mut self) -> Option<Event> {
        let next = Event { id: self.event.id.clone(), ..Event::default() };
        let mut event = mem::replace(&mut self.event, next);
        event.data.pop().map(|_| event)
    }
}

/// A bar on a terminal, otherwise a line for each event.
enum Display {
    Bar(ProgressBar),
    Lines,
}

impl Display {
    fn new() -> Result<Self, Failure> {
        if !io::stdout().is_terminal() {
            return Ok(Self::Lines);
        }
        let style = ProgressStyle::with_template("{bar:40} {pos:>3} % {elapsed} {msg}")?;
        let bar = ProgressBar::with_draw_target(Some(100), ProgressDrawTarget::stdout());
        Ok(Self::Bar(bar.with_style(style)))
    }

    fn show(&self, kind: &str, job: &Job) {
        match self {
            Self::Bar(bar) => {
                bar.set_message(format!("{} {}", job.status, job.message()));
                bar.set_position(job.percent() as u64);
            }
            Self::Lines => println!("{kind:8} {:10} {:3.0} % {}", job.status, job.percent(), job.message()),
        }
    }

    fn note(&self, text: &str) {
        match self {
            Self::Bar(bar) => bar.println(text),
            Self::Lines => println!("{text}"),
        }
    }

    fn end(&self, job: &Job) {
        if let Self::Bar(bar) = self {
            bar.abandon();
        }
        println!("{}", job.summary());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, id: &str, data: &str) -> Event {
        Event { kind: kind.to_owned(), id: Some(id.to_owned()), data: data.to_owned() }
    }

    #[test]
    fn events_are_parsed_with_any_chunk_boundary() {
        let stream =
            "retry: 250\n\n: a comment\nevent: status\nid: 1\ndata: {\"é\":\ndata: 1}\n\n:\n\nid: 2\ndata:x\n\n";
        let expected = [event("status", "1", "{\"é\":\n1}"), event("", "2", "x")];
        for stream in [stream.to_owned(), stream.replace('\n', "\r\n"), stream.replace('\n', "\r")] {
            for cut in 0..=stream.len() {
                let (mut parser, (head, tail)) = (Parser::default(), stream.as_bytes().split_at(cut));
                let events = [parser.push(head), parser.push(tail)].concat();
                assert_eq!(events, expected, "{stream:?} cut at {cut}");
                assert_eq!(parser.retry, Some(Duration::from_millis(250)));
            }
        }
    }

    #[test]
    fn incomplete_event_is_not_returned() {
        let mut parser = Parser::default();
        assert_eq!(parser.push(b"id: 7\ndata: half\n"), []);
        assert_eq!(parser.push(b"\n"), [event("", "7", "half")]);
        assert_eq!(parser.push(b"event: status\n\n"), [], "no data");
        assert_eq!(parser.push(b"data\n\n"), [event("", "7", "")], "empty data with the last id");
    }
}
