//! Pages and forms of the dashboard, as a browser loads and sends them.

use async_endpoints::{Access, AsyncEndpoints, Builder};
use reqwest::{Response, StatusCode};

use super::{Service, TestStore};

/// Starts a service with the dashboard.
pub async fn start(access: Access, declare: impl FnOnce(Builder) -> Builder) -> Service {
    let store = super::store();
    let endpoints = declare(super::builder(&store).access(access)).build().unwrap();
    serve(store, endpoints).await
}

pub async fn serve(store: TestStore, endpoints: AsyncEndpoints) -> Service {
    let app = super::routes(&endpoints).merge(endpoints.dashboard_routes());
    Service::serve_app(store, endpoints, app).await
}

pub async fn get(service: &Service, path: &str) -> Response {
    service.client.get(service.url(path)).send().await.unwrap()
}

pub async fn page(service: &Service, path: &str) -> String {
    text(get(service, path).await, StatusCode::OK).await
}

pub async fn text(response: Response, expected: StatusCode) -> String {
    let (status, text) = (response.status(), response.text().await.unwrap());
    assert_eq!(status, expected, "{text}");
    text
}

/// Sends a form and follows the redirect.
pub async fn post(service: &Service, path: &str, form: &[(&str, &str)]) -> Response {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let request = service.client.post(service.url(path)).body(body);
    request.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap()
}
