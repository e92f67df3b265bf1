//! Those who follow jobs that wait, as many as a busy service has: event streams and long polls.

use std::io;

use tokio::task::JoinSet;

use crate::{
    http::{Client, get, post},
    process::Server,
    served::{ORDER, WAITING},
};

pub(crate) const FOLLOWERS: usize = 5_000;
/// How many of them have an event stream; the others poll.
pub(crate) const STREAMS: usize = FOLLOWERS / 2;

/// They follow until this is dropped.
pub(crate) struct Followers(JoinSet<io::Result<()>>);

impl Followers {
    /// An error if one of them is no longer there: what was measured was then not what it seems.
    pub(crate) fn all_there(&mut self) -> io::Result<()> {
        match self.0.try_join_next() {
            None => Ok(()),
            Some(ended) => Err(ended?.err().unwrap_or_else(|| io::Error::other("a follower has left"))),
        }
    }
}

/// Follows as many jobs. One connection after the other, for the queue of those that wait for a server is short.
pub(crate) async fn follow(server: &Server) -> io::Result<Followers> {
    let mut submitter = Client::connect(server.address).await?;
    let submission = post(WAITING, ORDER);
    let mut followers = JoinSet::new();
    for n in 0..FOLLOWERS {
        let accepted = submitter.ask(&submission).await?.expect("202")?;
        let job = accepted.header("location").ok_or_else(|| io::Error::other("a 202 without its job"))?.to_owned();
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
    // Nothing tells that a poll is held but that its server has nothing left to do.
    server.quiet().await?;
    Ok(Followers(followers))
}
