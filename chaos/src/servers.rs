//! The store's servers, and a proxy between each process and the server.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::task::spawn_blocking;

use crate::{
    StoreKind,
    proxy::{LinkState, Proxy},
    server::Server,
};

/// Has neither servers nor proxies for SQLite.
pub(crate) struct StoreServers {
    servers: Mutex<Option<Servers>>,
    proxies: Vec<Proxy>,
    links: Mutex<Links>,
}

#[derive(Clone)]
struct Servers {
    primary: Arc<Server>,
    standby: Option<Arc<Server>>,
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
            _ => Some(blocking(move || Servers::start(store)).await?),
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
        match (self.servers().as_ref(), self.proxies.get(place)) {
            (Some(servers), Some(proxy)) => servers.primary.url_at(proxy.port()),
            _ => "sqlite:jobs.db".to_owned(),
        }
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

    /// Promotes the standby while the primary still accepts writes, as a mistaken failover does. Returns when all proxies
    /// lead to the new primary.
    pub(crate) async fn promote(&self) -> io::Result<()> {
        let Some(Servers { primary, standby: Some(standby) }) = self.servers().clone() else { return Ok(()) };
        let port = standby.port();
        *self.servers() = Some(Servers { primary: standby.clone(), standby: Some(primary) });
        blocking(move || standby.promote()).await?;
        self.proxies.iter().for_each(|proxy| proxy.redirect(port));
        Ok(())
    }

    /// Replaces the former primary by a standby of the new one. Writes that only the former primary has are lost.
    pub(crate) async fn follow(&self) -> io::Result<()> {
        let Some(Servers { primary, standby: Some(former) }) = self.servers().clone() else { return Ok(()) };
        let standby = blocking({
            let primary = primary.clone();
            move || Server::follow(former, &primary)
        });
        let standby = Some(standby.await?);
        *self.servers() = Some(Servers { primary, standby });
        Ok(())
    }

    /// Runs blocking code on the primary.
    pub(crate) async fn on_primary<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Server) -> T + Send + 'static,
    ) -> io::Result<T> {
        let servers = self.servers().clone();
        let primary = servers.ok_or_else(|| io::Error::other("this store has no server"))?.primary;
        blocking(move || act(&primary)).await
    }

    /// Runs a command on the primary. Fails unless the server carries it out.
    pub(crate) async fn command(&self, command: &'static str) -> io::Result<()> {
        self.on_primary(move |primary| primary.command(command)).await?
    }

    fn servers(&self) -> MutexGuard<'_, Option<Servers>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Links {
    fn effective(&self) -> impl Iterator<Item = LinkState> {
        self.each.iter().map(|one| if self.all == LinkState::Open { *one } else { self.all })
    }
}

impl Servers {
    fn start(store: StoreKind) -> Self {
        let primary = Arc::new(Server::start(store));
        let standby = store.has_standby().then(|| Arc::new(primary.standby()));
        Self { primary, standby }
    }
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
        servers.command("CONFIG SET maxmemory 1").await.unwrap();
        assert!(ask(&servers, 0, "SET a 2").await.starts_with("-OOM"));
        servers.command("CONFIG SET maxmemory 0").await.unwrap();
        for command in ["SCRIPT FLUSH", "CLIENT KILL TYPE normal", "CLIENT KILL TYPE pubsub"] {
            servers.command(command).await.unwrap();
        }
        assert!(servers.command("NO SUCH").await.is_err());
        servers.on_primary(Server::kill).await.unwrap();
        assert_eq!(ask(&servers, 0, "GET a").await, "");
        servers.on_primary(Server::restart).await.unwrap();
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

    async fn sql(servers: &StoreServers, sql: &'static str) -> String {
        let url = servers.url(0);
        spawn_blocking(move || async_endpoints_testkit::server::psql(&url, sql)).await.unwrap()
    }

    #[tokio::test]
    async fn postgresql_is_read_only_for_a_time_and_keeps_acknowledged_writes_when_killed() {
        let servers = StoreServers::start(StoreKind::Postgres, 1).await.unwrap();
        assert_eq!(sql(&servers, "CREATE TABLE a (n int); INSERT INTO a VALUES (1)").await, "CREATE TABLE\nINSERT 0 1");
        servers.on_primary(|primary| primary.refuse_writes(true)).await.unwrap().unwrap();
        assert!(sql(&servers, "INSERT INTO a VALUES (2)").await.contains("read-only"));
        servers.on_primary(|primary| primary.refuse_writes(false)).await.unwrap().unwrap();
        assert!(servers.command("SELECT no_such_function()").await.is_err());
        servers.on_primary(Server::kill).await.unwrap();
        servers.on_primary(Server::restart).await.unwrap();
        assert_eq!(sql(&servers, "SELECT n FROM a").await, "1");
    }

    #[tokio::test]
    async fn promotion_of_postgresql_loses_no_acknowledged_write() {
        let servers = StoreServers::start(StoreKind::PostgresFailover, 1).await.unwrap();
        assert_eq!(sql(&servers, "CREATE TABLE a (n int)").await, "CREATE TABLE");
        for round in ["1", "2"] {
            assert_eq!(sql(&servers, "INSERT INTO a VALUES (1)").await, "INSERT 0 1");
            servers.promote().await.unwrap();
            assert_eq!(sql(&servers, "SELECT sum(n) FROM a").await, round);
            servers.follow().await.unwrap();
        }
    }
}
