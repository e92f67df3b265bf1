//! The scripts, put together from the files in `lua/`. A server that does not know one yet is sent its text.

/// The text of a script: how Redis should treat it, what scripts share, and its own file.
macro_rules! text {
    ($flags:literal: $($part:literal)+) => {
        concat!("#!lua", $flags, "\n", $(include_str!(concat!("lua/", $part, ".lua")), "\n",)+)
    };
}

/// A script and the hash that a server knows it by.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) text: &'static str,
    pub(crate) hash: String,
}

macro_rules! scripts {
    ($($name:ident = $flags:literal: $($part:literal)+;)+) => {
        /// All scripts of a store.
        #[derive(Debug)]
        pub(crate) struct Scripts {
            $(pub(crate) $name: Script,)+
        }

        impl Scripts {
            pub(crate) fn new() -> Self {
                Self { $($name: Script::new(text!($flags: $($part)+)),)+ }
            }
        }
    };
}

impl Script {
    fn new(text: &'static str) -> Self {
        let hash = redis::Script::new(text).get_hash().to_owned();
        Self { text, hash }
    }
}

// A server that is out of memory refuses `insert` and `report`, and lets everything pass that brings a job on.
scripts! {
    insert = "": "head" "terms" "order" "quarantine" "batch" "lookup" "insert";
    get = " flags=no-writes": "head" "terms" "lookup" "get";
    versions = " flags=no-writes": "head" "terms" "quarantine" "versions";
    list = " flags=no-writes": "head" "terms" "quarantine" "list";
    logs = " flags=no-writes": "head" "terms" "lookup" "logs";
    stats = " flags=no-writes": "head" "terms" "order" "quarantine" "stats";
    claim = " flags=allow-oom": "head" "terms" "order" "quarantine" "batch" "bucket" "claim";
    renew = " flags=allow-oom": "head" "quarantine" "renew";
    report = "": "head" "order" "quarantine" "batch" "report";
    settle = " flags=allow-oom": "head" "terms" "order" "quarantine" "batch" "bucket" "finish" "settle";
    cancel = " flags=allow-oom": "head" "terms" "order" "quarantine" "batch" "lookup" "cancel";
    retry = "": "head" "terms" "order" "quarantine" "batch" "lookup" "retry";
    reclaim = " flags=allow-oom": "head" "terms" "order" "quarantine" "batch" "bucket" "finish" "reclaim";
    prune = " flags=allow-oom": "head" "terms" "order" "quarantine" "batch" "prune";
    role = " flags=allow-oom": "head" "quarantine" "role";
    put = "": "head" "quarantine" "put";
    probe = "": "head" "probe";
    repair = " flags=allow-oom": "head" "terms" "order" "quarantine" "repair";
}
