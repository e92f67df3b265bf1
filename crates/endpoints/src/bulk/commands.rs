//! What operators do with bulk operations.

use std::time::SystemTime;

use async_endpoints_core::StoreError;
use uuid::Uuid;

use super::{
    Bulk, BulkError, BulkOperation, BulkPreview, NewBulk,
    document::{read, update},
    members,
    operation::{Operation, State, Tally},
};

/// Number of members that a preview shows.
const SAMPLE: usize = 10;
/// Maximum number of operations that wait or run.
const ACTIVE: usize = 10;

impl Bulk {
    /// Freezes and counts the members.
    pub(crate) async fn preview(&self, new: NewBulk) -> Result<BulkPreview, BulkError> {
        let NewBulk { action, filter } = new;
        let of_members = filter.checked(action)?;
        let (chunk, rest) = members::first(&*self.store, &of_members).await?;
        let (count, complete) = members::count(&*self.store, &of_members, chunk.len(), rest).await?;
        let operation = Operation {
            id: Uuid::now_v7(),
            action,
            filter,
            state: State::Previewed,
            count,
            complete,
            chunk,
            rest,
            runner: None,
            rounds: 0,
            tally: Tally::default(),
            started_at: None,
            ended_at: None,
        };
        update(&*self.store, |document| {
            document.operations.push(operation.clone());
            document.prune();
            Some(())
        })
        .await?;
        let Operation { id, action, count, complete, chunk, .. } = operation;
        Ok(BulkPreview { id, action, count, complete, sample: chunk.into_iter().take(SAMPLE).collect() })
    }

    /// Starts a previewed operation. A repeat returns the operation as it is.
    pub(crate) async fn start(&self, preview: Uuid) -> Result<BulkOperation, BulkError> {
        let now = SystemTime::now().into();
        let started = update(&*self.store, |document| {
            let active = document.operations.iter().filter(|operation| operation.is_active()).count();
            let operation = document.find(preview)?;
            if operation.state == State::Previewed && active >= ACTIVE {
                return Some(Err(BulkError::TooMany));
            }
            operation.start(now);
            operation.view().map(Ok)
        });
        match started.await? {
            Some(started) => self.changed(started?),
            None => self.operation(preview).await,
        }
    }

    /// Requests the end of an operation, and returns it.
    pub(crate) async fn stop(&self, id: Uuid) -> Result<BulkOperation, BulkError> {
        let now = SystemTime::now().into();
        let stopped = update(&*self.store, |document| {
            let operation = document.find(id)?;
            operation.stop(now);
            operation.view()
        });
        match stopped.await? {
            Some(stopped) => self.changed(stopped),
            None => self.operation(id).await,
        }
    }

    /// Wakes the runner for an operation that was started or stopped.
    fn changed(&self, operation: BulkOperation) -> Result<BulkOperation, BulkError> {
        self.started.notify_one();
        Ok(operation)
    }

    /// Returns a started operation, or why there is none with this id.
    pub(crate) async fn operation(&self, id: Uuid) -> Result<BulkOperation, BulkError> {
        read(&*self.store).await?.view(id)
    }

    /// Returns the started operations, newest first.
    pub(crate) async fn operations(&self) -> Result<Vec<BulkOperation>, StoreError> {
        let document = read(&*self.store).await?;
        let mut operations: Vec<_> = document.operations.iter().filter_map(Operation::view).collect();
        operations.sort_by_key(|operation| std::cmp::Reverse(operation.started_at));
        Ok(operations)
    }
}
