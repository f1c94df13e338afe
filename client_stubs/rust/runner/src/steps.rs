//! The steps of a scenario, one method for each verb.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use warmline::v1::{
    BusyMode, EventMode, FallbackPolicy, RetryMode, RetryPolicy, SessionConfig, SessionLimits, WarmUpMode,
};
use warmline::{Client, Error, Item, Session, Turn, TurnResult};

use crate::fields::{Failure, Fields, step};
use crate::objects::{compare, error_object, member_name, result_object};

/// A turn that was sent, and what its caller was given.
pub struct Played {
    /// `None`: it was left.
    turn: Option<Turn>,
    /// What it had brought when it was left.
    left: TurnResult,
    sent: Vec<Item>,
    pub events: BTreeMap<&'static str, u64>,
    pub payloads: u64,
}

impl Played {
    pub fn snapshot(&self) -> TurnResult {
        self.turn.as_ref().map_or_else(|| self.left.clone(), Turn::snapshot)
    }

    /// Reads to the n-th event of that name, or to the end where it is blank.
    async fn read(&mut self, event: &str, count: u64) -> Result<(), Failure> {
        let turn = self.turn.as_mut().ok_or_else(|| step("the turn was left"))?;
        let mut missing = count;
        while let Some(found) = turn.next().await {
            let found = found?;
            let name = member_name(&found);
            *self.events.entry(name).or_default() += 1;
            self.payloads += u64::from(found.payload_json.is_some());
            if name == event {
                missing -= 1;
                if missing == 0 {
                    return Ok(());
                }
            }
        }
        if !event.is_empty() {
            return Err(step(format!("the turn ended before {event}; there were {:?}", self.events)));
        }
        // Tells the error again, if the turn ended by one.
        turn.result().await.map(drop).map_err(Failure::from)
    }

    fn leave(&mut self) {
        self.left = self.snapshot();
        self.turn = None;
    }
}

/// Writes the options that sessions and turns have into a builder.
macro_rules! with_options {
    ($builder:ident, $fields:ident) => {{
        let mut builder = $builder;
        if let Some(model) = $fields.take::<String>("model")? {
            builder = builder.model(model);
        }
        if let Some(text) = $fields.take::<String>("instructions")? {
            builder = builder.instructions(text);
        }
        if let Some(tools) = $fields.take::<Vec<Value>>("tools")? {
            builder = builder.tools(tools.iter().map(Value::to_string));
        }
        if let Some(allowed) = $fields.take("parallel_tool_calls")? {
            builder = builder.parallel_tool_calls(allowed);
        }
        if let Some(effort) = $fields.take::<String>("reasoning_effort")? {
            builder = builder.reasoning_effort(effort);
        }
        if let Some(summary) = $fields.take::<String>("reasoning_summary")? {
            builder = builder.reasoning_summary(summary);
        }
        if let Some(tokens) = $fields.take("max_output_tokens")? {
            builder = builder.max_output_tokens(tokens);
        }
        builder
    }};
}

pub struct Runner {
    client: Client,
    control: String,
    sessions: BTreeMap<String, Session>,
    /// Sessions to close at the end.
    leave: Vec<String>,
    turns: BTreeMap<String, Played>,
}

impl Runner {
    pub fn new(client: Client, control: &str) -> Self {
        let control = control.trim_start_matches("http://").to_string();
        Self { client, control, sessions: BTreeMap::new(), leave: Vec::new(), turns: BTreeMap::new() }
    }

    pub async fn play(&mut self, steps: Vec<Map<String, Value>>) -> Result<(), Failure> {
        for (number, fields) in steps.into_iter().enumerate() {
            for (verb, fields) in fields {
                let played = self.step(&verb, fields).await;
                played.map_err(|failure| step(format!("step {} {verb}: {failure}", number + 1)))?;
            }
        }
        Ok(())
    }

    /// The result objects of all turns.
    pub fn results(&self) -> Map<String, Value> {
        self.turns.iter().map(|(name, played)| (name.clone(), result_object(played))).collect()
    }

    /// Leaves every turn that is still open, and closes the sessions that are to be closed.
    pub async fn close(mut self) {
        self.turns.clear();
        for id in self.leave {
            let _ = self.sessions[&id].close().await;
        }
    }

    async fn step(&mut self, verb: &str, fields: Value) -> Result<(), Failure> {
        let mut fields = match fields {
            Value::Object(fields) => Fields::new(fields),
            path => Fields::new(Map::from_iter([("path".to_string(), path)])),
        };
        match verb {
            "session" => self.session(fields).await,
            "turn" => self.turn(fields),
            "read_until" => {
                let (event, count): (String, _) = (fields.need("event")?, fields.take("count")?.unwrap_or(1));
                let played = self.played(&mut fields)?;
                fields.finish()?;
                played.read(&event, count).await
            }
            "expect_result" => {
                let played = self.played(&mut fields)?;
                played.read("", 0).await?;
                compare(&result_object(played), &Value::Object(fields.0), "")
            }
            "expect_error" => self.expect_error(fields).await,
            "cancel" => {
                self.post("/mark/cancel").await?;
                self.played(&mut fields)?.leave();
                fields.finish()
            }
            "cancel_turn" => {
                let (request_id, turn_id): (Option<String>, Option<String>) =
                    (fields.take("request_id")?, fields.take("turn_id")?);
                let session = self.a_session(&mut fields)?;
                let ids = session.cancel_turn(&request_id.unwrap_or_default(), &turn_id.unwrap_or_default()).await;
                expecting(ids.map(Value::from), "request_ids", fields)
            }
            "preconnect" => {
                let slot = self.a_session(&mut fields)?.preconnect(true).await;
                let state = slot.map(|slot| slot.state().as_str_name().trim_start_matches("SLOT_STATE_").into());
                expecting(state, "slot", fields)
            }
            "close" => {
                let closed = self.a_session(&mut fields)?.close().await;
                expecting(closed.map(Value::from), "", fields)
            }
            "control" => {
                let found = self.post(&fields.need::<String>("path")?).await?;
                expecting(Ok(found), "", fields)
            }
            _ => Err(step("unknown verb")),
        }
    }

    async fn session(&mut self, mut fields: Fields) -> Result<(), Failure> {
        let id: String = fields.need("id")?;
        let config = SessionConfig {
            fallback_policy: fields
                .take("http_only")?
                .map(|http_only| FallbackPolicy { http_only, ..Default::default() }),
            retry_policy: fields
                .take("stream_max_retries")?
                .map(|retries| RetryPolicy { stream_max_retries: Some(retries), ..Default::default() }),
            limits: fields
                .take("max_lanes")?
                .map(|lanes| SessionLimits { max_lanes: Some(lanes), ..Default::default() }),
            ..Default::default()
        };
        let mut builder = self.client.session(&id).config(config);
        if let Some(name) = fields.take::<String>("upstream")? {
            builder = builder.upstream(name);
        }
        if let Some(mode) = fields.mode("warm_up", "WARM_UP_MODE_", WarmUpMode::from_str_name)? {
            builder = builder.warm_up(mode);
        }
        let builder = with_options!(builder, fields);
        if fields.take("close_on_exit")?.unwrap_or(false) {
            self.leave.push(id.clone());
        }
        let session = match fields.take::<String>("start")?.as_deref() {
            None | Some("now") => builder.open().await,
            Some("lazy") => Ok(builder.lazy()),
            Some("attach") => Ok(self.client.attach(&id)),
            Some(other) => return Err(step(format!("unknown start {other}"))),
        };
        let opened = session.map(|session| self.sessions.insert(id, session)).map(|_| Value::Null);
        expecting(opened, "", fields)
    }

    fn turn(&mut self, mut fields: Fields) -> Result<(), Failure> {
        let name = fields.need("as")?;
        let mut sent = Vec::new();
        for item in fields.need::<Vec<Value>>("input")? {
            sent.extend(self.items(item)?);
        }
        let mut builder = self.a_session(&mut fields)?.turn(sent.clone());
        if let Some(id) = fields.take::<String>("turn_id")? {
            builder = builder.turn_id(id);
        }
        if let Some(id) = fields.take::<String>("request_id")? {
            builder = builder.request_id(id);
        }
        if let Some(lane) = fields.take::<String>("lane")? {
            builder = builder.lane(lane);
        }
        if let Some(mode) = fields.mode("retry", "RETRY_MODE_", RetryMode::from_str_name)? {
            builder = builder.resend(mode);
        }
        if let Some(mode) = fields.mode("on_busy", "BUSY_MODE_", BusyMode::from_str_name)? {
            builder = builder.on_busy(mode);
        }
        if let Some(mode) = fields.mode("events", "EVENT_MODE_", EventMode::from_str_name)? {
            builder = builder.events(mode);
        }
        if let Some(position) = fields.take::<Value>("append_at")? {
            builder = builder.append_at(self.position(position)?);
        }
        if let Some(limit) = fields.seconds("max_duration_s")? {
            builder = builder.max_duration(limit);
        }
        if let Some(timeout) = fields.seconds("timeout_s")? {
            builder = builder.timeout(timeout);
        }
        if let Some(json) = fields.take::<Value>("request_json")? {
            builder = builder.request_json(json.to_string());
        }
        let builder = with_options!(builder, fields);
        fields.finish()?;
        let turn = Some(builder.send());
        let played = Played { turn, left: TurnResult::default(), sent, events: BTreeMap::new(), payloads: 0 };
        self.turns.insert(name, played);
        Ok(())
    }

    fn position(&self, told: Value) -> Result<u64, Failure> {
        let of = told.get("position_of").and_then(Value::as_str).and_then(|name| self.turns.get(name));
        let position = told.as_u64().or(of.and_then(|played| played.snapshot().history_position));
        position.ok_or_else(|| step(format!("no position {told}")))
    }

    /// The items that one item of the scenario stands for.
    fn items(&self, item: Value) -> Result<Vec<Item>, Failure> {
        if let Some(text) = item.as_str() {
            return Ok(vec![Item::user(text)]);
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let kind = item.as_object().and_then(|fields| fields.iter().next());
        match kind.map(|(name, value)| (name.as_str(), value)) {
            Some(("developer", value)) => Ok(vec![Item::developer(text(value))]),
            Some(("json", value)) => Ok(vec![Item::json(text(value))]),
            Some(("function_output", value)) => {
                Ok(vec![Item::function_output(text(&value["call_id"]), text(&value["output"]))])
            }
            Some(("conversation_of", name)) => {
                let played = self.turns.get(&text(name)).ok_or_else(|| step(format!("no turn {name}")))?;
                Ok([played.sent.clone(), played.snapshot().items].concat())
            }
            _ => Err(step(format!("unknown item {item}"))),
        }
    }

    async fn expect_error(&mut self, mut fields: Fields) -> Result<(), Failure> {
        let played = self.played(&mut fields)?;
        let snapshot: Value = fields.take("snapshot")?.unwrap_or_else(|| Map::new().into());
        match played.read("", 0).await {
            Ok(()) => Err(step(format!("the turn ended well: {}", result_object(played)))),
            Err(Failure::Call(error)) => {
                compare(&error_object(&error), &Value::Object(fields.0), "")?;
                compare(&result_object(played), &snapshot, "snapshot")
            }
            Err(failure) => Err(failure),
        }
    }

    fn played(&mut self, fields: &mut Fields) -> Result<&mut Played, Failure> {
        let name: String = fields.need("turn")?;
        self.turns.get_mut(&name).ok_or_else(|| step(format!("no turn {name}")))
    }

    fn a_session(&self, fields: &mut Fields) -> Result<Session, Failure> {
        let id: String = fields.need("session")?;
        self.sessions.get(&id).cloned().ok_or_else(|| step(format!("no session {id}")))
    }

    async fn post(&self, path: &str) -> Result<Value, Failure> {
        let host = &self.control;
        let mut stream = TcpStream::connect(host).await?;
        let head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(serde_json::from_str(body)?),
            _ => Err(step(format!("control {path}: {answer}"))),
        }
    }
}

/// Compares what a call gave with `expect`, or its failure with `error`, where the step has them.
fn expecting(called: Result<Value, Error>, path: &str, mut fields: Fields) -> Result<(), Failure> {
    let (expected, error): (Option<Value>, Option<Value>) = (fields.take("expect")?, fields.take("error")?);
    fields.finish()?;
    match (called, error) {
        (Err(found), Some(expected)) => compare(&error_object(&found), &expected, ""),
        (Err(found), None) => Err(found.into()),
        (Ok(_), Some(expected)) => Err(step(format!("the call succeeded, expected {expected}"))),
        (Ok(found), None) => expected.map_or(Ok(()), |expected| compare(&found, &expected, path)),
    }
}
