//! Hints: to the streams of this process at once, and to other processes by NOTIFY, coalesced and outside of transactions that
//! work. A line is `w TAG TYPE` or `j TAG IDS`: the tag is that of the process, which skips its own lines.

use std::sync::Arc;

use async_endpoints_core::{JobId, JobName, store::Hint};
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::{
    link::{Link, Listened, Notifications},
    schema::Schema,
};

/// Hints that a stream buffers before it skips some and returns [`Hint::Lagged`].
const HINTS_KEPT: usize = 1024;

/// Hexadecimal digits of an id.
const DIGITS: usize = 32;

/// Ids in one line, which one notification has to hold.
const IDS: usize = 128;

/// Publishes the hints of this process's calls.
pub(crate) struct Publisher {
    streams: broadcast::WeakSender<Hint>,
    link: Link,
    channel: String,
    tag: String,
}

impl Publisher {
    /// Starts to forward the hints of other processes. Streams end with the link.
    pub(crate) fn new(link: &Link, schema: &Schema) -> Self {
        let channel = format!("{}_hints", schema.as_str());
        let tag = format!("{:08x}", fastrand::u32(..));
        let streams = broadcast::channel(HINTS_KEPT).0;
        let publisher = Self { streams: streams.downgrade(), link: link.clone(), channel, tag: tag.clone() };
        link.spawn(forward(link.listen(&publisher.channel), streams, tag));
        publisher
    }

    /// A receiver of all hints from now on. None if the link has ended.
    pub(crate) fn subscribe(&self) -> Option<broadcast::Receiver<Hint>> {
        self.streams.upgrade().map(|streams| streams.subscribe())
    }

    /// Hints that jobs of these types became runnable, and that these jobs changed.
    pub(crate) fn publish<'n>(&self, work: impl IntoIterator<Item = &'n JobName>, changed: &[JobId]) {
        let Some(streams) = self.streams.upgrade() else { return };
        for name in work {
            // An error says that no stream is open.
            drop(streams.send(Hint::Work(name.clone())));
            self.link.notify(&self.channel, format!("w {} {name}", self.tag));
        }
        if !changed.is_empty() {
            drop(streams.send(Hint::Jobs(changed.into())));
            changed.chunks(IDS).for_each(|ids| self.link.notify(&self.channel, jobs_line(&self.tag, ids)));
        }
    }
}

fn jobs_line(tag: &str, ids: &[JobId]) -> String {
    use std::fmt::Write as _;
    ids.iter().fold(format!("j {tag} "), |mut line, id| {
        let _ = write!(line, "{}", id.0.simple());
        line
    })
}

/// Forwards the lines of other processes to the streams.
async fn forward(mut lines: Notifications, streams: broadcast::Sender<Hint>, own: String) {
    while let Some(listened) = lines.recv().await {
        let hint = match &listened {
            Listened::Line(line) => parse(line, &own),
            Listened::Missed => Some(Hint::Lagged),
        };
        drop(hint.map(|hint| streams.send(hint)));
    }
}

/// The hint of a line. None for own lines, and for those that a later version may publish.
fn parse(line: &str, own: &str) -> Option<Hint> {
    let mut parts = line.splitn(3, ' ');
    let (kind, tag, rest) = (parts.next()?, parts.next()?, parts.next()?);
    match kind {
        _ if tag == own => None,
        "w" => JobName::new(rest).ok().map(Hint::Work),
        "j" => {
            let id = |at: usize| Uuid::try_parse(rest.get(at * DIGITS..(at + 1) * DIGITS)?).ok().map(JobId);
            let ids: Arc<[JobId]> = (0..rest.len() / DIGITS).filter_map(id).collect();
            Some(Hint::Jobs(ids))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_others_are_hints() {
        let ids = [JobId::random(), JobId::random()];
        assert_eq!(parse(&jobs_line("a", &ids), "b"), Some(Hint::Jobs(ids.into())));
        assert_eq!(parse(&jobs_line("a", &ids), "a"), None, "an own line");
        assert_eq!(parse("w a alpha", "b"), Some(Hint::Work(JobName::new("alpha").expect("a name"))));
        for line in ["w a not a name", "x a of a later version", "w", "", "?"] {
            assert_eq!(parse(line, "b"), None, "{line:?}");
        }
    }
}
