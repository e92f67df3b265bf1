//! Queues of calls to the threads, and the answers to their callers. Must not know jobs or SQL.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::failure::Failure;

/// Maximum number of waiting calls, and of their bytes. Further calls fail as unavailable, rather than wait for long.
const WAITING: usize = 16_384;
const WAITING_BYTES: usize = 256 << 20;

/// Maximum time that a caller waits: far longer than a commit takes, or than a writer waits for the lock.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A call that a thread runs with a context `C`.
pub(crate) trait Call<C>: Send {
    /// Whether the caller still waits.
    fn is_wanted(&self) -> bool;
    /// Runs the step and keeps its result. Runs again if the transaction was rolled back. Returns a copy of the failure.
    fn run(&mut self, context: &mut C) -> Result<(), Failure>;
    /// Sends the result to the caller, or the failure of the whole transaction.
    fn answer(self: Box<Self>, transaction: Option<&Failure>);
}

struct PendingCall<F, T> {
    step: F,
    result: Option<Result<T, Failure>>,
    reply: Arc<Reply<T>>,
}

/// Sends one answer to the caller; later answers are dropped.
struct Reply<T>(Mutex<Option<oneshot::Sender<Result<T, Failure>>>>);

/// A caller that may have waited for too long.
trait Expire: Send + Sync {
    fn expire(&self);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Reply<T> {
    fn send(&self, answer: Result<T, Failure>) {
        // A caller that left does not get the answer. Its call may have been committed, as with any lost answer.
        drop(lock(&self.0).take().map(|caller| caller.send(answer)));
    }
}

impl<T: Send> Expire for Reply<T> {
    fn expire(&self) {
        self.send(Err(Failure::Unavailable("the disk does not answer".to_owned())));
    }
}

impl<C, F, T> Call<C> for PendingCall<F, T>
where
    F: FnMut(&mut C) -> Result<T, Failure> + Send,
    T: Send,
{
    fn is_wanted(&self) -> bool {
        lock(&self.reply.0).as_ref().is_some_and(|caller| !caller.is_closed())
    }

    fn run(&mut self, context: &mut C) -> Result<(), Failure> {
        // A panic must not end the thread. The step is rolled back like any failed step.
        let result = catch_unwind(AssertUnwindSafe(|| (self.step)(context))).unwrap_or(Err(Failure::Panicked));
        let copy = result.as_ref().map(|_| ()).map_err(Failure::copy);
        self.result = Some(result);
        copy
    }

    fn answer(self: Box<Self>, transaction: Option<&Failure>) {
        let answer = match (transaction, self.result) {
            // A step's own failure explains more than the transaction's.
            (Some(failure), Some(Ok(_)) | None) => Err(failure.copy()),
            (_, Some(result)) => result,
            (None, None) => Err(Failure::Unavailable("the call did not run".to_owned())),
        };
        self.reply.send(answer);
    }
}

/// What [`Queue::take`] returns.
pub(crate) enum Taken<C> {
    /// Calls in the order to run them.
    Calls(Vec<Box<dyn Call<C>>>),
    /// No call came in time.
    Timeout,
    /// The queue is closed and empty.
    Closed,
}

/// Calls in the order of their arrival, urgent calls before all others.
pub(crate) struct Queue<C> {
    calls: Mutex<Calls<C>>,
    arrival: Condvar,
}

struct Calls<C> {
    urgent: VecDeque<WaitingCall<C>>,
    others: VecDeque<WaitingCall<C>>,
    bytes: usize,
    /// Callers without an answer and since when they wait, oldest first. Answered callers are removed lazily.
    callers: VecDeque<(Instant, Weak<dyn Expire>)>,
    closed: bool,
}

struct WaitingCall<C> {
    call: Box<dyn Call<C>>,
    bytes: usize,
}

impl<C: 'static> Queue<C> {
    pub(crate) fn new() -> Self {
        let calls = Calls {
            urgent: VecDeque::new(),
            others: VecDeque::new(),
            bytes: 0,
            callers: VecDeque::new(),
            closed: false,
        };
        Self { calls: Mutex::new(calls), arrival: Condvar::new() }
    }

    /// Queues a step that holds `bytes` of memory until it has run, and waits for its result.
    ///
    /// Once begun, the step completes even if the caller drops the future. It may run again after a rollback.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        urgent: bool,
        bytes: usize,
        step: impl FnMut(&mut C) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let reply = Arc::new(Reply(Mutex::new(Some(reply))));
        // The caller holds no strong reference: a call that is dropped without an answer must close the channel.
        let caller = {
            let caller: Arc<dyn Expire> = Arc::clone(&reply) as _;
            Arc::downgrade(&caller)
        };
        self.push(urgent, bytes, Box::new(PendingCall { step, result: None, reply }), caller)?;
        answer.await.unwrap_or_else(|_| Err(thread_ended()))
    }

    fn push(
        &self,
        urgent: bool,
        bytes: usize,
        call: Box<dyn Call<C>>,
        caller: Weak<dyn Expire>,
    ) -> Result<(), Failure> {
        let mut calls = lock(&self.calls);
        if calls.closed {
            return Err(thread_ended());
        }
        if !urgent && (calls.others.len() >= WAITING || calls.bytes >= WAITING_BYTES) {
            return Err(Failure::Unavailable("too many calls wait".to_owned()));
        }
        while calls.callers.front().is_some_and(|(_, caller)| caller.strong_count() == 0) {
            calls.callers.pop_front();
        }
        calls.callers.push_back((Instant::now(), caller));
        calls.bytes += bytes;
        let waiting = WaitingCall { call, bytes };
        let queue = if urgent { &mut calls.urgent } else { &mut calls.others };
        queue.push_back(waiting);
        drop(calls);
        self.arrival.notify_one();
        Ok(())
    }

    /// Waits for calls and takes at least one: at most `max` calls, and no further one once they have `max_bytes`.
    pub(crate) fn take(&self, max: usize, max_bytes: usize, timeout: Option<Duration>) -> Taken<C> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut calls = lock(&self.calls);
        while calls.urgent.is_empty() && calls.others.is_empty() {
            if calls.closed {
                return Taken::Closed;
            }
            calls = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return Taken::Timeout,
                Some(left) => self.arrival.wait_timeout(calls, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.arrival.wait(calls).unwrap_or_else(PoisonError::into_inner),
            };
        }
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < max && (taken.is_empty() || bytes < max_bytes) {
            let Some(next) = calls.urgent.pop_front().or_else(|| calls.others.pop_front()) else { break };
            calls.bytes -= next.bytes;
            bytes += next.bytes;
            taken.push(next.call);
        }
        Taken::Calls(taken)
    }

    /// Takes the urgent calls that wait.
    pub(crate) fn take_urgent(&self) -> Vec<Box<dyn Call<C>>> {
        let mut calls = lock(&self.calls);
        let urgent: Vec<_> = calls.urgent.drain(..).collect();
        calls.bytes -= urgent.iter().map(|waiting| waiting.bytes).sum::<usize>();
        urgent.into_iter().map(|waiting| waiting.call).collect()
    }

    /// Answers callers that wait for longer than `timeout` as unavailable: the disk does not answer.
    pub(crate) fn expire(&self, timeout: Duration) {
        let mut expired = Vec::new();
        let mut calls = lock(&self.calls);
        while calls.callers.front().is_some_and(|(since, _)| since.elapsed() > timeout) {
            expired.extend(calls.callers.pop_front().and_then(|(_, caller)| caller.upgrade()));
        }
        drop(calls);
        expired.iter().for_each(|caller| caller.expire());
    }

    /// Whether calls wait.
    pub(crate) fn is_waiting(&self) -> bool {
        let calls = lock(&self.calls);
        !calls.urgent.is_empty() || !calls.others.is_empty()
    }

    /// Whether new calls are refused.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.calls).closed
    }

    /// Refuses new calls. The threads run the waiting calls, then end.
    pub(crate) fn close(&self) {
        lock(&self.calls).closed = true;
        self.arrival.notify_all();
    }

    /// Refuses new calls and drops the waiting calls: their callers get an error.
    pub(crate) fn abandon(&self) {
        let mut calls = lock(&self.calls);
        calls.closed = true;
        let urgent: Vec<_> = calls.urgent.drain(..).collect();
        let others: Vec<_> = calls.others.drain(..).collect();
        drop(calls);
        drop((urgent, others));
    }
}

fn thread_ended() -> Failure {
    Failure::Unavailable("its thread ended".to_owned())
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    /// Runs what one `take` returns, as a thread would. Returns the numbers of the calls in their order.
    fn run(queue: &Queue<Vec<u32>>, max: usize, max_bytes: usize) -> Vec<u32> {
        let mut numbers = Vec::new();
        let Taken::Calls(calls) = queue.take(max, max_bytes, Some(Duration::ZERO)) else { return numbers };
        for mut call in calls {
            call.run(&mut numbers).expect("the step succeeds");
            call.answer(None);
        }
        numbers
    }

    fn call(
        queue: &Queue<Vec<u32>>,
        urgent: bool,
        bytes: usize,
        number: u32,
    ) -> impl Future<Output = Result<(), Failure>> {
        queue.call(urgent, bytes, move |numbers: &mut Vec<u32>| {
            numbers.push(number);
            Ok(())
        })
    }

    #[tokio::test]
    async fn take_returns_urgent_calls_first_within_bounds() {
        let queue = Queue::new();
        let calls = [(false, 10, 1), (false, 10, 2), (true, 0, 3), (false, 10, 4), (false, 90, 5), (false, 1, 6)];
        let calls = join_all(calls.map(|(urgent, bytes, number)| call(&queue, urgent, bytes, number)));
        let runs = async {
            assert_eq!(run(&queue, 3, 100), [3, 1, 2], "at most `max` calls");
            assert_eq!(run(&queue, 9, 100), [4, 5], "at most `max_bytes` bytes");
            assert_eq!(run(&queue, 9, 0), [6], "at least one call");
            assert!(run(&queue, 9, 9).is_empty());
        };
        let (answers, ()) = futures_util::future::join(calls, runs).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }

    #[tokio::test]
    async fn call_after_the_thread_ended_is_unavailable() {
        let queue = Queue::new();
        let ended = async { queue.abandon() };
        let (waiting, ()) = futures_util::future::join(call(&queue, false, 0, 1), ended).await;
        let late = call(&queue, true, 0, 2).await;
        assert!([waiting, late].iter().all(|answer| matches!(answer, Err(Failure::Unavailable(_)))));
    }

    #[tokio::test]
    async fn full_queue_refuses_calls_that_are_not_urgent() {
        let queue = Queue::new();
        let full = async {
            let refused = call(&queue, false, 1, 2).await;
            assert!(matches!(refused, Err(Failure::Unavailable(why)) if why.contains("too many")));
            let urgent = futures_util::future::join(call(&queue, true, 0, 3), async {
                assert_eq!(run(&queue, 9, usize::MAX), [3, 1]);
            });
            urgent.await.0.expect("the urgent call runs");
        };
        let (first, ()) = futures_util::future::join(call(&queue, false, WAITING_BYTES, 1), full).await;
        first.expect("the first call runs");
    }
}
