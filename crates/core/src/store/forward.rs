//! The list of store calls, and the macro that forwards them to an inner store.

macro_rules! operations {
    ($($name:ident: $text:literal,)+) => {
        /// A call of a store that can fail.
        #[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "each is named after its call")]
        pub enum StoreOperation {
            $($name,)+
        }

        impl StoreOperation {
            /// Every operation, in the order of the enum.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$name),+];

            /// The method's name: `put_document` for example.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

operations! {
    Insert: "insert",
    Get: "get",
    Versions: "versions",
    List: "list",
    Logs: "logs",
    Payload: "payload",
    Stats: "stats",
    Claim: "claim",
    Renew: "renew",
    Report: "report",
    Settle: "settle",
    Cancel: "cancel",
    Retry: "retry",
    Reclaim: "reclaim",
    Prune: "prune",
    Probe: "probe",
    Health: "health",
    Role: "role",
    Document: "document",
    PutDocument: "put_document",
}

/// Writes the methods of [`JobStore`](crate::JobStore) and [`SharedState`](crate::SharedState) that a store decorator
/// forwards to its inner store. Use it inside an `impl` block under `#[async_trait]`.
///
/// | invocation | body of a method |
/// |---|---|
/// | `(self => inner; calls)` | `inner.get(id)` |
/// | `(async self => inner; calls)` | `async { inner.get(id).await }`, where `inner` may use `?` |
/// | `(self.around => inner; calls)` | `self.around(StoreOperation::Get, move \|\| inner.get(id)).await` |
///
/// `calls` is a list of method names, or `job_calls` (every fallible call of `JobStore`) or `shared_calls` (all of
/// `SharedState`). `hints` and `kind` have to be listed by name, in the first form. `around` is an async method of the
/// decorator that takes `impl FnOnce() -> BoxFuture<'_, Result<T>> + Send`, or `impl Fn` if neither `insert` nor
/// `put_document` is in the list.
///
/// ```
/// use async_endpoints_core::{JobStore, Store, StoreError, forward_store_calls, store::{Result, StoreOperation}};
/// use async_trait::async_trait;
/// use futures_util::future::BoxFuture;
///
/// struct ReadOnly<S>(S);
///
/// impl<S: Store> ReadOnly<S> {
///     async fn refuse<'a, T>(
///         &self,
///         operation: StoreOperation,
///         _call: impl FnOnce() -> BoxFuture<'a, Result<T>> + Send,
///     ) -> Result<T> {
///         Err(StoreError::Unavailable(format!("{} is not allowed", operation.as_str())))
///     }
/// }
///
/// #[async_trait]
/// impl<S: Store> JobStore for ReadOnly<S> {
///     forward_store_calls!(self => self.0; get, versions, list, logs, payload, stats, probe, health, hints, kind);
///     forward_store_calls!(self.refuse => self.0; insert, claim, renew, report, settle, cancel, retry, reclaim, prune);
/// }
/// ```
#[macro_export]
macro_rules! forward_store_calls {
    (async $this:ident => $inner:expr; $($call:ident),+) => {
        $($crate::forward_store_calls! { @$call [async] $this [$inner] })+
    };
    ($this:ident => $inner:expr; $($call:ident),+) => {
        $($crate::forward_store_calls! { @$call [direct] $this [$inner] })+
    };
    ($this:ident.$around:ident => $inner:expr; $($call:ident),+) => {
        $($crate::forward_store_calls! { @$call [around $around] $this [$inner] })+
    };

    (@job_calls [$($how:ident)+] $this:ident [$inner:expr]) => {
        $crate::forward_store_calls! {
            @each [$($how)+] $this [$inner]
            insert get versions list logs payload stats claim renew report settle cancel retry reclaim prune probe health
        }
    };
    (@shared_calls [$($how:ident)+] $this:ident [$inner:expr]) => {
        $crate::forward_store_calls! { @each [$($how)+] $this [$inner] role document put_document }
    };
    (@each $how:tt $this:ident [$inner:expr] $($call:ident)+) => {
        $($crate::forward_store_calls! { @$call $how $this [$inner] })+
    };

    (@insert $($use:tt)+) => { $crate::forward_store_calls! { @fn $($use)+
        Insert insert [] (job: $crate::store::NewJob) -> $crate::store::InsertOutcome } };
    (@get $($use:tt)+) => { $crate::forward_store_calls! { @fn $($use)+
        Get get [] (id: $crate::JobId) -> $crate::store::JobLookup } };
    (@versions $($use:tt)+) => { $crate::forward_store_calls! { @fn $($use)+
        Versions versions ['x] (ids: &'x [$crate::JobId]) -> Vec<Option<u64>> } };
    (@list $($use:tt)+) => { $crate::forward_store_calls! { @fn $($use)+
        List list ['x 'y] (filter: &'x $crate::store::ListFilter, page: &'y $crate::store::Page)
            -> $crate::store::ListPage } };
    (@logs $($use:tt)+) => { $crate::forward_store_calls! { @fn $($use)+
        Logs logs [] (id: $crate::JobId, after: u64, limit: u32)
            -> Vec<$crate::job::LogLine> } };
    (@payload $($use:tt)+) => { $crate::forward_store_calls! { @fn $($use)+
        Payload payload [] (id: $crate::JobId) -> Option<$crate::store::__private::Bytes> } };
    (@stats $($use:tt)+) => { $crate::forward_store_calls! { @fn $($use)+
        Stats stats ['x] (query: &'x $crate::store::StatsQuery) -> $crate::store::Stats } };
    (@claim $($use:tt)+) => { $crate::forward_store_calls! { @fn $($use)+
        Claim claim ['x] (claim: &'x $crate::store::Claim) -> $crate::store::Claimed } };
    (@renew $($use:tt)+) => { $crate::forward_store_calls! { @fn $($use)+
        Renew renew ['x 'y] (
            heartbeat: &'x $crate::store::Heartbeat,
            leases: &'y [$crate::store::Lease],
            lease: $crate::store::__private::Duration
        ) -> Vec<$crate::store::Renewed> } };
    (@report $($use:tt)+) => { $crate::forward_store_calls! { @fn $($use)+
        Report report ['x] (reports: &'x [$crate::store::Report])
            -> Vec<$crate::store::Fenced> } };
    (@settle $($use:tt)+) => { $crate::forward_store_calls! { @fn $($use)+
        Settle settle ['x] (settlements: &'x [$crate::store::Settlement])
            -> Vec<$crate::store::Settled> } };
    (@cancel $($use:tt)+) => { $crate::forward_store_calls! { @fn $($use)+
        Cancel cancel ['x] (id: $crate::JobId, error: &'x $crate::job::ErrorRecord)
            -> $crate::store::CancelOutcome } };
    (@retry $($use:tt)+) => { $crate::forward_store_calls! { @fn $($use)+
        Retry retry ['x] (id: $crate::JobId, new: &'x $crate::store::RetryAs) -> $crate::store::RetryOutcome } };
    (@reclaim $($use:tt)+) => { $crate::forward_store_calls! { @fn $($use)+
        Reclaim reclaim ['x] (reclaim: &'x $crate::store::Reclaim) -> $crate::store::Reclaimed } };
    (@prune $($use:tt)+) => { $crate::forward_store_calls! { @fn $($use)+ Prune prune [] (limit: u32) -> u32 } };
    (@probe $($use:tt)+) => { $crate::forward_store_calls! { @fn $($use)+ Probe probe [] () -> () } };
    (@health $($use:tt)+) => { $crate::forward_store_calls! { @fn $($use)+
        Health health [] () -> $crate::store::StoreHealth } };
    (@role $($use:tt)+) => { $crate::forward_store_calls! { @fn $($use)+
        Role role ['x] (
            name: &'x str,
            holder: $crate::store::__private::Uuid,
            ttl: $crate::store::__private::Duration
        ) -> $crate::store::Role } };
    (@document $($use:tt)+) => { $crate::forward_store_calls! { @fn $($use)+
        Document document ['x] (name: &'x str) -> Option<$crate::store::Document> } };
    (@put_document $($use:tt)+) => { $crate::forward_store_calls! { @fn $($use)+
        PutDocument put_document ['x 'y] (
            name: &'x str,
            expected: Option<$crate::store::DocVersion>,
            bytes: $crate::store::__private::Bytes,
            role: Option<(&'y str, $crate::store::RoleToken)>
        ) -> $crate::store::PutOutcome } };
    (@hints [direct] $this:ident [$inner:expr]) => {
        fn hints(&$this) -> $crate::store::__private::BoxStream<'static, $crate::store::Hint> {
            $inner.hints()
        }
    };
    (@kind [direct] $this:ident [$inner:expr]) => {
        fn kind(&$this) -> &'static str {
            $inner.kind()
        }
    };

    // The signatures are those that `#[async_trait]` makes of an `async fn`.
    (@fn [$($how:ident)+] $this:ident [$inner:expr] $operation:ident $call:ident [$($life:lifetime)*]
        ($($arg:ident: $type:ty),*) -> $answer:ty
    ) => {
        fn $call<'s: 'a, $($life: 'a,)* 'a>(
            &'s $this
            $(, $arg: $type)*
        ) -> $crate::store::__private::BoxFuture<'a, $crate::store::Result<$answer>> {
            $crate::forward_store_calls!(@body [$($how)+] $this $operation $inner.$call($($arg),*))
        }
    };
    (@body [direct] $this:ident $operation:ident $forward:expr) => { $forward };
    (@body [async] $this:ident $operation:ident $forward:expr) => {
        Box::pin(async move { $forward.await })
    };
    (@body [around $around:ident] $this:ident $operation:ident $forward:expr) => {
        Box::pin(async move {
            $this.$around($crate::store::StoreOperation::$operation, move || $forward).await
        })
    };
}

/// Types that [`forward_store_calls!`](crate::forward_store_calls) names.
#[doc(hidden)]
pub mod __private {
    pub use std::time::Duration;

    pub use bytes::Bytes;
    pub use futures_util::{future::BoxFuture, stream::BoxStream};
    pub use uuid::Uuid;
}
