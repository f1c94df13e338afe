//! What a turn has brought so far, folded from its events. Pure: no I/O, no runtime.

use crate::errors::{Error, ErrorFacts, ErrorKind};
use crate::json::Object;
use crate::result::{CustomToolCall, Ending, FunctionCall, TurnResult};
use crate::v1::{AttemptStarted, FullReason, SlotOutcome, Transport};
use crate::v1::{Completed, Incomplete, Item, ItemDone, Restarted, TurnEvent, item::Content, turn_event::Event};

/// Counts the attempt's enum values that this contract does not have.
fn unknown_values(attempt: &AttemptStarted) -> usize {
    let known = [
        Transport::try_from(attempt.transport).is_ok(),
        SlotOutcome::try_from(attempt.slot_outcome).is_ok(),
        FullReason::try_from(attempt.full_reason).is_ok(),
    ];
    known.iter().filter(|is_known| !**is_known).count()
}

/// An item that is done; `text` is a message's, else blank.
struct Finished {
    sequence: u64,
    attempt: u32,
    item: Vec<u8>,
    text: String,
}

/// What was streamed of a message that is not finished; `item_id` is blank where it was not told.
struct OpenText {
    item_id: String,
    text: String,
}

/// Folds the events of one call, in order. Linear in their number.
pub(crate) struct Progress {
    /// The ids so far, for an error.
    pub(crate) known: ErrorFacts,
    /// Of the newest event; 0: none has come.
    pub(crate) sequence: u64,
    /// Whether a resend took back text that had been delivered.
    pub(crate) has_voided_text: bool,
    /// What needs no folding; the rest is filled in by `snapshot`.
    result: TurnResult,
    finished: Vec<Finished>,
    /// In order of their beginning.
    open: Vec<OpenText>,
}

impl Progress {
    pub(crate) fn new(turn_id: String, request_id: String) -> Self {
        Self {
            known: ErrorFacts { turn_id, request_id, ..ErrorFacts::default() },
            sequence: 0,
            has_voided_text: false,
            result: TurnResult::default(),
            finished: Vec::new(),
            open: Vec::new(),
        }
    }

    /// Whether the last event has come.
    pub(crate) fn is_over(&self) -> bool {
        self.result.ending != Ending::Unfinished
    }

    /// Takes the next event and says whether the caller shall see it: not, when this client does not know its member.
    /// A gap leaves the progress as it was.
    pub(crate) fn accept(&mut self, event: &TurnEvent) -> Result<bool, Error> {
        if event.sequence != self.sequence + 1 {
            let text = format!("read turn events: event {} came, expected {}", event.sequence, self.sequence + 1);
            return Err(Error::new(ErrorKind::SequenceGap, text, self.known.clone()));
        }
        self.sequence = event.sequence;
        if event.attempt > self.result.attempts {
            self.result.attempts = event.attempt;
            self.known.attempts = Some(event.attempt);
        }
        match &event.event {
            Some(member) => self.take(event, member),
            None => self.result.unknown_events += 1,
        }
        Ok(event.event.is_some())
    }

    fn take(&mut self, event: &TurnEvent, member: &Event) {
        match member {
            Event::Admitted(admitted) => {
                self.known.turn_id.clone_from(&admitted.turn_id);
                self.known.request_id.clone_from(&admitted.request_id);
                self.result.conversation_id.clone_from(&admitted.conversation_id);
            }
            Event::AttemptStarted(attempt) => {
                self.result.unknown_values = unknown_values(attempt);
                self.result.attempt = attempt.clone();
                self.known.response_id.clear();
                self.known.upstream_request_id = None;
            }
            Event::Retrying(retrying) => {
                self.known.response_id.clone_from(&retrying.response_id);
                self.known.upstream_request_id.clone_from(&retrying.upstream_request_id);
            }
            Event::FellBack(fell_back) => self.result.fell_back = Some(fell_back.reason.clone()),
            Event::Restarted(restarted) => self.restart(restarted),
            Event::Created(created) => self.known.response_id.clone_from(&created.response_id),
            Event::ItemDone(ItemDone { item: Some(Item { content: Some(Content::Json(item)) }), .. }) => {
                self.finish(event, item);
            }
            Event::TextDelta(delta) => self.stream(&delta.item_id, &delta.delta),
            Event::ServerModel(served) => self.result.server_model.clone_from(&served.model),
            Event::Completed(last) => self.complete(last),
            Event::Incomplete(last) => self.end_early(last),
            Event::Raw(_) => self.take_raw(event),
            _ => {}
        }
    }

    /// Reads what a result needs of events that the caller asked to have raw.
    fn take_raw(&mut self, event: &TurnEvent) {
        let payload = || Object::read(event.payload_json());
        match event.upstream_type.as_str() {
            "response.output_item.done" => {
                if let Some(item) = payload().verbatim("item") {
                    self.finish(event, item);
                }
            }
            "response.output_text.delta" => self.stream(&payload().text("item_id"), &payload().text("delta")),
            "response.created" => self.known.response_id = payload().object("response").text("id"),
            _ => {}
        }
    }

    fn stream(&mut self, item_id: &str, delta: &str) {
        match self.open.iter_mut().find(|open| open.item_id == item_id) {
            Some(open) => open.text.push_str(delta),
            None => self.open.push(OpenText { item_id: item_id.into(), text: delta.into() }),
        }
    }

    fn finish(&mut self, event: &TurnEvent, item: &[u8]) {
        let output = Object::read(item);
        let text = message_text(&output);
        if text.is_some() {
            let id = output.text("id");
            self.open.retain(|open| open.item_id != id && !open.item_id.is_empty());
        }
        let (sequence, attempt) = (event.sequence, event.attempt);
        self.finished.push(Finished { sequence, attempt, item: item.into(), text: text.unwrap_or_default() });
    }

    /// Forgets what a resend after output has made void.
    fn restart(&mut self, restarted: &Restarted) {
        self.has_voided_text |= !self.open.is_empty();
        self.open.clear();
        let has_voided_text = &mut self.has_voided_text;
        self.finished.retain(|finished| {
            let counts =
                finished.attempt >= restarted.attempt || restarted.kept_item_sequences.contains(&finished.sequence);
            *has_voided_text |= !counts && !finished.text.is_empty();
            counts
        });
    }

    fn complete(&mut self, last: &Completed) {
        self.result.ending = Ending::Completed;
        self.result.end_turn = last.end_turn;
        self.result.usage = last.usage;
        self.result.history_position = Some(last.history_position);
        self.name_response(&last.response_id, &last.upstream_request_id);
    }

    fn end_early(&mut self, last: &Incomplete) {
        self.result.ending = Ending::Incomplete;
        self.result.incomplete_reason = Some(last.reason.clone());
        self.result.usage = last.usage;
        self.result.history_position = Some(last.history_position);
        self.name_response(&last.response_id, &last.upstream_request_id);
    }

    fn name_response(&mut self, response_id: &str, upstream_request_id: &Option<String>) {
        if !response_id.is_empty() {
            self.known.response_id = response_id.into();
        }
        self.known.upstream_request_id.clone_from(upstream_request_id);
    }

    /// The outcome so far; it shares nothing with the progress.
    pub(crate) fn snapshot(&self) -> TurnResult {
        let mut result = TurnResult {
            turn_id: self.known.turn_id.clone(),
            request_id: self.known.request_id.clone(),
            response_id: self.known.response_id.clone(),
            upstream_request_id: self.known.upstream_request_id.clone(),
            ..self.result.clone()
        };
        for finished in &self.finished {
            let output = Object::read(&finished.item);
            match output.text("type").as_str() {
                "function_call" => result.function_calls.push(FunctionCall {
                    call_id: output.text("call_id"),
                    name: output.text("name"),
                    arguments: output.text("arguments"),
                }),
                "custom_tool_call" => result.custom_tool_calls.push(CustomToolCall {
                    call_id: output.text("call_id"),
                    name: output.text("name"),
                    input: output.text("input"),
                }),
                _ => {}
            }
            result.text.push_str(&finished.text);
            result.items.push(Item::json(finished.item.as_slice()));
        }
        result.text.extend(self.open.iter().map(|open| open.text.as_str()));
        result
    }
}

/// The piece of the answer's text that an event carries, typed or raw; `None` for any other event.
pub(crate) fn text_delta(event: &TurnEvent) -> Option<String> {
    match &event.event {
        Some(Event::TextDelta(delta)) => Some(delta.delta.clone()),
        Some(Event::Raw(_)) if event.upstream_type == "response.output_text.delta" => {
            Some(Object::read(event.payload_json()).text("delta"))
        }
        _ => None,
    }
}

/// The text of a message's parts; `None` for any other item.
fn message_text(output: &Object<'_>) -> Option<String> {
    if output.text("type") != "message" {
        return None;
    }
    let parts = output.objects("content").into_iter();
    Some(parts.filter(|part| part.text("type") == "output_text").map(|part| part.text("text")).collect())
}

#[cfg(test)]
mod tests;
