//! One turn.

use std::collections::HashSet;
use std::time::Duration;

use crate::fake::{Ended, Fake, Play, admitted, any, broken_trailers, completed, refusal, says, soon, text};
use warmline::tonic::{Code, Status};
use warmline::v1::turn_event::Event;
use warmline::v1::{Restarted, UpstreamError};
use warmline::{Ending, ErrorKind, Retry, Turn};

/// The first piece of an answer and then nothing, until the caller leaves.
fn begins() -> Vec<Play> {
    vec![Play::Send(1, vec![admitted(), text("half")]), Play::Hang]
}

fn piece(event: &Event) -> Option<&str> {
    match event {
        Event::TextDelta(delta) => Some(&delta.delta),
        _ => None,
    }
}

/// Reads until text has come.
async fn read_to_text(turn: &mut Turn) {
    while piece(&turn.next().await.unwrap().unwrap().event.unwrap()).is_none() {}
}

#[tokio::test]
async fn a_turn_gives_its_text_then_its_result() {
    let fake = Fake::start(|_, _| vec![says([text("Hello"), text(", world")])]).await;
    let mut turn = fake.session().turn(["hello"]).send();

    let (mut pieces, mut reading) = (Vec::new(), turn.text());
    while let Some(piece) = reading.next().await {
        pieces.push(piece.unwrap());
    }
    let result = turn.result().await.unwrap();

    assert_eq!(pieces, ["Hello", ", world"]);
    assert_eq!((result.ending, result.text.as_str()), (Ending::Completed, "Hello, world"));
    assert_eq!((result.response_id.as_str(), turn.turn_id()), ("resp_1", "turn-1"));
    assert!(turn.next().await.is_none());
    assert_eq!(turn.result().await.unwrap().text, "Hello, world");
}

#[tokio::test]
async fn dropping_a_turn_cancels_it_at_the_server() {
    let mut fake = Fake::start(|_, _| begins()).await;
    let mut turn = fake.session().turn(["hello"]).send();
    read_to_text(&mut turn).await;

    drop(turn);

    assert_eq!(fake.ended().await, Ended::Cancelled);
}

#[tokio::test]
async fn dropping_a_turn_that_was_never_answered_cancels_it_too() {
    let mut fake = Fake::start(|_, _| vec![Play::Hang]).await;
    let turn = fake.session().turn(["hello"]).send();
    while fake.calls() == 0 {
        tokio::task::yield_now().await;
    }

    drop(turn);

    assert_eq!(fake.ended().await, Ended::Cancelled);
}

#[tokio::test]
async fn a_cancelled_turn_keeps_what_was_delivered() {
    let mut fake = Fake::start(|_, _| begins()).await;
    let mut turn = fake.session().turn(["hello"]).send();
    read_to_text(&mut turn).await;

    turn.cancel();

    assert_eq!(turn.result().await.unwrap_err().kind, ErrorKind::TurnCancelled);
    assert_eq!(turn.snapshot().text, "half");
    assert_eq!(fake.ended().await, Ended::Cancelled);
}

#[tokio::test]
async fn a_read_that_is_dropped_loses_nothing() {
    let (open, gate) = tokio::sync::oneshot::channel();
    let gate = std::sync::Mutex::new(Some(gate));
    let fake = Fake::start(move |_, _| {
        let gate = gate.lock().unwrap().take().unwrap();
        vec![Play::Send(1, vec![admitted()]), Play::Gate(gate), Play::Send(2, vec![text("late"), completed()])]
    })
    .await;
    let mut turn = fake.session().turn(["hello"]).send();
    turn.next().await.unwrap().unwrap();

    assert!(tokio::time::timeout(Duration::from_millis(5), turn.next()).await.is_err());
    open.send(()).unwrap();

    assert_eq!(turn.result().await.unwrap().text, "late");
}

#[tokio::test]
async fn a_deadline_ends_a_turn_and_cancels_it() {
    for plays in [begins, || vec![Play::Hang]] {
        let mut fake = Fake::start(move |_, _| plays()).await;
        let mut turn = fake.session().turn(["hello"]).timeout(Duration::from_millis(200)).send();

        let error = turn.result().await.unwrap_err();

        assert_eq!((error.kind, error.facts.code), (ErrorKind::DeadlineExceeded, Some(Code::DeadlineExceeded)));
        assert_eq!(turn.snapshot().ending, Ending::Unfinished);
        assert_eq!(fake.ended().await, Ended::Cancelled);
        assert!(fake.carried()[0].contains_key("grpc-timeout"));
    }
}

#[tokio::test]
async fn a_missing_event_is_a_gap_and_cancels_the_call() {
    let mut fake =
        Fake::start(|_, _| vec![Play::Send(1, vec![admitted()]), Play::Send(3, vec![text("late")]), Play::Hang]).await;
    let mut turn = fake.session().turn(["hello"]).send();

    assert_eq!(turn.result().await.unwrap_err().kind, ErrorKind::SequenceGap);

    assert_eq!(fake.ended().await, Ended::Cancelled);
    assert!(turn.next().await.is_none());
}

#[tokio::test]
async fn a_stream_that_ends_without_an_end_is_a_protocol_error() {
    let fake = Fake::start(|_, _| vec![Play::Send(1, vec![admitted()])]).await;

    let error = fake.session().turn(["hello"]).send().result().await.unwrap_err();

    assert_eq!((error.kind, error.facts.code), (ErrorKind::Protocol, None));
}

#[tokio::test]
async fn a_turn_succeeds_whatever_status_follows_its_end() {
    let fake = Fake::start(|_, _| vec![says([text("done")]), Play::End(Status::aborted("late"))]).await;

    assert_eq!(fake.session().turn(["hello"]).send().result().await.unwrap().text, "done");
}

#[tokio::test]
async fn a_turn_that_is_dropped_after_its_last_event_ends_by_itself() {
    let (open, gate) = tokio::sync::oneshot::channel();
    let gate = std::sync::Mutex::new(Some(gate));
    let mut fake = Fake::start(move |_, _| match gate.lock().unwrap().take() {
        Some(gate) => vec![says([]), Play::Gate(gate)],
        None => vec![says([])],
    })
    .await;
    let session = fake.session();
    let mut turn = session.turn(["hello"]).send();
    while !matches!(turn.next().await.unwrap().unwrap().event, Some(Event::Completed(_))) {}

    drop(turn);

    // A cancel would have come before this call, on the same connection.
    session.turn(["another"]).send().result().await.unwrap();
    assert_eq!(fake.ended().await, Ended::ByItself);
    open.send(()).unwrap();
    assert_eq!(fake.ended().await, Ended::ByItself);
}

#[tokio::test]
async fn a_turn_whose_end_is_not_followed_by_a_status_is_cancelled() {
    let mut fake = Fake::start(|_, _| vec![says([]), Play::Hang]).await;

    let result = fake.session().turn(["hello"]).send().result().await.unwrap();

    assert_eq!(result.ending, Ending::Completed);
    assert_eq!(fake.ended().await, Ended::Cancelled);
}

#[tokio::test]
async fn a_turn_is_sent_again_only_where_the_server_says_so() {
    for (name, refused, calls) in [
        ("with RetryInfo", refusal(Code::Unavailable, "SERVER_DRAINING", vec![soon()]), 2),
        ("without", refusal(Code::Unavailable, "TURN_DRAINED", vec![]), 1),
        ("not reached", Status::unavailable("gone"), 2),
        ("another code", Status::aborted("cut"), 1),
        ("rate limit with a delay", refusal(Code::ResourceExhausted, "UPSTREAM_RATE_LIMITED", vec![soon()]), 2),
    ] {
        let fake = Fake::start(move |call, _| match call {
            1 => vec![Play::End(refused.clone())],
            _ => vec![says([text("again")])],
        })
        .await;

        let result = fake.session().turn(["hello"]).send().result().await;

        let ids: HashSet<String> = fake.requests().into_iter().map(|request| request.request_id).collect();
        assert_eq!((fake.calls(), result.is_ok()), (calls, calls == 2), "{name}");
        assert_eq!((ids.len(), ids.contains("")), (1, false), "{name}");
    }
}

#[tokio::test]
async fn a_turn_is_not_sent_again_after_an_event() {
    let gone = || Play::End(refusal(Code::Unavailable, "UPSTREAM_FAILED", vec![soon()]));
    let fake = Fake::start(move |_, _| vec![Play::Send(1, vec![admitted()]), gone()]).await;

    let error = fake.session().turn(["hello"]).send().result().await.unwrap_err();

    assert_eq!((error.kind, fake.calls()), (ErrorKind::Unavailable, 1));
}

#[tokio::test]
async fn a_connection_that_is_lost_or_never_made_is_unavailable() {
    let fake = Fake::start(|_, _| begins()).await;
    let once = Retry { max_tries: 1, ..Retry::default() };
    let session = fake.builder().retry(once).build().unwrap().session("s1").lazy();
    let mut turn = session.turn(["hello"]).send();
    read_to_text(&mut turn).await;

    drop(fake);

    for mut turn in [turn, session.turn(["again"]).send()] {
        let error = turn.result().await.unwrap_err();
        assert_eq!((error.kind, error.facts.code), (ErrorKind::Unavailable, Some(Code::Unavailable)));
    }
}

#[tokio::test]
async fn turns_that_are_not_read_do_not_hold_up_others() {
    const TEXT: usize = 3 * 1024 * 1024;
    let fake = Fake::start(|_, request| match request.turn_id.as_str() {
        "read" => vec![says([text("read")])],
        _ => vec![says([text(&"x".repeat(TEXT))])],
    })
    .await;
    let session = fake.session();
    let mut unread: Vec<Turn> = (0..8).map(|_| session.turn(["hello"]).send()).collect();
    while fake.calls() < 8 {
        tokio::task::yield_now().await;
    }

    let result = session.turn(["hello"]).turn_id("read").timeout(Duration::from_secs(10)).send().result().await;

    assert_eq!(result.unwrap().text, "read");
    for turn in &mut unread {
        assert_eq!(turn.result().await.unwrap().text.len(), TEXT);
    }
}

#[tokio::test]
async fn text_tells_what_a_resend_took_back_and_the_turn_goes_on() {
    let restarted = || Event::Restarted(Restarted { attempt: 2, kept_item_sequences: vec![] });
    let fake = Fake::start(move |_, _| vec![says([restarted(), text("void"), restarted(), text("anew")])]).await;
    let mut turn = fake.session().turn(["hello"]).send();

    assert_eq!(turn.text().next().await.unwrap().unwrap(), "void");
    assert_eq!(turn.text().next().await.unwrap().unwrap_err().kind, ErrorKind::TextVoided);

    assert_eq!(turn.text().next().await.unwrap().unwrap(), "anew");
    assert_eq!(turn.result().await.unwrap().text, "anew");
}

#[tokio::test]
async fn an_error_has_its_kind_reason_ids_and_words() {
    let words = UpstreamError { code: "too_long".into(), message: "Zu lang.".into(), ..UpstreamError::default() };
    let words = any("warmline.v1.UpstreamError", &words);
    let refused = refusal(Code::FailedPrecondition, "CONTEXT_TOO_LONG", vec![words]);
    let fake = Fake::start(move |_, _| vec![Play::End(refused.clone())]).await;
    let mut turn = fake.session().turn(["hello"]).request_id("request-1").send();

    let error = turn.next().await.unwrap().unwrap_err();

    assert_eq!((error.kind, error.facts.reason.as_str()), (ErrorKind::ContextTooLong, "CONTEXT_TOO_LONG"));
    assert_eq!((error.facts.turn_id.as_str(), error.facts.request_id.as_str()), ("turn-9", "request-1"));
    assert_eq!(error.facts.upstream.as_ref().unwrap().message, "Zu lang.");
    assert_eq!(error.to_string(), "CONTEXT_TOO_LONG: scripted (turn turn-9)");
    assert!(turn.next().await.is_none());
    assert_eq!(turn.result().await.unwrap_err().kind, ErrorKind::ContextTooLong);
}

#[tokio::test]
async fn details_that_cannot_be_read_are_left_out() {
    let fake = Fake::start(|_, _| vec![Play::Trailers(broken_trailers(Code::Aborted))]).await;

    let error = fake.session().turn(["hello"]).send().result().await.unwrap_err();

    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::TurnInterrupted, "scripted"));
}

#[tokio::test]
async fn a_message_over_the_limit_is_a_limit() {
    let fake = Fake::start(|_, _| vec![says([text(&"x".repeat(4096))])]).await;
    let session = fake.builder().max_message_bytes(2048).build().unwrap().session("s1").lazy();

    assert_eq!(session.turn(["hello"]).send().result().await.unwrap_err().kind, ErrorKind::LimitExceeded);
    let sent = session.turn(["x".repeat(4096)]).send().result().await.unwrap_err();
    assert_eq!((sent.kind, sent.facts.code), (ErrorKind::LimitExceeded, Some(Code::ResourceExhausted)));
}
