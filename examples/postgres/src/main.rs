//! An order and the job that ships it are created by one transaction of tokio-postgres.

use std::{env, error::Error, time::Duration};

use async_endpoints::{AsyncEndpoints, JobContext, JobError, JobId, JobType, PostgresStore};
use tokio_postgres::{Client, NoTls};

#[derive(serde::Deserialize, serde::Serialize)]
struct Order {
    number: i32,
    item: String,
}

const SHIP: JobType<Order, String> = JobType::new("Ship");

async fn ship(ctx: JobContext<Order>) -> Result<String, JobError> {
    let Order { number, item } = ctx.request();
    Ok(format!("shipped {item} for order {number}"))
}

/// Creates the order and its job, or neither.
async fn order(client: &mut Client, endpoints: &AsyncEndpoints, item: &str) -> Result<JobId, Box<dyn Error>> {
    let transaction = client.transaction().await?;
    let row = transaction.query_one("INSERT INTO orders (item) VALUES ($1) RETURNING number", &[&item]).await?;
    let job = endpoints.prepare(SHIP, Order { number: row.get(0), item: item.to_owned() })?;
    job.enqueue(&transaction).await?;
    if item == "moon" {
        return Err("the moon is not for sale".into()); // the transaction is rolled back
    }
    transaction.commit().await?;
    Ok(job.id())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::args().nth(1).unwrap_or("postgres://postgres@127.0.0.1:5432/postgres".to_owned());
    let endpoints = AsyncEndpoints::builder(PostgresStore::open(&url).await?).handler(SHIP, ship).build()?;
    let worker = endpoints.clone();
    let worker = tokio::spawn(async move { worker.run().await });

    let (mut client, connection) = tokio_postgres::connect(&url, NoTls).await?;
    tokio::spawn(connection);
    client
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS orders (number int GENERATED ALWAYS AS IDENTITY, item text NOT NULL)",
        )
        .await?;

    let job = order(&mut client, &endpoints, "tea").await?;
    endpoints.wait(job, Duration::from_secs(10)).await?;
    println!("{}", endpoints.result::<String>(job).await?);

    let refused = order(&mut client, &endpoints, "moon").await;
    println!("{}", refused.err().map(|error| error.to_string()).unwrap_or_default());

    endpoints.shutdown();
    Ok(worker.await??)
}
