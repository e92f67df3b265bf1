//! The scripts, assembled from the files in `lua/`.

/// The text of a script: its flags, the files that scripts share, and its own file.
macro_rules! text {
    ($flags:literal: $($part:literal)+) => {
        concat!("#!lua", $flags, "\n", $(include_str!(concat!("lua/", $part, ".lua")), "\n",)+)
    };
}

/// A script and its SHA-1 hash, by which a server finds it.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) name: &'static str,
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
                Self { $($name: Script::new(stringify!($name), text!($flags: $($part)+)),)+ }
            }
        }
    };
}

impl Script {
    fn new(name: &'static str, text: &'static str) -> Self {
        let hash = redis::Script::new(text).get_hash().to_owned();
        Self { name, text, hash }
    }
}

// A server without free memory refuses the scripts that store new data and runs those that bring jobs to their end.
scripts! {
    insert = "": "head" "terms" "order" "quarantine" "batch" "lookup" "insert";
    get = " flags=no-writes": "head" "terms" "lookup" "get";
    versions = " flags=no-writes": "head" "terms" "versions";
    list = " flags=no-writes": "head" "terms" "order" "list";
    logs = " flags=no-writes": "head" "terms" "lookup" "logs";
    payload = " flags=no-writes": "head" "terms" "payload";
    stats = " flags=no-writes": "head" "terms" "order" "stats";
    claim = " flags=allow-oom": "head" "terms" "order" "quarantine" "batch" "bucket" "claim";
    renew = " flags=allow-oom": "head" "renew";
    report = "": "head" "order" "quarantine" "batch" "lines" "report";
    settle = " flags=allow-oom": "head" "terms" "order" "quarantine" "batch" "bucket" "finish" "lines" "settle";
    cancel = " flags=allow-oom": "head" "terms" "order" "quarantine" "batch" "lookup" "cancel";
    retry = "": "head" "terms" "order" "quarantine" "batch" "lookup" "retry";
    reclaim = " flags=allow-oom": "head" "terms" "order" "quarantine" "batch" "bucket" "finish" "reclaim";
    prune = " flags=allow-oom": "head" "terms" "order" "quarantine" "batch" "prune";
    role = " flags=allow-oom": "head" "role";
    put = "": "head" "put";
    probe = "": "head" "probe";
    rights = " flags=allow-oom": "rights";
    repair = " flags=allow-oom": "head" "terms" "order" "quarantine" "repair";
}
