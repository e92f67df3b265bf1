//! The product on `SqliteStore`, in turns with commits of a bare connection on the same disk.

use std::{sync::Arc, time::Duration};

use async_endpoints::{core::Store, sqlite::Synchronous};
use tokio::runtime::Runtime;

use crate::{
    Effort, claim,
    folder::Folder,
    idle,
    jobs::CALLERS,
    machine::{BATCH, Machine},
    pickup,
    report::{self, Result},
    rounds::{self, StorePlace},
    space,
    sqlite_file::{open, remove},
};

pub(crate) fn run(runtime: &Runtime, effort: Effort) -> Result<()> {
    let folder = Folder::new("sqlite")?;
    runtime.block_on(async {
        let mut files = Files::new(&folder)?;
        rounds::run("SQLite", &mut files, effort.of(5, 1), effort.of(20_000, 2_000)).await?;
        files.show();
        pickup::on("over SQLite", &open(&folder.path("pickup.db"), Synchronous::Full).await?, effort.of(600, 120))
            .await?;
        claims(&folder, effort).await?;
        let file = folder.path("idle.db");
        idle::on(
            "with SQLite",
            &["sqlite", &file.to_string_lossy()],
            None,
            effort.of(idle::TIME, Duration::from_secs(2)),
        )
        .await?;
        space::run(&folder.path("space.db"), effort).await
    })
}

/// Opens one file after the other. The bare connection commits before each of them.
struct Files<'a> {
    folder: &'a Folder,
    machine: Machine,
    single: Vec<f64>,
    batched: Vec<f64>,
}

impl<'a> Files<'a> {
    fn new(folder: &'a Folder) -> Result<Self> {
        let machine = Machine::at(&folder.path("bare.db"))?;
        Ok(Self { folder, machine, single: Vec::new(), batched: Vec::new() })
    }

    fn show(&self) {
        report::rate("a bare connection, commits of 1 row (reference)", "rows/s", &self.single);
        report::rate(&format!("a bare connection, commits of {BATCH} rows (reference)"), "rows/s", &self.batched);
    }
}

impl StorePlace for Files<'_> {
    async fn fresh(&mut self) -> Result<Arc<dyn Store>> {
        self.single.push(self.machine.commits(1_000, 1)?);
        self.batched.push(self.machine.commits(200, BATCH)?);
        // A new name each time, because threads of the previous store may still write.
        let path = self.folder.path(&format!("{}.db", self.single.len()));
        let before = self.folder.path(&format!("{}.db", self.single.len() - 1));
        remove(&before);
        open(&path, Synchronous::Full).await
    }

    fn server(&self) -> Option<u32> {
        None
    }
}

async fn claims(folder: &Folder, effort: Effort) -> Result<()> {
    let (sizes, template) = (effort.of(claim::SIZES, [1_000, 10_000, 30_000]), claim::template()?);
    let file = |size: u32| folder.path(&format!("queued-{size}.db"));
    for size in sizes {
        // Filling is not measured, so commits need not wait for the disk.
        template.fill(&open(&file(size), Synchronous::Off).await?, size, CALLERS).await?;
    }
    for (what, synchronous) in
        [("in SQLite", Synchronous::Full), ("in SQLite, not waiting for the disk,", Synchronous::Off)]
    {
        let mut queues = claim::Queues::new();
        for size in sizes {
            queues.push((size, open(&file(size), synchronous).await?));
        }
        claim::on(what, &queues, effort.of(15, 3)).await?;
    }
    Ok(())
}
