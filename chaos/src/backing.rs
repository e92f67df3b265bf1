//! What the processes keep their jobs in, and each one's way to it. Owns the servers and what is done to them.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_endpoints_testkit::server::RedisServer;
use tokio::task::spawn_blocking;

use crate::{
    Store,
    proxy::{Proxy, Way},
};

/// None of a server's, for a store that is a file.
pub(crate) struct Backing {
    servers: Mutex<Option<Servers>>,
    ways: Vec<Proxy>,
    said: Mutex<Ways>,
}

#[derive(Clone)]
struct Servers {
    primary: Arc<RedisServer>,
    replica: Option<Arc<RedisServer>>,
}

/// What was said about each way, and about all of them.
struct Ways {
    each: Vec<Way>,
    all: Way,
}

impl Backing {
    pub(crate) async fn start(store: Store, places: usize) -> io::Result<Self> {
        let servers = match store {
            Store::Sqlite => None,
            Store::Redis => {
                // A server that is killed loses nothing it answered for only if it writes that down before.
                let start = || RedisServer::with(&[("appendfsync", "always")]);
                Some(blocking(move || Servers { primary: Arc::new(start()), replica: None }).await?)
            }
            Store::RedisFailover => Some(blocking(with_replica).await?),
        };
        let mut ways = Vec::new();
        if let Some(servers) = &servers {
            for _ in 0..places {
                ways.push(Proxy::start(servers.primary.port()).await?);
            }
        }
        let said = Ways { each: vec![Way::Open; ways.len()], all: Way::Open };
        Ok(Self { servers: Mutex::new(servers), ways, said: Mutex::new(said) })
    }

    /// `AE_STORE` of the process in that place.
    pub(crate) fn url(&self, place: usize) -> String {
        self.ways.get(place).map_or("sqlite:jobs.db".to_owned(), |way| format!("redis://127.0.0.1:{}", way.port()))
    }

    /// The way of one.
    pub(crate) fn set_one(&self, place: usize, way: Way) {
        self.set(|said| said.each[place] = way);
    }

    /// Everybody's way; one that was set alone is like that again when all are open.
    pub(crate) fn set_all(&self, way: Way) {
        self.set(|said| said.all = way);
    }

    fn set(&self, change: impl FnOnce(&mut Ways)) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let before: Vec<Way> = said.ways().collect();
        change(&mut said);
        for ((way, before), now) in self.ways.iter().zip(before).zip(said.ways()) {
            if before != now {
                way.set(now);
            }
        }
    }

    pub(crate) fn lose_answers(&self) {
        self.ways.iter().for_each(Proxy::lose_answers);
    }

    pub(crate) async fn kill(&self) -> io::Result<()> {
        self.on_primary(|primary| primary.kill()).await
    }

    pub(crate) async fn restart(&self) -> io::Result<()> {
        self.on_primary(|primary| primary.restart()).await
    }

    pub(crate) async fn freeze(&self) -> io::Result<()> {
        self.on_primary(|primary| primary.pause()).await
    }

    pub(crate) async fn thaw(&self) -> io::Result<()> {
        self.on_primary(|primary| primary.resume()).await
    }

    /// What `redis-cli` is told, and has to be answered with.
    pub(crate) async fn tell(&self, words: &'static [&'static str]) -> io::Result<()> {
        let answer = self.on_primary(move |primary| primary.cli(words)).await?;
        let is_number = answer.bytes().all(|byte| byte.is_ascii_digit());
        if answer == "OK" || is_number { Ok(()) } else { Err(io::Error::other(format!("{words:?}: {answer}"))) }
    }

    /// A replica becomes the primary while the other still accepts, as it happens when a primary is thought dead. Returns
    /// when everybody has been turned to the new one.
    pub(crate) async fn promote(&self) -> io::Result<()> {
        let Some(Servers { primary, replica: Some(replica) }) = self.servers().clone() else { return Ok(()) };
        let port = replica.port();
        *self.servers() = Some(Servers { primary: replica.clone(), replica: Some(primary) });
        blocking(move || replica.promote()).await?;
        self.ways.iter().for_each(|way| way.turn_to(port));
        Ok(())
    }

    /// The former primary gives up what only it has, and follows the new one.
    pub(crate) async fn follow(&self) -> io::Result<()> {
        let Some(Servers { primary, replica: Some(replica) }) = self.servers().clone() else { return Ok(()) };
        blocking(move || replica.follow(&primary)).await
    }

    async fn on_primary<T: Send + 'static>(
        &self,
        act: impl FnOnce(&RedisServer) -> T + Send + 'static,
    ) -> io::Result<T> {
        let servers = self.servers().clone();
        let primary = servers.ok_or_else(|| io::Error::other("this store has no server"))?.primary;
        blocking(move || act(&primary)).await
    }

    fn servers(&self) -> MutexGuard<'_, Option<Servers>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ways {
    fn ways(&self) -> impl Iterator<Item = Way> {
        self.each.iter().map(|one| if self.all == Way::Open { *one } else { self.all })
    }
}

fn with_replica() -> Servers {
    let primary = RedisServer::start();
    let replica = RedisServer::replica_of(&primary);
    Servers { primary: Arc::new(primary), replica: Some(Arc::new(replica)) }
}

/// Apart from the proxies, which must go on.
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

    /// Through one's own way; empty if that is closed.
    async fn ask(backing: &Backing, place: usize, command: &str) -> String {
        ask_all(backing, place, &[command]).await.into_iter().next().unwrap_or_default()
    }

    /// Several commands over one connection.
    async fn ask_all(backing: &Backing, place: usize, commands: &[&str]) -> Vec<String> {
        let port = backing.url(place).rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        drop(stream.write_all(format!("{}\r\nQUIT\r\n", commands.join("\r\n")).as_bytes()).await);
        let mut answer = String::new();
        drop(stream.read_to_string(&mut answer).await);
        answer.lines().take(commands.len()).map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn one_is_cut_off_while_others_go_on() {
        let backing = Backing::start(Store::Redis, 2).await.unwrap();
        backing.set_one(0, Way::Cut);
        assert_eq!(
            (ask(&backing, 0, "PING").await, ask(&backing, 1, "PING").await),
            (String::new(), "+PONG".to_owned())
        );
        backing.set_all(Way::Cut);
        assert_eq!(ask(&backing, 1, "PING").await, "");
        backing.set_all(Way::Open);
        assert_eq!(
            (ask(&backing, 0, "PING").await, ask(&backing, 1, "PING").await),
            (String::new(), "+PONG".to_owned())
        );
        backing.set_one(0, Way::Open);
        assert_eq!(ask(&backing, 0, "PING").await, "+PONG");
    }

    #[tokio::test]
    async fn a_server_is_full_killed_and_back() {
        let backing = Backing::start(Store::Redis, 1).await.unwrap();
        assert_eq!(ask(&backing, 0, "SET a 1").await, "+OK");
        backing.tell(&["CONFIG", "SET", "maxmemory", "1"]).await.unwrap();
        assert!(ask(&backing, 0, "SET a 2").await.starts_with("-OOM"));
        backing.tell(&["CONFIG", "SET", "maxmemory", "0"]).await.unwrap();
        for words in
            [&["SCRIPT", "FLUSH"][..], &["CLIENT", "KILL", "TYPE", "normal"], &["CLIENT", "KILL", "TYPE", "pubsub"]]
        {
            backing.tell(words).await.unwrap();
        }
        assert!(backing.tell(&["NO", "SUCH"]).await.is_err());
        backing.kill().await.unwrap();
        assert_eq!(ask(&backing, 0, "GET a").await, "");
        backing.restart().await.unwrap();
        assert_eq!(ask(&backing, 0, "GET a").await, "$1");
    }

    #[tokio::test]
    async fn a_promotion_turns_everybody() {
        let backing = Backing::start(Store::RedisFailover, 1).await.unwrap();
        for round in 1..=3 {
            // WAIT is for what its own connection wrote.
            let answers = ask_all(&backing, 0, &["INCR a", "WAIT 1 20000"]).await;
            assert_eq!(answers, [format!(":{round}"), ":1".to_owned()]);
            backing.promote().await.unwrap();
            backing.follow().await.unwrap();
        }
        assert_eq!(ask(&backing, 0, "INCR a").await, ":4");
    }
}
