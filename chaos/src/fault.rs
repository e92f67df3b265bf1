//! The faults of each scenario as data: their weights and the processes that they affect. `injection` carries them out.

use std::{fmt, str::FromStr, time::Duration};

use crate::proxy::LinkState;

/// The store of a run. It decides the processes and the faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// One file that the processes share.
    Sqlite,
    /// One server, with a proxy for each process.
    Redis,
    /// One server and a replica that is promoted repeatedly. A promotion may lose the last acknowledged writes.
    RedisFailover,
    /// One server, with a proxy for each process.
    Postgres,
    /// One server and a standby that is promoted repeatedly. Commits wait for the standby, so none is lost.
    PostgresFailover,
}

/// `AE_ROLE` of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    All,
    Api,
    Worker,
}

/// The processes that a fault may affect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Any,
    Accepting,
    Working,
}

/// How long a process is frozen, compared with its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    Short,
    PastLease,
}

/// Whether a promoted standby has every acknowledged write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replication {
    /// It may lack the last ones.
    Asynchronous,
    Synchronous,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL to a process, which is then replaced.
    Kill(Target),
    /// SIGTERM to a process, which is then replaced.
    Stop(Target),
    /// SIGTERM to each process in turn. The next one follows when the process was replaced.
    Roll,
    /// SIGSTOP to a process, later SIGCONT.
    Freeze(Target, Span),
    /// Sets the link of one process for longer than a lease.
    CutOff(Target, LinkState),
    /// Sets the links of all processes.
    Outage(LinkState),
    /// Each connection loses its next answer.
    LoseAnswers,
    /// SIGKILL to the server. It restarts later with its files.
    KillStore,
    /// SIGSTOP to the server. With SQLite: SIGSTOP to a process that holds the write lock, so that no other process can
    /// write.
    FreezeStore,
    /// The server refuses all writes: Redis has no memory left, PostgreSQL is read-only.
    RefuseWrites,
    /// Flushes the server's script cache.
    FlushScripts,
    /// Closes the server's connections of that type.
    KillClients(&'static str),
    /// Ends all sessions of the server.
    EndSessions,
    /// Promotes the standby. The former primary is replaced by a standby of the new one.
    Promote(Replication),
}

/// The processes and faults of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) roles: &'static [Role],
    /// Faults with their weights.
    pub(crate) faults: &'static [(Fault, usize)],
}

const SQLITE: Scenario = Scenario {
    roles: &[Role::All, Role::All, Role::All],
    faults: &[
        (Fault::Kill(Target::Any), 10),
        (Fault::Stop(Target::Any), 6),
        (Fault::Freeze(Target::Any, Span::Short), 3),
        (Fault::Freeze(Target::Any, Span::PastLease), 1),
    ],
};

const REDIS: Scenario = Scenario {
    roles: &[Role::Api, Role::All, Role::Worker, Role::Worker],
    faults: &[
        (Fault::Kill(Target::Accepting), 3),
        (Fault::Kill(Target::Working), 5),
        (Fault::Stop(Target::Any), 3),
        (Fault::Roll, 1),
        (Fault::Freeze(Target::Working, Span::PastLease), 2),
        (Fault::Freeze(Target::Accepting, Span::Short), 1),
        (Fault::CutOff(Target::Working, LinkState::Cut), 1),
        (Fault::CutOff(Target::Working, LinkState::Stalled), 1),
        (Fault::CutOff(Target::Working, LinkState::HalfOpen), 1),
        (Fault::Outage(LinkState::Cut), 1),
        (Fault::Outage(LinkState::Stalled), 1),
        (Fault::Outage(LinkState::HalfOpen), 1),
        (Fault::LoseAnswers, 4),
        (Fault::KillStore, 2),
        (Fault::FreezeStore, 1),
        (Fault::RefuseWrites, 1),
        (Fault::FlushScripts, 2),
        (Fault::KillClients("normal"), 1),
        (Fault::KillClients("pubsub"), 1),
    ],
};

/// Few other faults, so that lost writes are due to promotions.
const REDIS_FAILOVER: Scenario = Scenario {
    roles: REDIS.roles,
    faults: &[
        (Fault::Promote(Replication::Asynchronous), 3),
        (Fault::Kill(Target::Working), 2),
        (Fault::LoseAnswers, 1),
        (Fault::Stop(Target::Any), 1),
    ],
};

const POSTGRES: Scenario = Scenario {
    roles: REDIS.roles,
    faults: &[
        (Fault::Kill(Target::Accepting), 3),
        (Fault::Kill(Target::Working), 5),
        (Fault::Stop(Target::Any), 3),
        (Fault::Roll, 1),
        (Fault::Freeze(Target::Working, Span::PastLease), 2),
        (Fault::Freeze(Target::Accepting, Span::Short), 1),
        (Fault::CutOff(Target::Working, LinkState::Cut), 1),
        (Fault::CutOff(Target::Working, LinkState::Stalled), 1),
        (Fault::CutOff(Target::Working, LinkState::HalfOpen), 1),
        (Fault::Outage(LinkState::Cut), 1),
        (Fault::Outage(LinkState::Stalled), 1),
        (Fault::Outage(LinkState::HalfOpen), 1),
        (Fault::LoseAnswers, 4),
        (Fault::KillStore, 2),
        (Fault::FreezeStore, 1),
        (Fault::RefuseWrites, 1),
        (Fault::EndSessions, 2),
    ],
};

const POSTGRES_FAILOVER: Scenario = Scenario {
    roles: REDIS.roles,
    faults: &[
        (Fault::Promote(Replication::Synchronous), 3),
        (Fault::Kill(Target::Working), 2),
        (Fault::LoseAnswers, 1),
        (Fault::Stop(Target::Any), 1),
    ],
};

impl StoreKind {
    pub(crate) fn scenario(self) -> Scenario {
        match self {
            Self::Sqlite => SQLITE,
            Self::Redis => REDIS,
            Self::Postgres => POSTGRES,
            Self::RedisFailover => REDIS_FAILOVER,
            Self::PostgresFailover => POSTGRES_FAILOVER,
        }
    }

    pub(crate) fn has_standby(self) -> bool {
        matches!(self, Self::RedisFailover | Self::PostgresFailover)
    }
}

impl FromStr for StoreKind {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "sqlite" => Ok(Self::Sqlite),
            "redis" => Ok(Self::Redis),
            "redis-failover" => Ok(Self::RedisFailover),
            "postgres" => Ok(Self::Postgres),
            "postgres-failover" => Ok(Self::PostgresFailover),
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

    pub(crate) fn is(self, target: Target) -> bool {
        match target {
            Target::Any => true,
            Target::Accepting => self != Self::Worker,
            Target::Working => self != Self::Api,
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
    /// Whether no process can use the store during the fault. At most one outage is in progress at a time.
    pub(crate) fn is_outage(self) -> bool {
        matches!(self, Self::Outage(_) | Self::KillStore | Self::FreezeStore | Self::RefuseWrites | Self::Promote(_))
    }
}

/// Draws faults in random order, each as often as its weight before any round repeats. A short run so has many kinds.
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

    /// `None` if there are no faults.
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
            Self::Kill(target) => write!(f, "{target} killed"),
            Self::Stop(target) => write!(f, "{target} stopped by SIGTERM"),
            Self::Roll => f.write_str("all restarted, one by one"),
            Self::Freeze(target, Span::Short) => write!(f, "{target} frozen"),
            Self::Freeze(target, Span::PastLease) => write!(f, "{target} frozen past its lease"),
            Self::CutOff(target, link) => write!(f, "{target} cut off past its lease: {}", named(*link)),
            Self::Outage(link) => write!(f, "all cut off: {}", named(*link)),
            Self::LoseAnswers => f.write_str("answers lost, requests carried out"),
            Self::KillStore => f.write_str("server killed"),
            Self::FreezeStore => f.write_str("store frozen"),
            Self::RefuseWrites => f.write_str("server refuses writes"),
            Self::FlushScripts => f.write_str("scripts flushed"),
            Self::KillClients(kind) => write!(f, "{kind} connections closed by the server"),
            Self::EndSessions => f.write_str("sessions ended by the server"),
            Self::Promote(_) => f.write_str("standby promoted"),
        }
    }
}

fn named(link: LinkState) -> &'static str {
    match link {
        LinkState::Open => "open",
        LinkState::Cut => "closed",
        LinkState::Stalled => "stalled",
        LinkState::HalfOpen => "half-open",
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "process",
            Self::Accepting => "accepting process",
            Self::Working => "worker",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_is_drawn_as_often_as_its_weight() {
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
    fn every_fault_has_a_target() {
        for scenario in [SQLITE, REDIS, REDIS_FAILOVER, POSTGRES, POSTGRES_FAILOVER] {
            for (fault, _) in scenario.faults {
                if let Fault::Kill(target) | Fault::Stop(target) | Fault::Freeze(target, _) | Fault::CutOff(target, _) =
                    *fault
                {
                    assert!(scenario.roles.iter().any(|role| role.is(target)), "{fault}");
                }
            }
        }
    }
}
