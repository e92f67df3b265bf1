//! Calls scripts over a link. Knows nothing of what they do.

use std::sync::Arc;

use async_endpoints_core::Clock;
use redis::{Cmd, Value};

use crate::{
    args::Args,
    fail::Fail,
    link::Link,
    scripts::{Script, Scripts},
};

/// A link, and what each call needs besides its arguments.
pub(crate) struct Calls {
    pub(crate) link: Link,
    pub(crate) scripts: Arc<Scripts>,
    /// The beginning of all keys, `{ae}:` for example.
    pub(crate) namespace: Arc<str>,
    /// A test's clock, in place of the server's.
    pub(crate) clock: Option<Arc<dyn Clock>>,
}

impl Calls {
    /// Runs a script and decodes its answer. An answer that `decode` does not know is [`Fail::Corrupt`] with the script's
    /// name.
    pub(crate) async fn call<T>(
        &self,
        script: &Script,
        args: &Args,
        decode: impl FnOnce(Value) -> Result<T, Fail>,
    ) -> Result<T, Fail> {
        let answer = match self.link.send(&self.command("EVALSHA", &script.hash, args)).await {
            // A restart, a failover or SCRIPT FLUSH removed the script; the call had no effect.
            Err(Fail::Redis(error)) if error.code() == Some("NOSCRIPT") => {
                self.link.send(&self.command("EVAL", script.text, args)).await
            }
            answer => answer,
        };
        decode(answer?).map_err(|fail| fail.in_script(script.name))
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
