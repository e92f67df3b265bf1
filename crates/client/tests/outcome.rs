//! Results, failures and cancellation.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

use async_endpoints_client::{Cancellation, Error, JobStatus, ReasonCode};
use support::{Order, Paper, Printed, Seen, Service, in_time, proxy};

#[tokio::test]
async fn failure_has_the_problem_of_the_job() {
    let service = Service::start(Paper::sheets(0)).await;
    let job = service.client().submit::<_, Printed>("/api/refuse", &Order { pages: 9 }).await.unwrap();
    let error = in_time(job.wait()).await.unwrap_err();
    let expected = format!("job {} (Refuse) is Failed: TOO_MANY_PAGES: 9 pages are too many.", job.id());
    assert_eq!((error.to_string(), error.code()), (expected, Some("TOO_MANY_PAGES")));
    let Error::Job(failure) = error else { panic!("{error:?}") };
    let problem = &failure.problem;
    assert_eq!((failure.id, failure.status, problem.status), (job.id(), JobStatus::Failed, 409));
    assert_eq!((problem.attempt, problem.retryable), (Some(1), Some(false)));
    assert!(matches!(job.result().await, Err(Error::Job(_))));
    service.stop().await;
}

#[tokio::test]
async fn result_is_none_until_the_end() {
    let paper = Paper::sheets(0);
    let service = Service::start(paper.clone()).await;
    let job = service.client().submit::<_, Printed>("/api/print", &Order { pages: 1 }).await.unwrap();
    assert_eq!(job.result().await.unwrap(), None);
    paper.add(1);
    in_time(job.wait()).await.unwrap();
    assert_eq!(job.result().await.unwrap(), Some(Printed { pages: 1 }));
    service.stop().await;
}

#[tokio::test]
async fn waiting_job_is_canceled_at_once() {
    let service = Service::start(Paper::sheets(0)).await;
    let job = service.client().submit::<_, ()>("/api/waiting", &()).await.unwrap();
    assert_eq!(job.cancel().await.unwrap(), Cancellation::Canceled);
    assert_eq!(job.cancel().await.unwrap(), Cancellation::AlreadyEnded);
    let Error::Job(failure) = job.wait().await.unwrap_err() else { panic!("not canceled") };
    assert_eq!(
        (failure.status, &*failure.problem.code, failure.problem.status),
        (JobStatus::Canceled, "JOB_CANCELED", 410)
    );
    service.stop().await;
}

#[tokio::test]
async fn running_job_is_asked_to_stop() {
    let service = Service::start(Paper::sheets(0)).await;
    let job = service.client().submit::<_, Printed>("/api/print", &Order { pages: 1 }).await.unwrap();
    let mut states = job.follow();
    while in_time(states.next()).await.unwrap().unwrap().status != JobStatus::InProgress {}
    assert_eq!(job.cancel().await.unwrap(), Cancellation::Requested);
    let mut last = None;
    while let Some(state) = in_time(states.next()).await {
        last = Some(state.unwrap());
    }
    let last = last.unwrap();
    assert_eq!(last.status, JobStatus::Canceled);
    assert!(last.cancel_requested_at.is_some());
    service.stop().await;
}

#[tokio::test]
async fn result_of_another_type_is_unexpected() {
    let service = Service::start(Paper::sheets(1)).await;
    let job = service.client().submit::<_, u64>("/api/print", &Order { pages: 1 }).await.unwrap();
    let error = in_time(job.wait()).await.unwrap_err();
    let text = error.to_string();
    let expected =
        format!("GET {}/jobs/{}: unexpected answer: invalid type: map, expected u64", service.url(), job.id());
    assert!(text.starts_with(&expected), "{text}");
    service.stop().await;
}

#[tokio::test]
async fn unknown_job_is_refused() {
    let service = Service::start(Paper::sheets(0)).await;
    let job = service.client().job::<()>("01a223eb-0ae5-7044-9df3-89e55d8e79bf".parse().unwrap());
    for error in [
        job.state().await.unwrap_err(),
        job.wait().await.unwrap_err(),
        job.cancel().await.unwrap_err(),
        job.follow().next().await.unwrap().unwrap_err(),
    ] {
        assert_eq!(error.code(), Some("JOB_NOT_FOUND"), "{error}");
    }
    service.stop().await;
}

#[tokio::test]
async fn wait_is_one_held_request() {
    let (paper, seen) = (Paper::sheets(0), Seen::default());
    let service = Service::behind(paper.clone(), |app| proxy::noted(app, &seen)).await;
    let job = service.client().submit::<_, Printed>("/api/print", &Order { pages: 1 }).await.unwrap();
    let (result, ()) = tokio::join!(in_time(job.wait()), async {
        while seen.all().len() < 2 {
            tokio::task::yield_now().await;
        }
        paper.add(1);
    });
    assert_eq!(result.unwrap(), Printed { pages: 1 });
    assert_eq!(seen.all()[1..], [format!("GET /jobs/{}?wait=20", job.id())]);
    service.stop().await;
}

#[tokio::test]
async fn routes_under_a_prefix_are_found() {
    let service = Service::behind(Paper::sheets(1), |app| axum::Router::new().nest("/v1", app)).await;
    let client = async_endpoints_client::Client::new(&format!("{}/v1/", service.url())).unwrap();
    let job = client.submit::<_, Printed>("/api/print", &Order { pages: 1 }).await.unwrap();
    assert_eq!(job.status_url().path(), format!("/v1/jobs/{}", job.id()));
    assert_eq!(in_time(client.job::<Printed>(job.id()).wait()).await.unwrap(), Printed { pages: 1 });
    service.stop().await;
}

#[tokio::test]
async fn job_is_explained_while_it_waits_and_after_its_end() {
    let service = Service::start(Paper::sheets(0)).await;
    let waiting = service.client().submit::<_, ()>("/api/waiting", &()).await.unwrap();
    let explanation = waiting.explain().await.unwrap();
    assert_eq!(explanation.verdict, "The job waits because no live worker runs Waiting.");
    let codes: Vec<ReasonCode> = explanation.reasons.iter().map(|reason| reason.code).collect();
    assert_eq!(codes, [ReasonCode::NoWorker, ReasonCode::Queued]);
    assert_eq!((explanation.position.map(|position| position.ahead), explanation.workers.taking), (Some(0), 0));
    assert_eq!(explanation.estimate, None);

    let refused = service.client().submit::<_, Printed>("/api/refuse", &Order { pages: 9 }).await.unwrap();
    in_time(refused.wait()).await.unwrap_err();
    let explanation = refused.explain().await.unwrap();
    assert_eq!((explanation.reasons[0].code, explanation.position), (ReasonCode::PermanentError, None));
    assert!(explanation.reasons[0].detail.contains("9 pages are too many."), "{explanation:?}");

    let unknown = service.client().job::<()>(async_endpoints_client::JobId::random());
    assert_eq!(unknown.explain().await.unwrap_err().code(), Some("JOB_NOT_FOUND"));
    service.stop().await;
}
