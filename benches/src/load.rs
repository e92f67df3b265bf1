//! Submissions as fast as one server answers them, round by round, and what came of them.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    http::{Client, post},
    process::Server,
    report::{median, per_second, quantile},
    served::{ORDER, ORDERS},
};

pub(crate) const CONNECTIONS: usize = 64;
pub(crate) const ROUNDS: usize = 7;
pub(crate) const ROUND: Duration = Duration::from_millis(1500);

/// A server under load, with its clients.
pub(crate) struct Load {
    pub(crate) server: Server,
    clients: Vec<Client>,
    request: Arc<[u8]>,
    rounds: Vec<Round>,
    requests: u64,
    /// The server's processor time when the first counted round began.
    cpu_before: Duration,
}

struct Round {
    per_second: f64,
    p50_micros: f64,
    p99_micros: f64,
}

impl Load {
    pub(crate) async fn on(server: Server) -> io::Result<Self> {
        let mut clients = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            clients.push(Client::connect(server.address).await?);
        }
        let request = post(ORDERS, ORDER).into();
        Ok(Self { server, clients, request, rounds: Vec::new(), requests: 0, cpu_before: Duration::ZERO })
    }

    /// Not counted: processes get their memory, and the processor its caches.
    pub(crate) async fn warm_up(&mut self) -> io::Result<()> {
        self.round().await?;
        self.rounds.clear();
        self.requests = 0;
        self.cpu_before = self.server.cpu()?;
        Ok(())
    }

    /// One round, and the time that the server needs after it for jobs that still wait.
    pub(crate) async fn round(&mut self) -> io::Result<()> {
        let began = Instant::now();
        let mut clients = JoinSet::new();
        for client in self.clients.drain(..) {
            clients.spawn(submit(client, self.request.clone(), began + ROUND));
        }
        let mut micros = Vec::new();
        while let Some(done) = clients.join_next().await {
            let (client, taken) = done??;
            self.clients.push(client);
            micros.extend(taken);
        }
        self.rounds.push(Round {
            per_second: per_second(micros.len() as u64, began.elapsed()),
            p50_micros: quantile(&micros, 0.5),
            p99_micros: quantile(&micros, 0.99),
        });
        self.requests += micros.len() as u64;
        self.server.quiet().await
    }

    /// Requests per second, in the median of the rounds.
    pub(crate) fn rate(&self) -> f64 {
        self.median_of(|round| round.per_second)
    }

    pub(crate) fn p99_millis(&self) -> f64 {
        self.median_of(|round| round.p99_micros) / 1e3
    }

    pub(crate) fn shown(&self) -> String {
        let p50 = self.median_of(|round| round.p50_micros) / 1e3;
        format!("{:>6.0} requests/s   p50 {p50:>5.2} ms   p99 {:>5.2} ms", self.rate(), self.p99_millis())
    }

    /// Microseconds of processor time, of the server alone and with all that a request led to.
    pub(crate) fn cpu_per_request(&self) -> io::Result<f64> {
        Ok((self.server.cpu()? - self.cpu_before).as_secs_f64() * 1e6 / self.requests as f64)
    }

    fn median_of(&self, value: impl Fn(&Round) -> f64) -> f64 {
        median(&self.rounds.iter().map(value).collect::<Vec<_>>())
    }
}

/// One request after the other; microseconds that each took.
async fn submit(mut client: Client, request: Arc<[u8]>, until: Instant) -> io::Result<(Client, Vec<f64>)> {
    let mut micros = Vec::new();
    let mut sent = Instant::now();
    while sent < until {
        client.ask(&request).await?.expect("202")?;
        let answered = Instant::now();
        micros.push((answered - sent).as_secs_f64() * 1e6);
        sent = answered;
    }
    Ok((client, micros))
}
