//! Submits jobs as fast as a server answers, round by round, and computes rates and times.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    http::{Client, post},
    orders::{ORDER, ORDERS},
    process::Server,
    report::{median, per_second, quantile},
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
}

struct Round {
    per_second: f64,
    p50_micros: f64,
    p99_micros: f64,
    /// Processor time of the server for each request, including work after the answer.
    cpu_micros: f64,
}

impl Load {
    pub(crate) async fn on(server: Server) -> io::Result<Self> {
        let clients = connect(&server).await?;
        Ok(Self { server, clients, request: post(ORDERS, ORDER).into(), rounds: Vec::new() })
    }

    /// Runs an uncounted round, which fills memory and caches.
    pub(crate) async fn warm_up(&mut self) -> io::Result<()> {
        self.round().await?;
        self.rounds.clear();
        Ok(())
    }

    /// Continues with a new server, so that jobs of earlier rounds do not accumulate. Its first round is not counted.
    pub(crate) async fn replace_server(&mut self, server: Server) -> io::Result<()> {
        self.clients = connect(&server).await?;
        self.server = server;
        self.round().await?;
        self.rounds.pop();
        Ok(())
    }

    /// Runs one round, then waits until the server is idle.
    pub(crate) async fn round(&mut self) -> io::Result<()> {
        let (began, cpu) = (Instant::now(), self.server.cpu()?);
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
        let per_second = per_second(micros.len() as u64, began.elapsed());
        self.server.idle().await?;
        self.rounds.push(Round {
            per_second,
            p50_micros: quantile(&micros, 0.5),
            p99_micros: quantile(&micros, 0.99),
            cpu_micros: (self.server.cpu()? - cpu).as_secs_f64() * 1e6 / micros.len() as f64,
        });
        Ok(())
    }

    /// Requests per second: the median of the rounds.
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

    /// Processor time of the server in microseconds for each request: the median of the rounds.
    pub(crate) fn cpu_micros(&self) -> f64 {
        self.median_of(|round| round.cpu_micros)
    }

    fn median_of(&self, value: impl Fn(&Round) -> f64) -> f64 {
        median(&self.rounds.iter().map(value).collect::<Vec<_>>())
    }
}

async fn connect(server: &Server) -> io::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        clients.push(Client::connect(server.address).await?);
    }
    Ok(clients)
}

/// Sends one request after the other. Returns the microseconds that each took.
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
