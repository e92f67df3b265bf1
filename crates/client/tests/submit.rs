//! Submissions: one job each, also over connections that fail.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use std::time::{Duration, Instant};

use async_endpoints_client::{Client, Error, Retries, reqwest::Method};
use support::{Order, Paper, Printed, Seen, Service, in_time, proxy};

/// The idempotency keys of the submissions that were seen.
fn keys(seen: &Seen) -> Vec<String> {
    let seen = seen.all();
    let keys = seen.iter().filter_map(|line| line.split_once(" idempotency-key=").map(|(_, key)| key.to_owned()));
    keys.collect()
}

#[tokio::test]
async fn job_is_submitted_and_awaited() {
    let service = Service::start(Paper::sheets(3)).await;
    let job = service.client().submit::<_, Printed>("/api/print", &Order { pages: 3 }).await.unwrap();
    assert_eq!(job.status_url().as_str(), format!("{}/jobs/{}", service.url(), job.id()));
    assert!(!job.is_replayed());
    assert_eq!(in_time(job.wait()).await.unwrap(), Printed { pages: 3 });
    let state = service.client().job::<Printed>(job.id()).state().await.unwrap();
    assert_eq!((state.id, state.name.as_str(), state.result), (job.id(), "Print", Some(Printed { pages: 3 })));
    service.stop().await;
}

#[tokio::test]
async fn endpoint_of_another_method_without_body_is_called() {
    let service = Service::start(Paper::sheets(0)).await;
    let job = service.client().submit::<_, ()>("api/nothing", &()).method(Method::PUT).await.unwrap();
    in_time(job.wait()).await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn overloaded_service_gets_one_job() {
    let seen = Seen::default();
    let service =
        Service::behind(Paper::sheets(1), |app| proxy::noted(proxy::first_submissions(app, proxy::overload, 1), &seen))
            .await;
    let began = Instant::now();
    let job = service.client().submit::<_, Printed>("/api/print", &Order { pages: 1 }).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "Retry-After is respected");
    assert!(job.is_replayed(), "the proxy answered 503 after the service had accepted the job");
    let keys = keys(&seen);
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1]);
    assert_eq!(in_time(job.wait()).await.unwrap(), Printed { pages: 1 });
    service.stop().await;
}

#[tokio::test]
async fn lost_answers_make_no_second_job() {
    let seen = Seen::default();
    let service =
        Service::behind(Paper::sheets(1), |app| proxy::noted(proxy::first_submissions(app, proxy::lose, 2), &seen))
            .await;
    let job = service.client().submit::<_, Printed>("/api/print", &Order { pages: 1 }).await.unwrap();
    assert!(job.is_replayed());
    let keys = keys(&seen);
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == keys[0]));
    in_time(job.wait()).await.unwrap();
    let stats = service.endpoints.stats(Duration::from_secs(60)).await.unwrap();
    assert_eq!(stats.total.completed_jobs, 1);
    service.stop().await;
}

#[tokio::test]
async fn two_submissions_have_two_keys() {
    let seen = Seen::default();
    let service = Service::behind(Paper::sheets(2), |app| proxy::noted(app, &seen)).await;
    let client = service.client();
    let first = client.submit::<_, Printed>("/api/print", &Order { pages: 1 }).await.unwrap();
    let second = client.submit::<_, Printed>("/api/print", &Order { pages: 1 }).await.unwrap();
    assert_ne!(first.id(), second.id());
    assert_ne!(keys(&seen)[0], keys(&seen)[1]);
    service.stop().await;
}

#[tokio::test]
async fn key_of_the_caller_finds_the_same_job() {
    let service = Service::start(Paper::sheets(1)).await;
    let client = service.client();
    let submit = async |pages| client.submit::<_, Printed>("/api/print", &Order { pages }).idempotency_key("a").await;
    let (first, second) = (submit(1).await.unwrap(), submit(1).await.unwrap());
    assert_eq!((first.id(), first.is_replayed(), second.is_replayed()), (second.id(), false, true));
    let conflict = submit(2).await.unwrap_err();
    assert_eq!(conflict.code(), Some("IDEMPOTENCY_CONFLICT"));
    service.stop().await;
}

#[tokio::test]
async fn refusal_names_request_and_problem() {
    let service = Service::start(Paper::sheets(0)).await;
    let refused = service.client().submit::<_, Printed>("/api/print?secret=1", &"three").await.unwrap_err();
    let (url, text) = (service.url(), refused.to_string());
    let expected = format!("POST {url}/api/print: 422 INVALID_REQUEST: invalid type: string \"three\"");
    assert!(text.starts_with(&expected), "{text}");
    let Error::Refused { status, problem, retry_after, .. } = refused else { panic!("{refused:?}") };
    assert_eq!((status.as_u16(), problem.unwrap().status, retry_after), (422, 422, None));
    let missing = service.client().submit::<_, Printed>("/api/scan", &()).await.unwrap_err();
    assert_eq!(missing.to_string(), format!("POST {url}/api/scan: 404 Not Found: "));
    service.stop().await;
}

#[tokio::test]
async fn unreachable_service_is_an_error_after_the_retries() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let retries = Retries {
        first_delay: Duration::from_millis(10),
        give_up_after: Duration::from_millis(60),
        ..Retries::default()
    };
    let client = Client::builder(&format!("http://user:password@{address}")).retries(retries).build().unwrap();
    let error = in_time(client.submit::<_, ()>("/api/print", &()).into_future()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with(&format!("POST http://{address}/api/print: no answer (")), "{text}");
    assert!(text.ends_with(" requests): Connection refused (os error 111)"), "{text}");
    assert!(matches!(error, Error::Unreachable { requests: 2.., .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("password"), "{error:?}");
}

#[tokio::test]
async fn answer_of_another_service_is_unexpected() {
    let app = axum::Router::new().fallback(async || "hello");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async { axum::serve(listener, app).await });
    let client = Client::new(&url).unwrap();
    let error = client.submit::<_, ()>("/api/print", &()).await.unwrap_err();
    let expected = format!("POST {url}/api/print: unexpected answer: no job id in the header X-Async-Job-Id");
    assert_eq!(error.to_string(), expected);
    let error = client.job::<()>("01a223eb-0ae5-7044-9df3-89e55d8e79bf".parse().unwrap()).state().await.unwrap_err();
    assert!(matches!(error, Error::Unexpected { .. }), "{error:?}");
    serving.abort();
}
