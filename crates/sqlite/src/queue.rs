//! What callers ask of a thread, and how they hear of it. Must not know jobs, nor SQL.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::fail::Fail;

/// Calls that wait at most, and their bytes: beyond, a caller is told to come again rather than to wait for long.
const WAITING: usize = 16_384;
const WAITING_BYTES: usize = 256 << 20;

/// How long a caller waits at most. Far longer than a commit, or than another process may keep the file.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Something to do with a `C`, and somebody who waits for it.
pub(crate) trait Call<C>: Send {
    /// Whether anybody still waits.
    fn wanted(&self) -> bool;
    /// Does it; whether it worked. Again, if what it did was taken back.
    fn run(&mut self, context: &mut C) -> bool;
    /// Tells its caller what came out, or why nothing did.
    fn answer(self: Box<Self>, refused: Option<&Fail>);
}

struct Asked<F, T> {
    ask: F,
    answer: Option<Result<T, Fail>>,
    reply: Arc<Reply<T>>,
}

/// Where the answer goes: to whoever waits, or nowhere if they left or were sent away.
struct Reply<T>(Mutex<Option<oneshot::Sender<Result<T, Fail>>>>);

/// A caller who may have waited for too long.
trait Late: Send + Sync {
    fn send_away(&self);
}

impl<T> Reply<T> {
    fn lock(&self) -> MutexGuard<'_, Option<oneshot::Sender<Result<T, Fail>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, answer: Result<T, Fail>) {
        // Whoever left does not hear it: their call may have happened, as with any answer that is lost.
        drop(self.lock().take().map(|caller| caller.send(answer)));
    }
}

impl<T: Send> Late for Reply<T> {
    fn send_away(&self) {
        self.send(Err(Fail::Unavailable("the disk does not answer".to_owned())));
    }
}

impl<C, F, T> Call<C> for Asked<F, T>
where
    F: FnMut(&mut C) -> Result<T, Fail> + Send,
    T: Send,
{
    fn wanted(&self) -> bool {
        self.reply.lock().as_ref().is_some_and(|caller| !caller.is_closed())
    }

    fn run(&mut self, context: &mut C) -> bool {
        // A thread that panics would take all later calls with it; the step is rolled back like any that fails.
        let answer = catch_unwind(AssertUnwindSafe(|| (self.ask)(context))).unwrap_or(Err(Fail::Panicked));
        let worked = answer.is_ok();
        self.answer = Some(answer);
        worked
    }

    fn answer(self: Box<Self>, refused: Option<&Fail>) {
        let answer = match (refused, self.answer) {
            // What failed by itself says why better than what came of the others.
            (Some(why), Some(Ok(_)) | None) => Err(why.copy()),
            (_, Some(answer)) => answer,
            (None, None) => Err(Fail::Unavailable("the call was not made".to_owned())),
        };
        self.reply.send(answer);
    }
}

/// What a thread finds when it looks for work.
pub(crate) enum Found<C> {
    /// These, in order.
    Calls(Vec<Box<dyn Call<C>>>),
    /// Nothing came in time.
    Nothing,
    /// Nobody can ask any more.
    Closed,
}

/// Calls in the order in which they came, those that cannot wait before all others.
pub(crate) struct Queue<C> {
    calls: Mutex<Calls<C>>,
    came: Condvar,
}

struct Calls<C> {
    urgent: VecDeque<Waiting<C>>,
    others: VecDeque<Waiting<C>>,
    bytes: usize,
    /// Everybody who was not answered, longest waiting first, and since when; some of those who were.
    open: VecDeque<(Instant, Weak<dyn Late>)>,
    closed: bool,
}

struct Waiting<C> {
    call: Box<dyn Call<C>>,
    bytes: usize,
}

impl<C: 'static> Queue<C> {
    pub(crate) fn new() -> Self {
        let calls =
            Calls { urgent: VecDeque::new(), others: VecDeque::new(), bytes: 0, open: VecDeque::new(), closed: false };
        Self { calls: Mutex::new(calls), came: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Calls<C>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for something that keeps so many bytes until it is done. The step happens even if the caller leaves
    /// after it began. It may run a second time, after the first was taken back.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        urgent: bool,
        bytes: usize,
        ask: impl FnMut(&mut C) -> Result<T, Fail> + Send + 'static,
    ) -> Result<T, Fail> {
        let (reply, answer) = oneshot::channel();
        let reply = Arc::new(Reply(Mutex::new(Some(reply))));
        // Weak, and nothing else: a call that is dropped unanswered must not be held by its own caller.
        let late = {
            let late: Arc<dyn Late> = Arc::clone(&reply) as _;
            Arc::downgrade(&late)
        };
        self.push(urgent, bytes, Box::new(Asked { ask, answer: None, reply }), late)?;
        answer.await.unwrap_or_else(|_| Err(Fail::Unavailable("its thread ended".to_owned())))
    }

    fn push(&self, urgent: bool, bytes: usize, call: Box<dyn Call<C>>, late: Weak<dyn Late>) -> Result<(), Fail> {
        let mut calls = self.lock();
        if calls.closed {
            return Err(Fail::Unavailable("its thread ended".to_owned()));
        }
        if !urgent && (calls.others.len() >= WAITING || calls.bytes >= WAITING_BYTES) {
            return Err(Fail::Unavailable("too many calls wait".to_owned()));
        }
        while calls.open.front().is_some_and(|(_, caller)| caller.strong_count() == 0) {
            calls.open.pop_front();
        }
        calls.open.push_back((Instant::now(), late));
        calls.bytes += bytes;
        let waiting = Waiting { call, bytes };
        let line = if urgent { &mut calls.urgent } else { &mut calls.others };
        line.push_back(waiting);
        drop(calls);
        self.came.notify_one();
        Ok(())
    }

    /// Waits for calls: as many as there are, within these bounds, and one at least.
    pub(crate) fn take(&self, most: usize, most_bytes: usize, patience: Option<Duration>) -> Found<C> {
        let until = patience.map(|patience| Instant::now() + patience);
        let mut calls = self.lock();
        while calls.urgent.is_empty() && calls.others.is_empty() {
            if calls.closed {
                return Found::Closed;
            }
            calls = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return Found::Nothing,
                Some(left) => self.came.wait_timeout(calls, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.came.wait(calls).unwrap_or_else(PoisonError::into_inner),
            };
        }
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < most && (taken.is_empty() || bytes < most_bytes) {
            let Some(next) = calls.urgent.pop_front().or_else(|| calls.others.pop_front()) else { break };
            calls.bytes -= next.bytes;
            bytes += next.bytes;
            taken.push(next.call);
        }
        Found::Calls(taken)
    }

    /// Those that came meanwhile and cannot wait.
    pub(crate) fn take_urgent(&self) -> Vec<Box<dyn Call<C>>> {
        let mut calls = self.lock();
        let urgent: Vec<_> = calls.urgent.drain(..).collect();
        calls.bytes -= urgent.iter().map(|waiting| waiting.bytes).sum::<usize>();
        urgent.into_iter().map(|waiting| waiting.call).collect()
    }

    /// Sends those away who wait for too long: the disk does not answer, and nobody should wait for ever.
    pub(crate) fn expire(&self, patience: Duration) {
        let mut late = Vec::new();
        let mut calls = self.lock();
        while calls.open.front().is_some_and(|(since, _)| since.elapsed() > patience) {
            late.extend(calls.open.pop_front().and_then(|(_, caller)| caller.upgrade()));
        }
        drop(calls);
        late.iter().for_each(|caller| caller.send_away());
    }

    /// Whether calls wait.
    pub(crate) fn is_waiting(&self) -> bool {
        let calls = self.lock();
        !calls.urgent.is_empty() || !calls.others.is_empty()
    }

    /// Whether nobody can ask any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Ends the threads once they did what waits.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.came.notify_all();
    }

    /// Ends all at once: what waits is answered by nobody.
    pub(crate) fn abandon(&self) {
        let mut calls = self.lock();
        calls.closed = true;
        let left: Vec<_> = calls.urgent.drain(..).collect();
        let others: Vec<_> = calls.others.drain(..).collect();
        drop(calls);
        drop((left, others));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    /// Does what it finds, as a thread would; what was done, in order.
    fn work(queue: &Queue<Vec<u32>>, most: usize, most_bytes: usize) -> Vec<u32> {
        let mut done = Vec::new();
        let Found::Calls(calls) = queue.take(most, most_bytes, Some(Duration::ZERO)) else { return done };
        for mut call in calls {
            call.run(&mut done);
            call.answer(None);
        }
        done
    }

    fn ask(queue: &Queue<Vec<u32>>, urgent: bool, bytes: usize, number: u32) -> impl Future<Output = Result<(), Fail>> {
        queue.ask(urgent, bytes, move |done: &mut Vec<u32>| {
            done.push(number);
            Ok(())
        })
    }

    #[tokio::test]
    async fn what_cannot_wait_goes_first_and_takes_are_bounded() {
        let queue = Queue::new();
        let calls = [(false, 10, 1), (false, 10, 2), (true, 0, 3), (false, 10, 4), (false, 90, 5), (false, 1, 6)];
        let asked = join_all(calls.map(|(urgent, bytes, number)| ask(&queue, urgent, bytes, number)));
        let worked = async {
            assert_eq!(work(&queue, 3, 100), [3, 1, 2], "as many as are asked for");
            assert_eq!(work(&queue, 9, 100), [4, 5], "as many as fit");
            assert_eq!(work(&queue, 9, 0), [6], "one at least");
            assert!(work(&queue, 9, 9).is_empty());
        };
        let (answers, ()) = futures_util::future::join(asked, worked).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }

    #[tokio::test]
    async fn who_asks_when_nobody_works_any_more_is_told_so() {
        let queue = Queue::new();
        let ended = async { queue.abandon() };
        let (waiting, ()) = futures_util::future::join(ask(&queue, false, 0, 1), ended).await;
        let late = ask(&queue, true, 0, 2).await;
        assert!([waiting, late].iter().all(|answer| matches!(answer, Err(Fail::Unavailable(_)))));
    }

    #[tokio::test]
    async fn too_many_are_sent_away_but_not_those_that_cannot_wait() {
        let queue = Queue::new();
        let full = async {
            let refused = ask(&queue, false, 1, 2).await;
            assert!(matches!(refused, Err(Fail::Unavailable(why)) if why.contains("too many")));
            let urgent = futures_util::future::join(ask(&queue, true, 0, 3), async {
                assert_eq!(work(&queue, 9, usize::MAX), [3, 1]);
            });
            urgent.await.0.expect("it is done");
        };
        let (first, ()) = futures_util::future::join(ask(&queue, false, WAITING_BYTES, 1), full).await;
        first.expect("it is done");
    }
}
