//! Scripts called over a link. Must not know what they do.

use std::sync::Arc;

use async_endpoints_core::Clock;
use redis::{Cmd, Value};

use crate::{
    args::Args,
    fail::Fail,
    link::Link,
    scripts::{Script, Scripts},
};

/// What a call needs beside its arguments.
pub(crate) struct Calls {
    pub(crate) link: Link,
    pub(crate) scripts: Arc<Scripts>,
    /// What all keys begin with.
    pub(crate) namespace: Arc<str>,
    /// A test's, in place of the server's.
    pub(crate) clock: Option<Arc<dyn Clock>>,
}

impl Calls {
    /// Calls a script; its answer.
    pub(crate) async fn call(&self, script: &Script, args: &Args) -> Result<Value, Fail> {
        match self.link.send(&self.command("EVALSHA", &script.hash, args)).await {
            // Restarted, failed over or told to forget: the text brings it back. It was not run.
            Err(Fail::Redis(error)) if error.code() == Some("NOSCRIPT") => {
                self.link.send(&self.command("EVAL", script.text, args)).await
            }
            answer => answer,
        }
    }

    fn command(&self, name: &str, script: &str, args: &Args) -> Cmd {
        let size = args.size() + script.len() + self.namespace.len() + 64;
        let mut cmd = Cmd::with_capacity(args.len() + 5, size);
        cmd.arg(name).arg(script).arg(1).arg(&*self.namespace);
        match &self.clock {
            Some(clock) => cmd.arg(clock.now().as_micros()),
            None => cmd.arg(0),
        };
        for arg in args.iter() {
            cmd.arg(arg);
        }
        cmd
    }

    /// A key of the namespace.
    pub(crate) fn key(&self, name: std::fmt::Arguments<'_>) -> String {
        format!("{}{name}", self.namespace)
    }
}
