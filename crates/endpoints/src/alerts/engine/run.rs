//! The tasks of a process: it asks for the role, leads while it has it, and reports its own values.

use std::sync::Arc;

use futures_util::{FutureExt, future::Shared};
use tokio_util::sync::CancellationToken;

use super::{
    Engine,
    leader::{End, Leader},
    message,
    tenure::{Candidate, Tenure},
};
use crate::telemetry::events;

impl Engine {
    /// Runs until `stop` fires. Then waits for sends in progress, at most until `limit` ends.
    pub(crate) async fn run(self: &Arc<Self>, stop: &CancellationToken, limit: impl Future<Output = ()> + Send) {
        tokio::select! {
            () = self.sample() => {}
            () = self.lead_in_turn(stop, limit.shared()) => {}
        }
    }

    async fn lead_in_turn<L: Future<Output = ()>>(self: &Arc<Self>, stop: &CancellationToken, limit: Shared<L>) {
        while let Some(tenure) = stop.run_until_cancelled(self.candidate().acquire()).await {
            let end = self.lead_once(&Arc::new(tenure), stop, limit.clone()).await;
            match end {
                End::Stopped => return,
                End::Lost => {}
                End::TooOld => {
                    self.candidate().resign().await;
                    stop.run_until_cancelled(tokio::time::sleep(self.lease)).await;
                }
            }
        }
    }

    /// Leads until the role is lost or the process stops.
    async fn lead_once<L: Future<Output = ()>>(
        self: &Arc<Self>,
        tenure: &Arc<Tenure>,
        stop: &CancellationToken,
        limit: Shared<L>,
    ) -> End {
        let beginning = async {
            tokio::select! {
                () = tenure.keep() => Err(End::Lost),
                () = stop.cancelled() => Err(End::Stopped),
                leader = Leader::begin(self, tenure) => leader.ok_or(End::TooOld),
            }
        };
        let mut leader = match Box::pin(beginning).await {
            Ok(leader) => leader,
            Err(end) => {
                if end == End::Stopped {
                    self.candidate().resign().await;
                }
                return end;
            }
        };
        events::alerts_led_here();
        let end = tokio::select! {
            () = tenure.keep() => End::Lost,
            end = leader.lead(stop) => end,
        };
        match end {
            End::Stopped => {
                tokio::select! {
                    () = leader.last_sends() => {}
                    () = tenure.keep() => {}
                    () = limit => {}
                }
                leader.resign().await;
            }
            End::Lost | End::TooOld => {
                events::alerts_led_elsewhere();
                stop.run_until_cancelled(leader.abandon()).await;
            }
        }
        end
    }

    /// How this process asks for the role.
    pub(super) fn candidate(&self) -> Candidate {
        Candidate { store: self.store.clone(), id: self.id.0, lease: self.lease }
    }

    /// The process that writes an alert.
    pub(super) fn origin(&self) -> message::Origin<'_> {
        message::Origin { service: &self.service, instance: &self.instance }
    }
}
