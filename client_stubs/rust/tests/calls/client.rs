//! What a connection is, and what its calls carry.

use std::error::Error as _;

use crate::fake::{Fake, says, text};
use http::HeaderMap;
use warmline::v1::GetSessionRequest;
use warmline::{Client, Error, ErrorKind};

fn header<'a>(carried: &'a HeaderMap, name: &str) -> Option<&'a str> {
    carried.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_token_goes_in_plain_text_to_this_machine_only() {
    for (target, allowed) in [
        ("127.0.0.1:1", true),
        ("127.9.9.9:1", true),
        ("localhost:1", true),
        ("[::1]:1", true),
        ("unix:/tmp/s", true),
        ("10.0.0.1:1", false),
        ("warmline.example:1", false),
        ("localhost.example:1", false),
        ("127.0.0.1.example:1", false),
        ("localhost@warmline.example:1", false),
    ] {
        let built = Client::builder(target).token("secret").build();
        assert_eq!(built.as_ref().err().map(|e| e.kind), (!allowed).then_some(ErrorKind::InvalidSettings), "{target}");
        assert!(Client::builder(target).token("secret").allow_plaintext_token().build().is_ok(), "{target}");
    }
}

#[tokio::test]
async fn every_call_carries_token_session_and_agent() {
    let fake = Fake::start(|_, _| vec![says([])]).await;
    let client = fake.builder().token(" secret\n").build().unwrap();

    let session = client.session("s1").open().await.unwrap();
    session.turn(["hello"]).send().result().await.unwrap();
    session.get().await.unwrap();
    client.sessions().get_session(GetSessionRequest::default()).await.unwrap();

    let carried = fake.carried();
    let sessions: Vec<_> = carried.iter().map(|carried| header(carried, "x-warmline-session")).collect();
    assert_eq!(sessions, [Some("s1"), Some("s1"), Some("s1"), None]);
    for carried in &carried {
        assert_eq!(header(carried, "authorization"), Some("Bearer secret"));
        assert!(header(carried, "user-agent").unwrap().starts_with("warmline-rust/"));
        assert_eq!(header(carried, "traceparent"), None);
    }
    assert!(!format!("{session:?}").contains("secret"));
}

#[tokio::test]
async fn an_id_that_no_header_may_carry_is_left_to_the_server_to_refuse() {
    let fake = Fake::start(|_, _| vec![says([])]).await;

    fake.client().session("not allowed").lazy().turn(["hello"]).send().result().await.unwrap();

    assert_eq!(header(&fake.carried()[0], "x-warmline-session"), None);
    assert_eq!(fake.requests()[0].session_id, "not allowed");
}

#[tokio::test]
async fn a_token_that_cannot_be_had_or_sent_fails_the_call_without_the_token() {
    let fake = Fake::start(|_, _| vec![says([])]).await;
    for (given, expected) in [
        (Err("vault is sealed"), "get token: vault is sealed"),
        (Ok("sec\nret"), "send token: it has characters that a header cannot carry"),
    ] {
        let source = move || std::future::ready(given.map(String::from));
        let client = fake.builder().token_source(source).build().unwrap();

        let opened = client.session("s1").open().await.unwrap_err();
        let turned = client.session("s1").lazy().turn(["hello"]).send().result().await.unwrap_err();

        for error in [opened, turned] {
            assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Unauthenticated, expected));
            assert!(error.source().is_some());
        }
    }
    assert_eq!(fake.carried().len(), 0);
}

#[tokio::test]
async fn a_session_and_its_turns_may_live_in_any_task() {
    let fake = Fake::start(|_, _| vec![says([text("hi")])]).await;
    let builder = fake.client().session("s1");

    let first = tokio::spawn(async move {
        let session = builder.open().await?;
        let mut turn = session.turn(["hello"]).send();
        let piece = turn.text().next().await.unwrap()?;
        tokio::spawn(async move { turn.result().await }).await.unwrap()?;
        session.close().await?;
        Ok::<_, Error>(piece)
    });

    assert_eq!(first.await.unwrap().unwrap(), "hi");
}

#[tokio::test]
async fn a_config_goes_with_each_turn_of_a_session_that_is_not_anothers() {
    let fake = Fake::start(|_, _| vec![says([text("hi")])]).await;
    let client = fake.client();
    let made = client.session("made").model("m").tools([r#"{"type":"function"}"#]).lazy();

    for session in [made.clone(), made, client.attach("other")] {
        session.turn(["hello"]).reasoning_effort("low").send().result().await.unwrap();
    }

    for request in fake.requests() {
        let config = request.session_config.as_ref();
        assert_eq!(config.is_some(), request.session_id == "made");
        if let Some(defaults) = config.and_then(|config| config.request_defaults.as_ref()) {
            assert_eq!((defaults.model(), defaults.tools.as_ref().unwrap().tools_json.len()), ("m", 1));
        }
        assert_eq!(request.options.unwrap().reasoning.unwrap().effort(), "low");
    }
}

#[cfg(feature = "opentelemetry")]
#[tokio::test]
async fn the_span_that_is_current_where_a_call_is_made_goes_with_it() {
    use opentelemetry::Context;
    use opentelemetry::trace::{FutureExt, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};

    const EXPECTED: &str = "00-00000000000000000000000000000001-0000000000000002-01";
    let fake = Fake::start(|_, _| vec![says([])]).await;
    let state = TraceState::from_key_value([("vendor", "x")]).unwrap();
    let (trace_id, span_id) = (TraceId::from(1_u128), SpanId::from(2_u64));
    let span = SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, false, state);
    let context = Context::new().with_remote_span_context(span);

    let session = fake.client().session("s1").open().with_context(context.clone()).await.unwrap();
    let mut turn = {
        let _current = context.attach();
        session.turn(["hello"]).send()
    };
    turn.result().await.unwrap();

    for carried in fake.carried() {
        assert_eq!(header(&carried, "traceparent"), Some(EXPECTED));
        assert_eq!(header(&carried, "tracestate"), Some("vendor=x"));
    }
}
