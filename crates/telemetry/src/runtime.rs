//! The runtime of the OTLP exporters. Their clients need one, and the SDK's batch threads have none.

use std::{future::Future, io, sync::Arc, time::Duration};

use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use tokio::{runtime, task::JoinHandle, time::timeout};

/// A runtime with one thread. It ends with the last clone, and waits for nothing then.
#[derive(Clone, Debug)]
pub(crate) struct ExportRuntime(Arc<Owned>);

#[derive(Debug)]
struct Owned(Option<runtime::Runtime>);

impl ExportRuntime {
    pub(crate) fn start() -> io::Result<Self> {
        let mut builder = runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("async-endpoints-otlp").enable_all().build()?;
        Ok(Self(Arc::new(Owned(Some(runtime)))))
    }

    fn handle(&self) -> Option<&runtime::Handle> {
        self.0.0.as_ref().map(runtime::Runtime::handle)
    }

    /// Runs `build` where clients find the runtime.
    pub(crate) fn enter<T>(&self, build: impl FnOnce() -> T) -> T {
        let _entered = self.handle().map(runtime::Handle::enter);
        build()
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Option<JoinHandle<()>> {
        self.handle().map(|handle| handle.spawn(task))
    }

    /// Waits for an export, at most `limit`. Not for threads of a runtime.
    pub(crate) fn wait(&self, limit: Duration, export: impl Future<Output = OTelSdkResult>) -> OTelSdkResult {
        let handle = self.handle().ok_or(OTelSdkError::AlreadyShutdown)?;
        handle.block_on(async { timeout(limit, export).await.unwrap_or(Err(OTelSdkError::Timeout(limit))) })
    }
}

impl Drop for Owned {
    /// An ordinary drop waits, and panics in an async context.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
