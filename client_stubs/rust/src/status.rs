//! Reads gRPC's statuses. The only place that does.

use std::error::Error as StdError;
use std::time::Duration;

use prost::Message;
use tonic::{Code, Status, TimeoutExpired};
use tonic_types::pb;

use crate::errors::{Error, ErrorFacts, ErrorKind, FieldViolation, QuotaViolation};
use crate::v1::UpstreamError;

/// Domain of the server's `google.rpc.ErrorInfo`. Source: protos/warmline/v1/errors.proto.
const DOMAIN: &str = "warmline";

/// Makes the error of a status; `known` are the caller's own facts, which the server's overrule.
pub(crate) fn error_of(status: Status, known: ErrorFacts) -> Error {
    let code = code_of(&status);
    let mut facts = ErrorFacts { code: Some(code), ..known };
    let mut has_error_info = false;
    for detail in pb::Status::decode(status.details()).unwrap_or_default().details {
        let name = detail.type_url.rsplit('/').next().unwrap_or_default();
        has_error_info |= name == "google.rpc.ErrorInfo";
        // A detail that cannot be read is left out.
        let _ = take(&mut facts, name, detail.value.as_slice());
    }
    facts.is_transport_failure = code == Code::Unavailable && !has_error_info;
    Error::new(ErrorKind::of(&facts.reason, code), status.message(), facts).caused_by(status)
}

/// The status code as other gRPC libraries have it. tonic tells UNKNOWN, INTERNAL or CANCELLED for most of what breaks
/// beneath a call, depending on its features, and OUT_OF_RANGE for a message over the limit.
fn code_of(status: &Status) -> Code {
    let code = status.code();
    let Some(cause) = status.source() else {
        let is_over_limit = status.metadata().is_empty() && status.message().contains("message length too large");
        return if code == Code::OutOfRange && is_over_limit { Code::ResourceExhausted } else { code };
    };
    if !matches!(code, Code::Unknown | Code::Internal | Code::Cancelled) {
        return code;
    }
    let mut link = Some(cause);
    while let Some(error) = link {
        if error.is::<TimeoutExpired>() {
            return Code::DeadlineExceeded;
        }
        if let Some(reset) = error.downcast_ref::<h2::Error>().filter(|error| error.is_reset()) {
            return code_of_reset(reset.reason());
        }
        link = error.source();
    }
    // No connection, or one that was lost.
    Code::Unavailable
}

/// Source: gRPC over HTTP2, errors.
fn code_of_reset(reason: Option<h2::Reason>) -> Code {
    match reason {
        Some(h2::Reason::REFUSED_STREAM) => Code::Unavailable,
        Some(h2::Reason::CANCEL) => Code::Cancelled,
        Some(h2::Reason::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
        Some(h2::Reason::INADEQUATE_SECURITY) => Code::PermissionDenied,
        _ => Code::Internal,
    }
}

fn take(facts: &mut ErrorFacts, name: &str, value: &[u8]) -> Result<(), prost::DecodeError> {
    match name {
        "google.rpc.ErrorInfo" => take_error_info(facts, pb::ErrorInfo::decode(value)?),
        "google.rpc.RetryInfo" => {
            let delay = pb::RetryInfo::decode(value)?.retry_delay.unwrap_or_default();
            // A negative one is none.
            facts.retry_after = Some(Duration::try_from(delay).unwrap_or_default());
        }
        "google.rpc.BadRequest" => {
            let violations = pb::BadRequest::decode(value)?.field_violations.into_iter();
            facts.field_violations =
                violations.map(|v| FieldViolation { field: v.field, description: v.description }).collect();
        }
        "google.rpc.QuotaFailure" => {
            let violations = pb::QuotaFailure::decode(value)?.violations.into_iter();
            facts.quota_violations =
                violations.map(|v| QuotaViolation { subject: v.subject, description: v.description }).collect();
        }
        "warmline.v1.UpstreamError" => facts.upstream = Some(UpstreamError::decode(value)?),
        _ => {}
    }
    Ok(())
}

fn take_error_info(facts: &mut ErrorFacts, mut info: pb::ErrorInfo) {
    if info.domain != DOMAIN {
        return;
    }
    facts.reason = info.reason;
    let mut told = |name: &str| info.metadata.remove(name).filter(|value| !value.is_empty());
    for (name, field) in [
        ("turn_id", &mut facts.turn_id),
        ("request_id", &mut facts.request_id),
        ("response_id", &mut facts.response_id),
    ] {
        if let Some(value) = told(name) {
            *field = value;
        }
    }
    facts.upstream_request_id = told("upstream_request_id").or(facts.upstream_request_id.take());
    facts.attempts = told("attempts").and_then(|value| value.parse().ok()).or(facts.attempts);
}

#[cfg(test)]
mod tests {
    use std::io;

    use prost::Message;
    use tonic::{Code, Status, TimeoutExpired};
    use tonic_types::pb;

    use super::error_of;
    use crate::errors::{Error, ErrorFacts, ErrorKind};

    fn read(status: Status) -> Error {
        error_of(status, ErrorFacts::default())
    }

    #[test]
    fn what_breaks_beneath_a_call_has_the_code_that_other_libraries_give_it() {
        let timeout = read(Status::from_error(Box::new(TimeoutExpired(()))));
        let lost = read(Status::from_error(Box::new(io::Error::from(io::ErrorKind::ConnectionReset))));

        assert_eq!((timeout.kind, timeout.facts.is_transport_failure), (ErrorKind::DeadlineExceeded, false));
        assert_eq!((lost.kind, lost.facts.is_transport_failure), (ErrorKind::Unavailable, true));
        assert_eq!(read(Status::cancelled("by the server")).kind, ErrorKind::TurnCancelled);
    }

    #[test]
    fn an_error_info_of_another_domain_has_no_reason_and_is_one_all_the_same() {
        let info = pb::ErrorInfo { reason: "LANE_BUSY".into(), domain: "proxy.example".into(), ..Default::default() };
        let detail = prost_types::Any {
            type_url: "type.googleapis.com/google.rpc.ErrorInfo".into(),
            value: info.encode_to_vec(),
        };
        let details = pb::Status { details: vec![detail], ..Default::default() }.encode_to_vec();

        let error = read(Status::with_details(Code::Unavailable, "", details.into()));

        assert_eq!((error.kind, error.facts.reason.as_str()), (ErrorKind::Unavailable, ""));
        assert!(!error.facts.is_transport_failure);
    }
}
