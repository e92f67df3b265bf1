//! The store's servers, and a proxy between each process and the server.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_endpoints_testkit::server::RedisServer;
use tokio::task::spawn_blocking;

use crate::{
    StoreKind,
    proxy::{LinkState, Proxy},
};

/// Has neither servers nor proxies for SQLite.
pub(crate) struct StoreServers {
    servers: Mutex<Option<RedisServers>>,
    proxies: Vec<Proxy>,
    links: Mutex<Links>,
}

#[derive(Clone)]
struct RedisServers {
    primary: Arc<RedisServer>,
    replica: Option<Arc<RedisServer>>,
}

/// The wanted state of each proxy, and a state that overrides all of them while it is not `Open`.
struct Links {
    each: Vec<LinkState>,
    all: LinkState,
}

impl StoreServers {
    pub(crate) async fn start(store: StoreKind, places: usize) -> io::Result<Self> {
        let servers = match store {
            StoreKind::Sqlite => None,
            StoreKind::Redis => {
                // A killed server keeps its acknowledged writes only if it syncs each of them.
                let start = || RedisServer::with(&[("appendfsync", "always")]);
                Some(blocking(move || RedisServers { primary: Arc::new(start()), replica: None }).await?)
            }
            StoreKind::RedisFailover => Some(blocking(with_replica).await?),
        };
        let mut proxies = Vec::new();
        if let Some(servers) = &servers {
            for _ in 0..places {
                proxies.push(Proxy::start(servers.primary.port()).await?);
            }
        }
        let links = Links { each: vec![LinkState::Open; proxies.len()], all: LinkState::Open };
        Ok(Self { servers: Mutex::new(servers), proxies, links: Mutex::new(links) })
    }

    /// `AE_STORE` for the process at `place`.
    pub(crate) fn url(&self, place: usize) -> String {
        self.proxies
            .get(place)
            .map_or("sqlite:jobs.db".to_owned(), |proxy| format!("redis://127.0.0.1:{}", proxy.port()))
    }

    /// Sets the link of one process.
    pub(crate) fn set_one(&self, place: usize, state: LinkState) {
        self.set(|links| links.each[place] = state);
    }

    /// Sets the links of all processes. `Open` restores the links that were set for one process.
    pub(crate) fn set_all(&self, state: LinkState) {
        self.set(|links| links.all = state);
    }

    fn set(&self, change: impl FnOnce(&mut Links)) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let before: Vec<LinkState> = links.effective().collect();
        change(&mut links);
        for ((proxy, before), now) in self.proxies.iter().zip(before).zip(links.effective()) {
            if before != now {
                proxy.set(now);
            }
        }
    }

    pub(crate) fn lose_answers(&self) {
        self.proxies.iter().for_each(Proxy::lose_answers);
    }

    /// Runs a command with `redis-cli`. Fails unless the answer is `OK` or a number.
    pub(crate) async fn command(&self, arguments: &'static [&'static str]) -> io::Result<()> {
        let answer = self.on_primary(move |primary| primary.cli(arguments)).await?;
        let is_number = answer.bytes().all(|byte| byte.is_ascii_digit());
        if answer == "OK" || is_number { Ok(()) } else { Err(io::Error::other(format!("{arguments:?}: {answer}"))) }
    }

    /// Promotes the replica while the primary still accepts writes, as a mistaken failover does. Returns when all proxies
    /// lead to the new primary.
    pub(crate) async fn promote(&self) -> io::Result<()> {
        let Some(RedisServers { primary, replica: Some(replica) }) = self.servers().clone() else { return Ok(()) };
        let port = replica.port();
        *self.servers() = Some(RedisServers { primary: replica.clone(), replica: Some(primary) });
        blocking(move || replica.promote()).await?;
        self.proxies.iter().for_each(|proxy| proxy.redirect(port));
        Ok(())
    }

    /// Makes the former primary a replica of the new one. Writes that only the former primary has are lost.
    pub(crate) async fn follow(&self) -> io::Result<()> {
        let Some(RedisServers { primary, replica: Some(replica) }) = self.servers().clone() else { return Ok(()) };
        blocking(move || replica.follow(&primary)).await
    }

    /// Runs blocking code on the primary.
    pub(crate) async fn on_primary<T: Send + 'static>(
        &self,
        act: impl FnOnce(&RedisServer) -> T + Send + 'static,
    ) -> io::Result<T> {
        let servers = self.servers().clone();
        let primary = servers.ok_or_else(|| io::Error::other("this store has no server"))?.primary;
        blocking(move || act(&primary)).await
    }

    fn servers(&self) -> MutexGuard<'_, Option<RedisServers>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Links {
    fn effective(&self) -> impl Iterator<Item = LinkState> {
        self.each.iter().map(|one| if self.all == LinkState::Open { *one } else { self.all })
    }
}

fn with_replica() -> RedisServers {
    let primary = RedisServer::start();
    let replica = RedisServer::replica_of(&primary);
    RedisServers { primary: Arc::new(primary), replica: Some(Arc::new(replica)) }
}

/// Runs blocking code on another thread, so that the proxies go on.
async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    spawn_blocking(act).await.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    /// Sends a command through the proxy of a process. Empty if the proxy is closed.
    async fn ask(servers: &StoreServers, place: usize, command: &str) -> String {
        ask_all(servers, place, &[command]).await.into_iter().next().unwrap_or_default()
    }

    /// Sends several commands over one connection.
    async fn ask_all(servers: &StoreServers, place: usize, commands: &[&str]) -> Vec<String> {
        let port = servers.url(place).rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        drop(stream.write_all(format!("{}\r\nQUIT\r\n", commands.join("\r\n")).as_bytes()).await);
        let mut answer = String::new();
        drop(stream.read_to_string(&mut answer).await);
        answer.lines().take(commands.len()).map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn one_link_is_cut() {
        let servers = StoreServers::start(StoreKind::Redis, 2).await.unwrap();
        servers.set_one(0, LinkState::Cut);
        assert_eq!(
            (ask(&servers, 0, "PING").await, ask(&servers, 1, "PING").await),
            (String::new(), "+PONG".to_owned())
        );
        servers.set_all(LinkState::Cut);
        assert_eq!(ask(&servers, 1, "PING").await, "");
        servers.set_all(LinkState::Open);
        assert_eq!(
            (ask(&servers, 0, "PING").await, ask(&servers, 1, "PING").await),
            (String::new(), "+PONG".to_owned())
        );
        servers.set_one(0, LinkState::Open);
        assert_eq!(ask(&servers, 0, "PING").await, "+PONG");
    }

    #[tokio::test]
    async fn server_is_filled_killed_and_restarted() {
        let servers = StoreServers::start(StoreKind::Redis, 1).await.unwrap();
        assert_eq!(ask(&servers, 0, "SET a 1").await, "+OK");
        servers.command(&["CONFIG", "SET", "maxmemory", "1"]).await.unwrap();
        assert!(ask(&servers, 0, "SET a 2").await.starts_with("-OOM"));
        servers.command(&["CONFIG", "SET", "maxmemory", "0"]).await.unwrap();
        for arguments in
            [&["SCRIPT", "FLUSH"][..], &["CLIENT", "KILL", "TYPE", "normal"], &["CLIENT", "KILL", "TYPE", "pubsub"]]
        {
            servers.command(arguments).await.unwrap();
        }
        assert!(servers.command(&["NO", "SUCH"]).await.is_err());
        servers.on_primary(RedisServer::kill).await.unwrap();
        assert_eq!(ask(&servers, 0, "GET a").await, "");
        servers.on_primary(RedisServer::restart).await.unwrap();
        assert_eq!(ask(&servers, 0, "GET a").await, "$1");
    }

    #[tokio::test]
    async fn promotion_redirects_all_proxies() {
        let servers = StoreServers::start(StoreKind::RedisFailover, 1).await.unwrap();
        for round in 1..=3 {
            // WAIT counts replicas for the writes of its own connection.
            let answers = ask_all(&servers, 0, &["INCR a", "WAIT 1 20000"]).await;
            assert_eq!(answers, [format!(":{round}"), ":1".to_owned()]);
            servers.promote().await.unwrap();
            servers.follow().await.unwrap();
        }
        assert_eq!(ask(&servers, 0, "INCR a").await, ":4");
    }
}
