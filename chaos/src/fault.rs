//! What may happen, as data: which faults, how often beside each other, and to which processes. How they are carried out
//! is the stage's.

use std::{fmt, str::FromStr, time::Duration};

use crate::proxy::Way;

/// Where jobs are kept, and with it what can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// One file, shared by processes of one machine.
    Sqlite,
    /// One server, and a way to it of each process's own.
    Redis,
    /// The same, and a replica that is promoted now and then: what was acknowledged in the last moment may be lost.
    RedisFailover,
}

/// What a process is for: `AE_ROLE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    All,
    Api,
    Worker,
}

/// Whom it happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Anyone,
    Accepts,
    Works,
}

/// For how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    Short,
    PastLease,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL, and another takes its place.
    Kill(Who),
    /// SIGTERM, and another takes its place.
    Stop(Who),
    /// One process after the other: SIGTERM, and the next when another has taken its place.
    Roll,
    /// SIGSTOP, and SIGCONT later.
    Freeze(Who, Span),
    /// The way of one process to the store is like that for longer than its leases last, while others go on.
    CutOff(Who, Way),
    /// Everybody's way is like that.
    Outage(Way),
    /// Each connection loses its next answer.
    LoseAnswers,
    /// SIGKILL to the server; it comes back after a moment, with what its append-only file has.
    KillStore,
    /// SIGSTOP to the server. Of a file, to a process that happened to hold its lock: nobody else can write until that one
    /// goes on, and nobody can take the lock from it.
    FreezeStore,
    /// The server has reached its memory limit.
    FillStore,
    /// The server forgets its scripts.
    FlushScripts,
    /// The server closes connections of that type.
    KillClients(&'static str),
    /// A replica becomes the primary; the former primary follows it.
    Promote,
}

/// What a run has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    pub(crate) roles: &'static [Role],
    /// And how often each happens, beside the others.
    pub(crate) faults: &'static [(Fault, usize)],
}

const SQLITE: Scene = Scene {
    roles: &[Role::All, Role::All, Role::All],
    faults: &[
        (Fault::Kill(Who::Anyone), 10),
        (Fault::Stop(Who::Anyone), 6),
        (Fault::Freeze(Who::Anyone, Span::Short), 3),
        (Fault::Freeze(Who::Anyone, Span::PastLease), 1),
    ],
};

const REDIS: Scene = Scene {
    roles: &[Role::Api, Role::All, Role::Worker, Role::Worker],
    faults: &[
        (Fault::Kill(Who::Accepts), 3),
        (Fault::Kill(Who::Works), 5),
        (Fault::Stop(Who::Anyone), 3),
        (Fault::Roll, 1),
        (Fault::Freeze(Who::Works, Span::PastLease), 2),
        (Fault::Freeze(Who::Accepts, Span::Short), 1),
        (Fault::CutOff(Who::Works, Way::Cut), 1),
        (Fault::CutOff(Who::Works, Way::Stalled), 1),
        (Fault::CutOff(Who::Works, Way::HalfOpen), 1),
        (Fault::Outage(Way::Cut), 1),
        (Fault::Outage(Way::Stalled), 1),
        (Fault::Outage(Way::HalfOpen), 1),
        (Fault::LoseAnswers, 4),
        (Fault::KillStore, 2),
        (Fault::FreezeStore, 1),
        (Fault::FillStore, 1),
        (Fault::FlushScripts, 2),
        (Fault::KillClients("normal"), 1),
        (Fault::KillClients("pubsub"), 1),
    ],
};

/// Little else, so that what is lost is lost by a promotion.
const REDIS_FAILOVER: Scene = Scene {
    roles: REDIS.roles,
    faults: &[
        (Fault::Promote, 3),
        (Fault::Kill(Who::Works), 2),
        (Fault::LoseAnswers, 1),
        (Fault::Stop(Who::Anyone), 1),
    ],
};

impl Store {
    pub(crate) fn scene(self) -> Scene {
        match self {
            Self::Sqlite => SQLITE,
            Self::Redis => REDIS,
            Self::RedisFailover => REDIS_FAILOVER,
        }
    }
}

impl FromStr for Store {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "sqlite" => Ok(Self::Sqlite),
            "redis" => Ok(Self::Redis),
            "redis-failover" => Ok(Self::RedisFailover),
            _ => Err(()),
        }
    }
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Api => "api",
            Self::Worker => "worker",
        }
    }

    pub(crate) fn is(self, who: Who) -> bool {
        match who {
            Who::Anyone => true,
            Who::Accepts => self != Self::Worker,
            Who::Works => self != Self::Api,
        }
    }
}

impl Span {
    pub(crate) fn draw(self, lease: Duration, rng: &mut fastrand::Rng) -> Duration {
        match self {
            Self::Short => lease.mul_f64(0.1 + 0.4 * rng.f64()),
            Self::PastLease => lease.mul_f64(1.3 + 0.4 * rng.f64()),
        }
    }
}

impl Fault {
    /// Whether nobody can work with the store meanwhile. There is one of those at a time.
    pub(crate) fn is_outage(self) -> bool {
        matches!(self, Self::Outage(_) | Self::KillStore | Self::FreezeStore | Self::FillStore | Self::Promote)
    }
}

/// Faults as they come: each as often as its weight before all of them come again, so that a short run has many kinds.
#[derive(Debug)]
pub(crate) struct Deck {
    all: Vec<Fault>,
    left: Vec<Fault>,
}

impl Deck {
    pub(crate) fn new(faults: &[(Fault, usize)]) -> Self {
        let all = faults.iter().flat_map(|(fault, weight)| std::iter::repeat_n(*fault, *weight)).collect();
        Self { all, left: Vec::new() }
    }

    /// None if nothing may happen.
    pub(crate) fn draw(&mut self, rng: &mut fastrand::Rng) -> Option<Fault> {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
            rng.shuffle(&mut self.left);
        }
        self.left.pop()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(who) => write!(f, "{who} killed"),
            Self::Stop(who) => write!(f, "{who} stopped by SIGTERM"),
            Self::Roll => f.write_str("all restarted, one by one"),
            Self::Freeze(who, Span::Short) => write!(f, "{who} frozen"),
            Self::Freeze(who, Span::PastLease) => write!(f, "{who} frozen past its lease"),
            Self::CutOff(who, way) => write!(f, "{who} cut off past its lease: {}", named(*way)),
            Self::Outage(way) => write!(f, "all cut off: {}", named(*way)),
            Self::LoseAnswers => f.write_str("answers lost, requests carried out"),
            Self::KillStore => f.write_str("server killed"),
            Self::FreezeStore => f.write_str("store frozen"),
            Self::FillStore => f.write_str("server out of memory"),
            Self::FlushScripts => f.write_str("scripts flushed"),
            Self::KillClients(kind) => write!(f, "{kind} connections closed by the server"),
            Self::Promote => f.write_str("replica promoted"),
        }
    }
}

fn named(way: Way) -> &'static str {
    match way {
        Way::Open => "open",
        Way::Cut => "closed",
        Way::Stalled => "stalled",
        Way::HalfOpen => "half-open",
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anyone => "process",
            Self::Accepts => "process that accepts",
            Self::Works => "worker",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_as_often_as_its_weight() {
        let (mut deck, mut rng) = (Deck::new(REDIS.faults), fastrand::Rng::with_seed(1));
        let drawn: Vec<Fault> = std::iter::from_fn(|| deck.draw(&mut rng)).take(deck_size() * 2).collect();
        for (fault, weight) in REDIS.faults {
            assert_eq!(drawn.iter().filter(|drawn| *drawn == fault).count(), weight * 2, "{fault}");
        }
        assert_eq!(Deck::new(&[]).draw(&mut rng), None);
    }

    fn deck_size() -> usize {
        REDIS.faults.iter().map(|(_, weight)| weight).sum()
    }

    #[test]
    fn each_finds_somebody() {
        for scene in [SQLITE, REDIS, REDIS_FAILOVER] {
            for (fault, _) in scene.faults {
                if let Fault::Kill(who) | Fault::Stop(who) | Fault::Freeze(who, _) | Fault::CutOff(who, _) = *fault {
                    assert!(scene.roles.iter().any(|role| role.is(who)), "{fault}");
                }
            }
        }
    }
}
