//! The endpoints that servers of the bench offer, and the request to them.

use std::io;

use async_endpoints::JobType;
use tokio::net::TcpListener;

/// Path for jobs that a worker may run.
pub(crate) const ORDERS: &str = "/api/orders";
/// Path for jobs without a handler: they wait, for followers.
pub(crate) const WAITING: &str = "/api/waiting";
/// The request to both servers: 200 bytes, as in the other benches.
pub(crate) const ORDER: &str = concat!(
    r#"{"customer":"0197a6c0-0000-7000-8000-000000000001","items":[{"article":"A-1007","count":3},"#,
    r#"{"article":"B-2210","count":1}],"express":true,"note":"leave it at the neighbour's door, they are always in"}"#,
);

pub(crate) const RUN: JobType<Order, ()> = JobType::new("Run");
pub(crate) const WAIT: JobType<Order, ()> = JobType::new("Wait");

#[derive(serde::Deserialize)]
#[expect(dead_code, reason = "only read, as neither server does anything with it")]
pub(crate) struct Order {
    customer: String,
    items: Vec<Item>,
    express: bool,
    note: String,
}

#[derive(serde::Deserialize)]
#[expect(dead_code, reason = "only read, as neither server does anything with it")]
struct Item {
    article: String,
    count: u32,
}

/// Listens on a free port and prints the address for the bench.
pub(crate) async fn listen() -> io::Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    Ok(listener)
}
