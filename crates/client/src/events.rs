//! Parser of server-sent events, as in the HTML standard.

use std::{mem, time::Duration};

/// One server-sent event. The client needs no other fields: the data has the version and the status of the job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) data: String,
}

/// Parses events from a stream of chunks with arbitrary boundaries. Each connection has a new parser, which discards an
/// incomplete event of the previous one.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// The incomplete line. Bytes, because a chunk may end within a character.
    line: Vec<u8>,
    after_cr: bool,
    event: Event,
    /// Time before a reconnect, if the service sent one.
    pub(crate) retry: Option<Duration>,
}

impl Parser {
    /// The events that this chunk completes.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Vec<Event> {
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
            let mut event = mem::take(&mut self.event);
            // Without data there is no event. The last line feed does not belong to the data.
            return event.data.pop().map(|_| event);
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => self.event.data.extend([value, "\n"]),
            "retry" => self.retry = value.parse().map(Duration::from_millis).ok().or(self.retry),
            // A comment has an empty name.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(data: &str) -> Event {
        Event { data: data.to_owned() }
    }

    #[test]
    fn events_are_parsed_with_any_chunk_boundary() {
        let stream =
            "retry: 250\n\n: a comment\nevent: status\nid: 1\ndata: {\"é\":\ndata: 1}\n\n:\n\nid: 2\ndata:x\n\n";
        let expected = [event("{\"é\":\n1}"), event("x")];
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
        assert_eq!(parser.push(b"\n"), [event("half")]);
        assert_eq!(parser.push(b"event: status\n\n"), [], "no data");
        assert_eq!(parser.push(b"data\n\n"), [event("")], "empty data");
    }
}
