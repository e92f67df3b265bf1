//! Followers of waiting jobs, half of them with event streams and half with long polls.

use std::io;

use tokio::task::JoinSet;

use crate::{
    http::{Client, get, post},
    orders::{ORDER, WAITING},
    process::Server,
};

pub(crate) const FOLLOWERS: usize = 5_000;
/// Number of followers with an event stream. The others poll.
pub(crate) const STREAMS: usize = FOLLOWERS / 2;

/// Open connections that follow jobs until this is dropped.
pub(crate) struct Followers(JoinSet<io::Result<()>>);

impl Followers {
    /// # Errors
    /// If a connection has ended, which makes the measurement invalid.
    pub(crate) fn check(&mut self) -> io::Result<()> {
        match self.0.try_join_next() {
            None => Ok(()),
            Some(ended) => Err(ended?.err().unwrap_or_else(|| io::Error::other("the connection of a follower ended"))),
        }
    }
}

/// Submits and follows `FOLLOWERS` jobs. Opens one connection after the other, because a server's backlog is short.
pub(crate) async fn follow(server: &Server) -> io::Result<Followers> {
    let mut submitter = Client::connect(server.address).await?;
    let submission = post(WAITING, ORDER);
    let mut followers = JoinSet::new();
    for n in 0..FOLLOWERS {
        let accepted = submitter.ask(&submission).await?.expect("202")?;
        let job = accepted.header("location").ok_or_else(|| io::Error::other("a 202 without location"))?.to_owned();
        let mut client = Client::connect(server.address).await?;
        if n < STREAMS {
            let request = get(&format!("{job}/events"), "text/event-stream");
            let opened = client.stream(&request).await?.expect("200");
            opened.map_err(|error| io::Error::other(format!("no event stream of {job}: {error}")))?;
            followers.spawn(async move { client.drain().await });
        } else {
            let request = get(&format!("{job}?wait=60"), "application/json");
            followers.spawn(async move {
                loop {
                    client.ask(&request).await?.expect("200")?;
                }
            });
        }
    }
    // All polls are waiting when the server is idle.
    server.idle().await?;
    Ok(Followers(followers))
}
