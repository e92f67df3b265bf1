//! Reads a stream of server-sent events.

use reqwest::{Response, StatusCode};
use serde_json::Value;

use super::{Demo, in_time};

pub(crate) struct Events {
    answer: Response,
    read: String,
}

/// An event with the job document.
pub(crate) struct Event {
    pub(crate) id: u64,
    pub(crate) job: Value,
}

impl Events {
    /// Follows a job, starting after the version `known`.
    pub(crate) async fn of(demo: &Demo, job: &str, known: Option<u64>) -> Self {
        let request = demo.getting(&format!("{job}/events"));
        let request = known.into_iter().fold(request, |request, id| request.header("last-event-id", id));
        let answer = in_time("a stream", request.send()).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        Self { answer, read: String::new() }
    }

    /// The next event. `None` when the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.read.split_once("\n\n") {
                let event = event(block);
                self.read = rest.to_owned();
                if event.is_some() {
                    return event;
                }
            }
            let chunk = in_time("an event", self.answer.chunk()).await.ok().flatten()?;
            self.read.push_str(std::str::from_utf8(&chunk).expect("chunks are whole events"));
        }
    }
}

/// Parses an event. `None` for a comment.
fn event(block: &str) -> Option<Event> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let job = serde_json::from_str(field("data")?).expect("a job");
    Some(Event { id: field("id")?.parse().expect("a version"), job })
}
