//! What a call can fail with: one kind per thing a caller does differently, and the facts. `status.rs` makes them of
//! gRPC's statuses.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tonic::Code;

use crate::v1::UpstreamError;

/// One thing that a caller does differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Change the request; `field_violations` or `upstream` say what about it.
    InvalidRequest,
    /// What the request names does not exist.
    NotFound,
    /// No such session: create it, or send its config with the turn.
    SessionNotFound,
    /// No running call matches: it has ended.
    TurnNotFound,
    /// The id is taken.
    Conflict,
    /// The session exists with another config: use that config or another id.
    SessionConflict,
    /// A call of this request id is running or has completed: do not send it again.
    RequestIdReused,
    /// The call cannot succeed until something else has changed.
    Precondition,
    /// The session was closed meanwhile: start a new one.
    SessionClosed,
    /// The provider refuses this server's credential, permission or model: its operator must act.
    UpstreamSetup,
    /// The conversation is longer than the model takes: shorten or compact it.
    ContextTooLong,
    /// The provider's policy forbids the request.
    PolicyViolation,
    /// The server's history of the lane is not the caller's: send the whole conversation.
    History,
    /// The lane has a running call: wait for it, take another lane, or say `on_busy`.
    LaneBusy,
    /// A later call took the lane: this one is obsolete.
    TurnPreempted,
    /// The call was cut after it began; what was delivered is in [`Turn::snapshot`](crate::Turn::snapshot).
    TurnInterrupted,
    /// The provider's rate limit: wait `retry_after`.
    RateLimited,
    /// The provider's quota or plan is used up: waiting does not help.
    QuotaExhausted,
    /// A limit of the server, or of gRPC's messages; `quota_violations` names it.
    LimitExceeded,
    /// The caller read the stream too slowly.
    SlowReader,
    /// The server or the provider cannot serve now, and no output was delivered: try again later.
    Unavailable,
    /// The call took longer than it may.
    DeadlineExceeded,
    /// The call was cancelled, here or by CancelTurn.
    TurnCancelled,
    /// The contract has it and this server does not yet.
    NotImplementedByServer,
    /// The server does not know who calls: give a token or a certificate.
    Unauthenticated,
    /// The caller may not do this.
    PermissionDenied,
    /// A fault of the server; its log has the detail under the request id.
    ServerFault,
    /// The server sent what the contract does not allow.
    Protocol,
    /// Events are missing or doubled.
    SequenceGap,
    /// A resend took back text that [`Turn::text`](crate::Turn::text) had given out; the turn itself goes on.
    TextVoided,
    /// No client can be made so; nothing was sent.
    InvalidSettings,
}

impl ErrorKind {
    /// The kind of a failure: by its reason where a caller treats it otherwise than its code says, else by its code.
    pub(crate) fn of(reason: &str, code: Code) -> Self {
        Self::of_reason(reason).unwrap_or_else(|| Self::of_code(code))
    }

    fn of_reason(reason: &str) -> Option<Self> {
        Some(match reason {
            "SESSION_NOT_FOUND" => Self::SessionNotFound,
            "TURN_NOT_FOUND" => Self::TurnNotFound,
            "SESSION_CONFIG_CONFLICT" => Self::SessionConflict,
            "REQUEST_ID_REUSED" => Self::RequestIdReused,
            "SESSION_CLOSED" => Self::SessionClosed,
            "UPSTREAM_AUTH" | "UPSTREAM_PERMISSION" | "UPSTREAM_NOT_FOUND" => Self::UpstreamSetup,
            "CONTEXT_TOO_LONG" => Self::ContextTooLong,
            "POLICY_VIOLATION" => Self::PolicyViolation,
            "TRANSCRIPT_LOST" | "HISTORY_CONFLICT" => Self::History,
            "LANE_BUSY" => Self::LaneBusy,
            "TURN_PREEMPTED" => Self::TurnPreempted,
            "UPSTREAM_RATE_LIMITED" => Self::RateLimited,
            "UPSTREAM_QUOTA" => Self::QuotaExhausted,
            "SLOW_READER" => Self::SlowReader,
            "TURN_DRAINED" => Self::TurnInterrupted,
            _ => return None,
        })
    }

    fn of_code(code: Code) -> Self {
        match code {
            Code::Cancelled => Self::TurnCancelled,
            Code::InvalidArgument | Code::OutOfRange => Self::InvalidRequest,
            Code::DeadlineExceeded => Self::DeadlineExceeded,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::Conflict,
            Code::PermissionDenied => Self::PermissionDenied,
            Code::ResourceExhausted => Self::LimitExceeded,
            Code::FailedPrecondition => Self::Precondition,
            Code::Aborted => Self::TurnInterrupted,
            Code::Unimplemented => Self::NotImplementedByServer,
            Code::Unavailable => Self::Unavailable,
            Code::Unauthenticated => Self::Unauthenticated,
            // A failed call cannot have the code OK.
            Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => Self::ServerFault,
        }
    }
}

/// A field of the request that has a value which is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path of the field.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

/// A limit that was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaViolation {
    /// Name of the limit.
    pub subject: String,
    /// What it is.
    pub description: String,
}

/// What is known about a failure. Blank and `None` mean: not told.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ErrorFacts {
    /// Status of the call; `None` for a failure that the client itself found.
    pub code: Option<Code>,
    /// A name of `warmline.v1.ErrorReason` without its prefix.
    pub reason: String,
    /// The turn.
    pub turn_id: String,
    /// The call.
    pub request_id: String,
    /// The provider's response.
    pub response_id: String,
    /// The provider's id of the request.
    pub upstream_request_id: Option<String>,
    /// Attempts made upstream.
    pub attempts: Option<u32>,
    /// The same call may be sent again after this long; `None`: the server did not say so.
    pub retry_after: Option<Duration>,
    /// What is wrong with the request.
    pub field_violations: Vec<FieldViolation>,
    /// Limits that were met.
    pub quota_violations: Vec<QuotaViolation>,
    /// The provider's own words, verbatim.
    pub upstream: Option<UpstreamError>,
    /// UNAVAILABLE without ErrorInfo: the server was not reached, or the connection to it was lost.
    pub(crate) is_transport_failure: bool,
}

/// A call failed. What it displays has no words of prompts or answers; the provider's own are in `facts.upstream`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Error {
    /// What to do about it.
    pub kind: ErrorKind,
    /// What failed.
    pub message: String,
    /// What is known about it.
    pub facts: Box<ErrorFacts>,
    cause: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>, facts: ErrorFacts) -> Self {
        Self { kind, message: message.into(), facts: Box::new(facts), cause: None }
    }

    pub(crate) fn caused_by(self, cause: impl Into<crate::BoxError>) -> Self {
        Self { cause: Some(Arc::from(cause.into())), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = &self.facts;
        if facts.reason.is_empty() {
            write!(out, "{:?}: {}", self.kind, self.message)?;
        } else {
            write!(out, "{}: {}", facts.reason, self.message)?;
        }
        let ids: Vec<String> = [
            ("turn", facts.turn_id.as_str()),
            ("response", facts.response_id.as_str()),
            ("upstream request", facts.upstream_request_id.as_deref().unwrap_or_default()),
        ]
        .iter()
        .filter(|(_, id)| !id.is_empty())
        .map(|(name, id)| format!("{name} {id}"))
        .collect();
        if ids.is_empty() { Ok(()) } else { write!(out, " ({})", ids.join(", ")) }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn StdError + 'static))
    }
}
