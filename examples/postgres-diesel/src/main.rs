//! An order and the job that ships it are created by one transaction of diesel.

use std::{env, error::Error, time::Duration};

use async_endpoints::{AsyncEndpoints, JobContext, JobError, JobId, JobType, PostgresStore};
use diesel::{
    connection::SimpleConnection,
    prelude::*,
    sql_query,
    sql_types::{Binary, Integer, Text},
};

#[derive(serde::Deserialize, serde::Serialize)]
struct Order {
    number: i32,
    item: String,
}

#[derive(QueryableByName)]
struct Inserted {
    #[diesel(sql_type = Integer)]
    number: i32,
}

const SHIP: JobType<Order, String> = JobType::new("Ship");

async fn ship(ctx: JobContext<Order>) -> Result<String, JobError> {
    let Order { number, item } = ctx.request();
    Ok(format!("shipped {item} for order {number}"))
}

/// Creates the order and its job, or neither.
fn order(client: &mut PgConnection, endpoints: &AsyncEndpoints, item: &str) -> Result<JobId, Box<dyn Error>> {
    client.transaction(|client| {
        let insert = sql_query("INSERT INTO orders (item) VALUES ($1) RETURNING number").bind::<Text, _>(item);
        let Inserted { number } = insert.get_result(client)?;
        let job = endpoints.prepare(SHIP, Order { number, item: item.to_owned() })?;
        let create = sql_query(job.sql()).bind::<Text, _>(job.head()).bind::<Binary, _>(job.payload());
        create.execute(client)?;
        if item == "moon" {
            return Err("the moon is not for sale".into()); // the transaction is rolled back
        }
        Ok(job.id())
    })
}

// diesel blocks this thread while jobs run on others.
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::args().nth(1).unwrap_or("postgres://postgres@127.0.0.1:5432/postgres".to_owned());
    let endpoints = AsyncEndpoints::builder(PostgresStore::open(&url).await?).handler(SHIP, ship).build()?;
    let worker = endpoints.clone();
    let worker = tokio::spawn(async move { worker.run().await });

    let mut client = PgConnection::establish(&url)?;
    client.batch_execute(
        "CREATE TABLE IF NOT EXISTS orders (number int GENERATED ALWAYS AS IDENTITY, item text NOT NULL)",
    )?;

    let job = order(&mut client, &endpoints, "tea")?;
    endpoints.wait(job, Duration::from_secs(10)).await?;
    println!("{}", endpoints.result::<String>(job).await?);

    let refused = order(&mut client, &endpoints, "moon");
    println!("{}", refused.err().map(|error| error.to_string()).unwrap_or_default());

    endpoints.shutdown();
    Ok(worker.await??)
}
