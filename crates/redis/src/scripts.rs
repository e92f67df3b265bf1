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
    pub(crate) text: String,
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
            /// `edit` may change a text, given its name: tests let two versions run at once.
            pub(crate) fn new(edit: impl Fn(&str, &str) -> String) -> Self {
                Self { $($name: Script::new(edit(stringify!($name), text!($flags: $($part)+))),)+ }
            }
        }
    };
}

impl Script {
    fn new(text: String) -> Self {
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }
}

// A server that is out of memory refuses `insert` and `report`, and lets everything pass that brings a job on.
scripts! {
    insert = "": "head" "terms" "order" "aside" "batch" "lookup" "insert";
    get = " flags=no-writes": "head" "terms" "lookup" "get";
    versions = " flags=no-writes": "head" "terms" "aside" "versions";
    list = " flags=no-writes": "head" "terms" "aside" "list";
    logs = " flags=no-writes": "head" "terms" "lookup" "logs";
    stats = " flags=no-writes": "head" "terms" "order" "aside" "stats";
    claim = " flags=allow-oom": "head" "terms" "order" "aside" "batch" "bucket" "claim";
    renew = " flags=allow-oom": "head" "aside" "renew";
    report = "": "head" "order" "aside" "batch" "report";
    settle = " flags=allow-oom": "head" "terms" "order" "aside" "batch" "bucket" "finish" "settle";
    cancel = " flags=allow-oom": "head" "terms" "order" "aside" "batch" "lookup" "cancel";
    retry = "": "head" "terms" "order" "aside" "batch" "lookup" "retry";
    reclaim = " flags=allow-oom": "head" "terms" "order" "aside" "batch" "bucket" "finish" "reclaim";
    prune = " flags=allow-oom": "head" "terms" "order" "aside" "batch" "prune";
    role = " flags=allow-oom": "head" "aside" "role";
    put = "": "head" "aside" "put";
    probe = "": "head" "probe";
    mend = " flags=allow-oom": "head" "terms" "order" "aside" "mend";
}
