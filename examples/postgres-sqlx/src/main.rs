//! An order and the job that ships it are created by one transaction of sqlx.

use std::{env, error::Error, time::Duration};

use async_endpoints::{AsyncEndpoints, JobContext, JobError, JobId, JobType, PostgresStore};
use sqlx::PgPool;

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
async fn order(pool: &PgPool, endpoints: &AsyncEndpoints, item: &str) -> Result<JobId, Box<dyn Error>> {
    let mut transaction = pool.begin().await?;
    let insert = sqlx::query_scalar("INSERT INTO orders (item) VALUES ($1) RETURNING number").bind(item);
    let number = insert.fetch_one(&mut *transaction).await?;
    let job = endpoints.prepare(SHIP, Order { number, item: item.to_owned() })?;
    let create = sqlx::query(sqlx::AssertSqlSafe(job.sql())).bind(job.head()).bind(job.payload());
    create.execute(&mut *transaction).await?;
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

    let pool = PgPool::connect(&url).await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS orders (number int GENERATED ALWAYS AS IDENTITY, item text NOT NULL)")
        .execute(&pool)
        .await?;

    let job = order(&pool, &endpoints, "tea").await?;
    endpoints.wait(job, Duration::from_secs(10)).await?;
    println!("{}", endpoints.result::<String>(job).await?);

    let refused = order(&pool, &endpoints, "moon").await;
    println!("{}", refused.err().map(|error| error.to_string()).unwrap_or_default());

    endpoints.shutdown();
    Ok(worker.await??)
}
