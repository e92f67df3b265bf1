//! Receives lines by LISTEN, and notices when none can arrive: a pooler may give the session that listens to others.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{DEADLINE, notify};
use crate::{
    backoff::Backoff,
    server::{Server, Session},
};

/// A line by which a listener finds out whether it hears. It is published over another connection.
const PROBE: &str = "?";
/// The unit of silence: a second without a notification.
const SECOND: Duration = Duration::from_secs(1);
/// Seconds of silence before a listener probes itself. Applies once it has heard a line.
const PROBE_AFTER: u32 = 5;
/// Seconds of silence before it connects again: its connection may have died without notice. One that has never heard a line waits for
/// longer, since a pooler may be the reason.
const DEAD_AFTER: u32 = 8;
const DEAF_AFTER: u32 = 60;
/// A listener that has heard nothing yet says each second that lines may have been missed, and publishes a probe as often as this.
const PROBE_EVERY: u32 = 10;

/// What a listener receives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Listened {
    /// A line that was published.
    Line(String),
    /// Lines may have been missed: the connection is new, or lines do not arrive.
    Missed,
}

pub(crate) type Notifications = mpsc::UnboundedReceiver<Listened>;

pub(super) struct Listener {
    pub(super) server: Arc<Server>,
    pub(super) channel: String,
    pub(super) notify: mpsc::Sender<notify::Message>,
    pub(super) to: mpsc::UnboundedSender<Listened>,
}

impl Listener {
    /// Connects, listens, and reconnects, until the receiver is dropped.
    pub(super) async fn run(self) {
        let listening = async {
            let mut backoff = Backoff::new();
            loop {
                let served = match self.server.connect().await {
                    Ok(session) => self.listen(session).await,
                    Err(_) => Duration::ZERO,
                };
                backoff.wait(served).await;
            }
        };
        tokio::select! {
            () = self.to.closed() => {}
            () = listening => {}
        }
    }

    /// Forwards lines until the connection breaks or is silent. Returns how long it lasted.
    async fn listen(&self, mut session: Session) -> Duration {
        let began = Instant::now();
        let sql = format!("LISTEN \"{}\"", self.channel);
        if !matches!(timeout(DEADLINE, session.client.batch_execute(&sql)).await, Ok(Ok(()))) {
            return Duration::ZERO;
        }
        self.send(Listened::Missed);
        self.probe();
        let (mut has_heard, mut silence) = (false, 0);
        loop {
            tokio::select! {
                _ = session.driver.ended() => break,
                Some(notification) = session.notifications.recv() => {
                    if !has_heard && silence > 0 {
                        self.send(Listened::Missed);
                    }
                    (has_heard, silence) = (true, 0);
                    let lines = notification.payload().lines().filter(|line| *line != PROBE);
                    lines.for_each(|line| self.send(Listened::Line(line.to_owned())));
                }
                () = sleep(SECOND) => {
                    silence += 1;
                    match silence {
                        PROBE_AFTER if has_heard => self.probe(),
                        DEAD_AFTER if has_heard => break,
                        _ if has_heard => {}
                        DEAF_AFTER => break,
                        _ => self.say_deaf(silence),
                    }
                }
            }
        }
        self.send(Listened::Missed);
        began.elapsed()
    }

    /// Says that lines may have been missed, from the second second on.
    fn say_deaf(&self, silence: u32) {
        if silence > 1 {
            self.send(Listened::Missed);
        }
        if silence.is_multiple_of(PROBE_EVERY) {
            self.probe();
        }
    }

    fn send(&self, listened: Listened) {
        // The receiver is gone when the store is.
        let _ = self.to.send(listened);
    }

    fn probe(&self) {
        let _ = self.notify.try_send((self.channel.as_str().into(), PROBE.to_owned()));
    }
}
