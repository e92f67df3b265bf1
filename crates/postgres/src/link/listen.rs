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
/// How often a listener that has heard nothing yet says that lines may have been missed, from the second time on.
const MISSED_EVERY: Duration = Duration::from_secs(1);
/// After how many of these times it tries again.
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

    /// Forwards lines until the connection breaks. Returns how long it lasted.
    async fn listen(&self, mut session: Session) -> Duration {
        let began = Instant::now();
        let sql = format!("LISTEN \"{}\"", self.channel);
        if !matches!(timeout(DEADLINE, session.client.batch_execute(&sql)).await, Ok(Ok(()))) {
            return Duration::ZERO;
        }
        self.send(Listened::Missed);
        self.probe();
        // Seconds without a notification since the connection was made. None once it hears.
        let mut silent: Option<u32> = Some(0);
        loop {
            tokio::select! {
                _ = session.driver.ended() => break,
                Some(notification) = session.notifications.recv() => {
                    if silent.take().is_some_and(|seconds| seconds > 0) {
                        self.send(Listened::Missed);
                    }
                    let lines = notification.payload().lines().filter(|line| *line != PROBE);
                    lines.for_each(|line| self.send(Listened::Line(line.to_owned())));
                }
                () = sleep(MISSED_EVERY), if silent.is_some() => {
                    let seconds = silent.map_or(1, |seconds| seconds + 1);
                    silent = Some(seconds);
                    if seconds > 1 {
                        self.send(Listened::Missed);
                    }
                    if seconds.is_multiple_of(PROBE_EVERY) {
                        self.probe();
                    }
                }
            }
        }
        self.send(Listened::Missed);
        began.elapsed()
    }

    fn send(&self, listened: Listened) {
        // The receiver is gone when the store is.
        let _ = self.to.send(listened);
    }

    fn probe(&self) {
        let _ = self.notify.try_send((self.channel.as_str().into(), PROBE.to_owned()));
    }
}
