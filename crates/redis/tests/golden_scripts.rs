//! The scripts of the first release, which later ones have to work beside: `conformance.rs` runs both at once. Until that
//! release they are those of today.

// Helpers are no tests to this lint.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use common::{open, options};

/// The version that is to be released first.
const FIRST: &str = "0.1.0";
/// Tells them from today's, so that a server holds both.
const MARK: &str = "-- As of the first release.\n";

/// All scripts as they are put together, by name.
async fn scripts() -> Vec<(String, String)> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&seen);
    let server = async_endpoints_testkit::server::RedisServer::shared();
    drop(
        open(
            &server,
            options().edit_scripts(move |name, text| {
                keep.lock().unwrap().push((name.to_owned(), text.to_owned()));
                text.to_owned()
            }),
        )
        .await,
    );
    let seen = seen.lock().unwrap();
    seen.clone()
}

/// `UPDATE_GOLDEN=1` writes them anew: only while nobody runs the first release.
#[tokio::test]
async fn until_the_first_release_its_scripts_are_those_of_today() {
    if env!("CARGO_PKG_VERSION") != FIRST {
        return;
    }
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/scripts-1");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut differ = Vec::new();
    for (name, text) in scripts().await {
        let (path, text) = (folder.join(format!("{name}.lua")), text + MARK);
        if update {
            std::fs::write(&path, text).unwrap();
        } else if std::fs::read_to_string(&path).unwrap_or_default() != text {
            differ.push(name);
        }
    }
    assert!(
        differ.is_empty(),
        "{differ:?} in tests/golden/scripts-1 are not those of src/lua. Before {FIRST} is released, write them anew with \
         UPDATE_GOLDEN=1 cargo test -p async-endpoints-redis --test golden_scripts; after it, they never change: then \
         set the package's next version"
    );
}
