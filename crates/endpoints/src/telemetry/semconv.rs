//! Attribute keys of spans: OpenTelemetry's semantic conventions 1.44, and the library's own keys.

pub(super) const CLIENT_ADDRESS: &str = "client.address";
pub(super) const DB_OPERATION: &str = "db.operation.name";
pub(super) const DB_SYSTEM: &str = "db.system.name";
pub(super) const ERROR_TYPE: &str = "error.type";
pub(super) const HTTP_METHOD: &str = "http.request.method";
pub(super) const HTTP_METHOD_ORIGINAL: &str = "http.request.method_original";
pub(super) const HTTP_ROUTE: &str = "http.route";
pub(super) const HTTP_STATUS: &str = "http.response.status_code";
pub(super) const MESSAGE_COUNT: &str = "messaging.batch.message_count";
pub(super) const CONVERSATION_ID: &str = "messaging.message.conversation_id";
pub(super) const DESTINATION: &str = "messaging.destination.name";
pub(super) const MESSAGE_ID: &str = "messaging.message.id";
pub(super) const MESSAGING_OPERATION: &str = "messaging.operation.name";
pub(super) const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
pub(super) const MESSAGING_SYSTEM: &str = "messaging.system";
pub(super) const PROTOCOL_VERSION: &str = "network.protocol.version";
pub(super) const SERVER_ADDRESS: &str = "server.address";
pub(super) const SERVER_PORT: &str = "server.port";
pub(super) const URL_PATH: &str = "url.path";
pub(super) const URL_SCHEME: &str = "url.scheme";
pub(super) const USER_AGENT: &str = "user_agent.original";

/// Value of [`MESSAGING_SYSTEM`].
pub(super) const SYSTEM: &str = "asyncendpoints";

/// The attempt's number, from 1.
pub(super) const ATTEMPT: &str = "async_job.attempt";
/// Whether a submission was answered with the job of an earlier one.
pub(super) const DUPLICATE: &str = "async_job.duplicate";
/// The number of attempts after which a failure is final. Released and lost attempts do not count.
pub(super) const MAX_ATTEMPTS: &str = "async_job.max_attempts";
/// The attempt's outcome, as in the metric `async_job.attempts`.
pub(super) const OUTCOME: &str = "async_job.outcome";
/// Seconds from when the job became runnable to the attempt's start.
pub(super) const QUEUE_TIME: &str = "async_job.queue_time";
/// The job's state after the attempt.
pub(super) const STATUS: &str = "async_job.status";
