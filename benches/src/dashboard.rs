//! The operator routes and the dashboard: times with few and many jobs, cost of open pages, time until a change is seen,
//! probes beside busy pages, and bulk operations.

use tokio::runtime::Runtime;

use crate::{Effort, bulk, lists, open_pages, operated::Place, probes, report::Result, seen};

/// The parts, in the order in which they run.
const PARTS: [&str; 5] = ["lists", "open-pages", "seen", "probes", "bulk"];

/// Runs the parts on the stores that `only` names: all of them, if it names none.
pub(crate) fn run(runtime: &Runtime, effort: Effort, only: &[&str]) -> Result<()> {
    let known = |word: &&&str| PARTS.contains(word) || Place::ALL.contains(word);
    if let Some(unknown) = only.iter().find(|word| !known(word)) {
        return Err(format!("unknown part or store {unknown:?}: expected {PARTS:?} or {:?}", Place::ALL).into());
    }
    let wanted = |all: &[&'static str]| -> Vec<&'static str> {
        let named: Vec<_> = all.iter().copied().filter(|name| only.contains(name)).collect();
        if named.is_empty() { all.to_vec() } else { named }
    };
    for part in wanted(&PARTS) {
        for store in wanted(&Place::ALL) {
            let place = Place::new(store)?;
            runtime.block_on(async {
                match part {
                    "lists" => lists::run(&place, effort).await,
                    "open-pages" => open_pages::run(&place, effort).await,
                    "seen" => seen::run(&place, effort).await,
                    "probes" => probes::run(&place, effort).await,
                    _ => bulk::run(&place, effort).await,
                }
            })?;
        }
    }
    Ok(())
}
