use super::Progress;
use crate::errors::ErrorKind;
use crate::result::{CustomToolCall, Ending, FunctionCall, TurnResult};
use crate::v1::turn_event::Event;
use crate::v1::{
    AttemptStarted, Completed, Incomplete, Item, ItemDone, RawEvent, Restarted, Retrying, TextDelta, TurnEvent,
};

const GREETING: &str =
    r#"{"id":"m1","type":"message",  "content":[{"type":"output_text","text":"Hi"},{"type":"refusal","text":"no"}]}"#;

fn done(item: &str) -> Event {
    Event::ItemDone(ItemDone { item: Some(Item::json(item)), output_index: None })
}

fn delta(item_id: &str, text: &str) -> Event {
    Event::TextDelta(TextDelta { item_id: item_id.into(), delta: text.into(), content_index: 0 })
}

fn restarted(kept: &[u64]) -> Event {
    Event::Restarted(Restarted { attempt: 2, kept_item_sequences: kept.into() })
}

/// Folds events, each with the number of its attempt.
fn fold(events: impl IntoIterator<Item = (u32, Event)>) -> (Progress, TurnResult) {
    let mut folded = Progress::new("turn".into(), "request".into());
    for (number, (attempt, event)) in events.into_iter().enumerate() {
        let event = TurnEvent { sequence: number as u64 + 1, attempt, event: Some(event), ..TurnEvent::default() };
        assert!(folded.accept(&event).unwrap());
    }
    let result = folded.snapshot();
    (folded, result)
}

fn fold_raw(events: &[(&str, &str)]) -> TurnResult {
    let mut folded = Progress::new("turn".into(), "request".into());
    for (number, (upstream_type, payload)) in events.iter().enumerate() {
        let event = TurnEvent {
            sequence: number as u64 + 1,
            attempt: 1,
            upstream_type: upstream_type.to_string(),
            payload_json: Some(payload.as_bytes().into()),
            event: Some(Event::Raw(RawEvent {})),
        };
        assert!(folded.accept(&event).unwrap());
    }
    folded.snapshot()
}

fn texts(result: &TurnResult) -> Vec<&[u8]> {
    result.items.iter().map(|item| item.as_json().unwrap()).collect()
}

#[test]
fn a_finished_message_takes_the_place_of_its_pieces() {
    let (_, result) = fold([(1, delta("m1", "H")), (1, delta("m2", "later")), (1, done(GREETING))]);

    assert_eq!(result.text, "Hilater");
    assert_eq!(texts(&result), [GREETING.as_bytes()]);
}

#[test]
fn a_message_takes_the_place_of_pieces_of_no_known_item() {
    assert_eq!(fold([(1, delta("", "H")), (1, done(GREETING))]).1.text, "Hi");
}

#[test]
fn raw_events_make_the_same_result() {
    let result = fold_raw(&[
        ("response.created", r#"{"response":{"id":"resp_1"}}"#),
        ("response.output_text.delta", r#"{"item_id":"m1","delta":"H"}"#),
        ("response.output_item.done", &format!(r#"{{"item":{GREETING}}}"#)),
        ("response.output_text.delta", r#"{"item_id":"m3","delta":"!"}"#),
        ("response.output_text.delta", "not JSON"),
        ("response.output_item.done", r#"{"item":{"type":"function_call","call_id":"c","name":"n","arguments":"{}"}}"#),
        ("response.output_item.done", r#"{"item":{"type":"custom_tool_call","call_id":"c","name":7,"input":"i"}}"#),
    ]);

    assert_eq!((result.text.as_str(), result.response_id.as_str()), ("Hi!", "resp_1"));
    assert_eq!(texts(&result)[0], GREETING.as_bytes());
    let (call_id, name) = ("c".to_string(), "n".to_string());
    assert_eq!(result.function_calls, [FunctionCall { call_id: call_id.clone(), name, arguments: "{}".into() }]);
    assert_eq!(result.custom_tool_calls, [CustomToolCall { call_id, name: String::new(), input: "i".into() }]);
}

#[test]
fn a_restart_keeps_the_named_items_and_those_of_its_own_attempt() {
    let reasoning = r#"{"type":"reasoning","id":"r"}"#;
    let (folded, result) =
        fold([(1, done(reasoning)), (1, done(GREETING)), (2, done("{}")), (2, restarted(&[1])), (2, done(GREETING))]);

    assert_eq!(texts(&result), [reasoning.as_bytes(), b"{}", GREETING.as_bytes()]);
    assert_eq!(result.text, "Hi");
    assert!(folded.has_voided_text, "the first message's text is void");
}

#[test]
fn a_restart_voids_text_only_where_there_was_some() {
    assert!(!fold([(1, done(r#"{"type":"reasoning"}"#)), (2, restarted(&[]))]).0.has_voided_text);
    let (streamed, result) = fold([(1, delta("m", "void")), (2, restarted(&[]))]);
    assert!(streamed.has_voided_text);
    assert_eq!(result.text, "");
}

#[test]
fn a_new_attempt_has_no_ids_yet() {
    let retrying =
        Retrying { response_id: "resp_1".into(), upstream_request_id: Some("req_1".into()), ..Retrying::default() };
    let (failed, _) = fold([(1, Event::Retrying(retrying.clone()))]);
    assert_eq!(failed.known.upstream_request_id.as_deref(), Some("req_1"));

    let (_, result) = fold([(1, Event::Retrying(retrying)), (2, Event::AttemptStarted(AttemptStarted::default()))]);

    assert_eq!((result.response_id.as_str(), result.upstream_request_id, result.attempts), ("", None, 2));
}

#[test]
fn the_last_event_tells_the_end() {
    let completed =
        Completed { response_id: "r".into(), end_turn: Some(false), history_position: 4, ..Completed::default() };
    let (folded, result) = fold([(1, Event::Completed(completed))]);
    assert!(folded.is_over());
    assert_eq!((result.ending, result.end_turn, result.history_position), (Ending::Completed, Some(false), Some(4)));

    let incomplete = Incomplete { reason: "max_output_tokens".into(), ..Incomplete::default() };
    let (_, result) = fold([(1, delta("m", "half")), (1, Event::Incomplete(incomplete))]);
    assert_eq!((result.ending, result.text.as_str()), (Ending::Incomplete, "half"));
    assert_eq!(result.incomplete_reason.as_deref(), Some("max_output_tokens"));
}

#[test]
fn a_doubled_event_is_a_gap_and_changes_nothing() {
    let (mut folded, before) = fold([(1, delta("m", "once"))]);
    let doubled = TurnEvent { sequence: 1, attempt: 1, event: Some(delta("m", "twice")), ..TurnEvent::default() };

    let error = folded.accept(&doubled).unwrap_err();

    assert_eq!((error.kind, error.facts.request_id.as_str()), (ErrorKind::SequenceGap, "request"));
    assert_eq!(folded.snapshot().text, before.text);
}

#[test]
fn an_unknown_member_is_counted_and_not_shown() {
    let mut folded = Progress::new("turn".into(), "request".into());

    assert!(!folded.accept(&TurnEvent { sequence: 1, ..TurnEvent::default() }).unwrap());

    assert_eq!(folded.snapshot().unknown_events, 1);
}

#[test]
fn values_of_a_newer_server_are_counted_and_stay_numbers() {
    let started = AttemptStarted { transport: 77, slot_outcome: 99, full_reason: 1, ..AttemptStarted::default() };
    let mut folded = Progress::new("turn".into(), "request".into());

    folded
        .accept(&TurnEvent { sequence: 1, event: Some(Event::AttemptStarted(started)), ..TurnEvent::default() })
        .unwrap();

    assert_eq!((folded.snapshot().unknown_values, folded.snapshot().attempt.transport), (2, 77));
}
