//! The table of problem responses. Responses and the OpenAPI document are made from it; a test compares `docs/http.md`.
//! Errors of jobs have a table of their own: `error::Builtin`.

use axum::http::StatusCode;

/// A kind of problem that the library answers with.
#[derive(Copy, Clone, Debug)]
pub(super) struct ProblemKind {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) title: &'static str,
    /// One line for the documentation. It is also the `detail` of a problem that has no more specific one.
    pub(super) doc: &'static str,
}

macro_rules! problems {
    ($($code:ident: $status:ident, $title:literal, $doc:literal;)*) => {
        $(pub(super) const $code: ProblemKind = ProblemKind {
            status: StatusCode::$status,
            code: stringify!($code),
            title: $title,
            doc: $doc,
        };)*

        /// All kinds, in the order of the table.
        #[cfg(test)]
        pub(super) const ALL: &[ProblemKind] = &[$($code),*];
    };
}

problems! {
    INVALID_BODY: BAD_REQUEST, "The body cannot be read",
        "The connection failed before the end of the body.";
    INVALID_DELAY: BAD_REQUEST, "The delay cannot be accepted",
        "X-Async-Delay or X-Async-Not-Before is malformed, beyond the longest delay of the endpoint, or not allowed there.";
    INVALID_IDEMPOTENCY_KEY: BAD_REQUEST, "The idempotency key is malformed",
        "Idempotency-Key must occur once and have 1 to 255 visible ASCII characters, quoted or bare.";
    INVALID_JSON: BAD_REQUEST, "The body is not JSON",
        "The body is not JSON, or its values are nested deeper than 128 levels.";
    INVALID_PATH: BAD_REQUEST, "The path cannot be read",
        "A path parameter cannot be decoded.";
    INVALID_PRIORITY: BAD_REQUEST, "The priority cannot be accepted",
        "X-Async-Priority is malformed, outside the range of the endpoint, or not allowed there.";
    INVALID_QUERY: BAD_REQUEST, "The query cannot be read",
        "A query parameter is unknown, repeated or malformed.";
    INVALID_REQUEST_ID: BAD_REQUEST, "The request id is malformed",
        "X-Async-Request-Id must occur once and be a UUID.";
    UNAUTHORIZED: UNAUTHORIZED, "A token is needed",
        "The Authorization header with the bearer token is missing or wrong.";
    CROSS_SITE_REQUEST: FORBIDDEN, "Another site's request",
        "Sec-Fetch-Site names another site. Or it is missing, the request has cookies or an Origin, and Origin does not equal Host.";
    FORBIDDEN: FORBIDDEN, "Not for this caller",
        "The access policy does not grant the level that this route needs. Without .access(…) on the builder, it refuses all.";
    REQUEST_NOT_EXPOSED: FORBIDDEN, "Requests are not shown",
        "The application does not show stored requests: Options::expose_requests is not set.";
    JOB_NOT_FOUND: NOT_FOUND, "No such job",
        "There is no job with this id.";
    REQUEST_NOT_KEPT: NOT_FOUND, "The request is not stored",
        "The job completed, and its request is not kept after that.";
    BULK_NOT_FOUND: NOT_FOUND, "No such bulk operation",
        "There is no preview or operation with this id. The last 50 ended operations are kept.";
    ROUTE_NOT_FOUND: NOT_FOUND, "No such route",
        "The library has no route with this path.";
    SILENCE_NOT_FOUND: NOT_FOUND, "No such silence",
        "There is no silence with this id, or it has ended.";
    TYPE_NOT_FOUND: NOT_FOUND, "No such job type",
        "No job type of this name is declared, has jobs or has a live worker.";
    METHOD_NOT_ALLOWED: METHOD_NOT_ALLOWED, "Method not allowed",
        "The path does not support this method. The Allow header lists the supported ones.";
    NOT_ACCEPTABLE: NOT_ACCEPTABLE, "No acceptable form",
        "The Accept header allows none of the available content types.";
    BODY_TIMEOUT: REQUEST_TIMEOUT, "The body is too slow",
        "The body did not arrive within 60 seconds.";
    BULK_NOT_STARTED: CONFLICT, "The operation was not started",
        "The id is that of a preview. POST /ops/bulk starts it.";
    JOB_ENDED: CONFLICT, "The job has ended",
        "The job has ended and can no longer be canceled.";
    JOB_NOT_ENDED: CONFLICT, "The job has not ended",
        "The job has no result yet.";
    JOB_NOT_RETRYABLE: CONFLICT, "The job cannot be run again",
        "Only a failed or canceled job can be retried.";
    TOO_MANY_BULKS: CONFLICT, "Too many bulk operations",
        "Ten bulk operations wait or run, the maximum. Stop one of them, or wait until one has ended.";
    TOO_MANY_SILENCES: CONFLICT, "Too many silences",
        "There are 100 silences, the maximum. Delete one of them first.";
    JOB_EXPIRED: GONE, "The job has expired",
        "The job ended, and its retention time has passed.";
    PREVIEW_EXPIRED: GONE, "The preview has expired",
        "20 later previews were made, and the last 20 are kept. Make a new one.";
    BODY_TOO_LARGE: PAYLOAD_TOO_LARGE, "The body is too large",
        "The body is larger than 1 MiB (1048576 bytes).";
    UNSUPPORTED_MEDIA_TYPE: UNSUPPORTED_MEDIA_TYPE, "The body must be JSON",
        "A body needs the content type application/json and no content encoding.";
    IDEMPOTENCY_CONFLICT: UNPROCESSABLE_ENTITY, "The key belongs to another request",
        "The idempotency key or the request id was used for another request.";
    INVALID_BULK: UNPROCESSABLE_ENTITY, "The bulk operation is invalid",
        "A field of the bulk operation is missing or invalid. The detail and errors name the field.";
    INVALID_LIMIT: UNPROCESSABLE_ENTITY, "The limit is invalid",
        "The limit of a job type is missing or invalid. The detail and errors name the field.";
    INVALID_PAUSE: UNPROCESSABLE_ENTITY, "The pause is invalid",
        "A field of the pause is missing or invalid. The detail and errors name the field.";
    INVALID_REQUEST: UNPROCESSABLE_ENTITY, "The body does not fit the job type",
        "The body does not fit the request type of the endpoint. The detail and errors name the field.";
    INVALID_SILENCE: UNPROCESSABLE_ENTITY, "The silence is invalid",
        "A field of the silence is missing or invalid. The detail and errors name the field.";
    INTERNAL_ERROR: INTERNAL_SERVER_ERROR, "Internal error",
        "The request could not be handled. The log of the service has the cause.";
    JOB_UNREADABLE: INTERNAL_SERVER_ERROR, "The job cannot be read",
        "The stored job cannot be read. A repeat does not help: the log of the service has the cause.";
    QUEUE_FULL: SERVICE_UNAVAILABLE, "The queue is full",
        "The queue limit of this job type is reached. Nothing was stored.";
    SHUTTING_DOWN: SERVICE_UNAVAILABLE, "Shutting down",
        "This process is shutting down. Nothing was stored.";
    STORE_UNAVAILABLE: SERVICE_UNAVAILABLE, "The job store is unavailable",
        "The job store does not answer. Repeating the request with the same Idempotency-Key is safe.";
    TOO_MANY_STREAMS: SERVICE_UNAVAILABLE, "Too many streams",
        "This process has 10 000 waiting and streaming clients, its limit. GET /jobs/{id} still answers.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Builtin;

    fn assert_in_docs(table: &str) {
        let page = include_str!("../../../../docs/http.md");
        assert!(page.contains(table), "docs/http.md must contain this table:\n\n{table}");
    }

    #[test]
    fn docs_table_lists_all_problems() {
        let rows = ALL.iter().map(|kind| format!("| {} | `{}` | {} |\n", kind.status.as_u16(), kind.code, kind.doc));
        assert_in_docs(&format!("| status | code | cause |\n|---|---|---|\n{}\n", rows.collect::<String>()));
    }

    #[test]
    fn docs_table_lists_all_job_errors() {
        let rows = Builtin::ALL.map(|error| {
            let kind = error.kind();
            let retried = if kind.retryable { "yes" } else { "no" };
            format!("| {} | `{}` | {retried} | {} |\n", kind.status, kind.code, kind.title)
        });
        assert_in_docs(&format!("| status | code | retried | title |\n|---|---|---|---|\n{}\n", rows.concat()));
    }
}
