//! The objects of client_stubs/scenarios/README.md, and their comparison.

use serde_json::{Map, Value, json};
use warmline::tonic::Code;
use warmline::v1::turn_event::Event;
use warmline::v1::{FullReason, SlotOutcome, Transport, TurnEvent, Usage};
use warmline::{Ending, Error, Item};

use crate::fields::Failure;
use crate::steps::Played;

/// The name of the event's oneof member.
pub fn member_name(event: &TurnEvent) -> &'static str {
    match &event.event {
        Some(Event::Admitted(_)) => "admitted",
        Some(Event::AttemptStarted(_)) => "attempt_started",
        Some(Event::Retrying(_)) => "retrying",
        Some(Event::FellBack(_)) => "fell_back",
        Some(Event::Restarted(_)) => "restarted",
        Some(Event::Created(_)) => "created",
        Some(Event::ItemAdded(_)) => "item_added",
        Some(Event::ItemDone(_)) => "item_done",
        Some(Event::TextDelta(_)) => "text_delta",
        Some(Event::ReasoningDelta(_)) => "reasoning_delta",
        Some(Event::ReasoningSummaryDelta(_)) => "reasoning_summary_delta",
        Some(Event::ReasoningSummaryPartAdded(_)) => "reasoning_summary_part_added",
        Some(Event::ToolInputDelta(_)) => "tool_input_delta",
        Some(Event::RateLimits(_)) => "rate_limits",
        Some(Event::ServerModel(_)) => "server_model",
        Some(Event::ModelsEtag(_)) => "models_etag",
        Some(Event::ReasoningIncluded(_)) => "reasoning_included",
        Some(Event::Completed(_)) => "completed",
        Some(Event::Incomplete(_)) => "incomplete",
        Some(Event::Raw(_)) => "raw",
        None => "",
    }
}

/// A turn's outcome so far as the result object.
pub fn result_object(played: &Played) -> Value {
    let result = played.snapshot();
    let item_text = |item: &Item| String::from_utf8_lossy(item.as_json().unwrap_or_default()).into_owned();
    let attempt = &result.attempt;
    let transport = Transport::try_from(attempt.transport).map(|value| value.as_str_name());
    let slot_outcome = SlotOutcome::try_from(attempt.slot_outcome).map(|value| value.as_str_name());
    let full_reason = FullReason::try_from(attempt.full_reason).map(|value| value.as_str_name());
    json!({
        "ending": match result.ending {
            Ending::Completed => "completed",
            Ending::Incomplete => "incomplete",
            Ending::Unfinished => "unfinished",
        },
        "text": result.text,
        "text_bytes": result.text.len(),
        "items": result.items.iter().map(item_text).collect::<Vec<_>>(),
        "function_calls": result.function_calls.iter().map(|call| {
            json!({"call_id": call.call_id, "name": call.name, "arguments": call.arguments})
        }).collect::<Vec<_>>(),
        "custom_tool_calls": result.custom_tool_calls.iter().map(|call| {
            json!({"call_id": call.call_id, "name": call.name, "input": call.input})
        }).collect::<Vec<_>>(),
        "turn_id": result.turn_id,
        "request_id": result.request_id,
        "conversation_id": result.conversation_id,
        "response_id": result.response_id,
        "upstream_request_id": result.upstream_request_id,
        "usage": result.usage.as_ref().map(usage_object),
        "end_turn": result.end_turn,
        "incomplete_reason": result.incomplete_reason,
        "history_position": result.history_position,
        "attempts": result.attempts,
        "slot_outcome": enum_name(slot_outcome.ok(), attempt.slot_outcome, "SLOT_OUTCOME_"),
        "transport": enum_name(transport.ok(), attempt.transport, "TRANSPORT_"),
        "connection_id": attempt.connection_id,
        "incremental": attempt.incremental,
        "full_reason": enum_name(full_reason.ok(), attempt.full_reason, "FULL_REASON_"),
        "fell_back": result.fell_back,
        "server_model": result.server_model,
        "unknown_events": result.unknown_events,
        "unknown_values": result.unknown_values,
        "events": played.events,
        "payloads": played.payloads,
    })
}

fn usage_object(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.input_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_output_tokens": usage.reasoning_output_tokens,
        "total_tokens": usage.total_tokens,
    })
}

/// A value's name without its prefix, blank for UNSPECIFIED, the number when a newer server made it.
fn enum_name(known: Option<&str>, value: i32, prefix: &str) -> String {
    match known {
        _ if value == 0 => String::new(),
        Some(name) => name.trim_start_matches(prefix).to_string(),
        None => value.to_string(),
    }
}

/// An error as the error object.
pub fn error_object(error: &Error) -> Value {
    let facts = &error.facts;
    json!({
        "kind": format!("{:?}", error.kind),
        "code": facts.code.map(code_name),
        "reason": facts.reason,
        "turn_id": facts.turn_id,
        "request_id": facts.request_id,
        "response_id": facts.response_id,
        "upstream_request_id": facts.upstream_request_id,
        "attempts": facts.attempts,
        "retry_after_s": facts.retry_after.map(|after| after.as_secs_f64()),
        "fields": facts.field_violations.iter().map(|violation| &violation.field).collect::<Vec<_>>(),
        "quotas": facts.quota_violations.iter().map(|violation| &violation.subject).collect::<Vec<_>>(),
        "upstream": facts.upstream.as_ref().map(|words| json!({
            "status": words.status,
            "code": words.code,
            "type": words.r#type,
            "param": words.param,
            "message": words.message,
        })),
    })
}

/// The status code's name in the contract: `DeadlineExceeded` is DEADLINE_EXCEEDED.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// Says where what was found is not as expected.
pub fn compare(found: &Value, expected: &Value, path: &str) -> Result<(), Failure> {
    let is_as_expected = match expected {
        Value::Object(fields) => match (fields.get("$any"), fields.get("$present")) {
            (Some(Value::Array(values)), _) => values.iter().any(|value| is_equal(found, value)),
            (_, Some(Value::Bool(present))) => is_present(found) == *present,
            _ => return compare_objects(found, fields, path),
        },
        Value::Array(values) => match found {
            Value::Array(items) if items.len() == values.len() => {
                let mut pairs = items.iter().zip(values).enumerate();
                return pairs.try_for_each(|(at, (item, value))| compare(item, value, &format!("{path}[{at}]")));
            }
            _ => false,
        },
        _ => is_equal(found, expected),
    };
    if is_as_expected { Ok(()) } else { Err(Failure::Step(format!("{path}: found {found}, expected {expected}"))) }
}

fn compare_objects(found: &Value, expected: &Map<String, Value>, path: &str) -> Result<(), Failure> {
    let Value::Object(members) = found else {
        return Err(Failure::Step(format!("{path}: found {found}, expected an object")));
    };
    expected.iter().try_for_each(|(name, value)| {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        compare(members.get(name).unwrap_or(&Value::Null), value, &path)
    })
}

/// Numbers by value: 90 is 90.0.
fn is_equal(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        _ => found == expected,
    }
}

fn is_present(found: &Value) -> bool {
    match found {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(value) => value.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}
