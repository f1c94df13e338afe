//! What a turn is, before it is sent.

use std::time::Duration;

use crate::client::Client;
use crate::options::request_options;
use crate::turn::Turn;
use crate::v1::{BusyMode, EventMode, InputMode, RequestOptions, RetryMode, StreamTurnRequest};

/// Says what a turn is; made by [`Session::turn`](crate::Session::turn).
#[derive(Clone, Debug)]
#[must_use = "a turn is made by `send`"]
pub struct TurnBuilder {
    client: Client,
    request: StreamTurnRequest,
    timeout: Option<Duration>,
}

impl TurnBuilder {
    pub(crate) fn new(client: Client, request: StreamTurnRequest) -> Self {
        Self { client, request, timeout: None }
    }

    /// The same for a user request and all its tool follow-ups; without it the server makes one.
    pub fn turn_id(mut self, id: impl Into<String>) -> Self {
        self.request.turn_id = id.into();
        self
    }

    /// Names this call, also when the client sends it again; without it one is made.
    pub fn request_id(mut self, id: impl Into<String>) -> Self {
        self.request.request_id = id.into();
        self
    }

    /// An independent chain of calls inside the session.
    pub fn lane(mut self, name: impl Into<String>) -> Self {
        self.request.lane = name.into();
        self
    }

    /// The input is only what is new, after this many items of the lane
    /// ([`TurnResult::history_position`](crate::TurnResult::history_position)).
    pub fn append_at(mut self, position: u64) -> Self {
        self.request.set_input_mode(InputMode::Append);
        self.request.expected_history_position = Some(position);
        self
    }

    /// What the server sends to the provider again after a failure.
    pub fn resend(mut self, mode: RetryMode) -> Self {
        self.request.set_retry(mode);
        self
    }

    /// What happens when the lane has a running call.
    pub fn on_busy(mut self, mode: BusyMode) -> Self {
        self.request.set_on_busy(mode);
        self
    }

    /// In which form the provider's events come.
    pub fn events(mut self, mode: EventMode) -> Self {
        self.request.set_events(mode);
        self
    }

    /// A limit that the server keeps.
    pub fn max_duration(mut self, limit: Duration) -> Self {
        // Longer than the contract can say is as long as the server allows.
        self.request.max_duration = limit.try_into().ok();
        self
    }

    /// Deadline of the call with all its sends; without it there is none.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Further fields of the request body, one JSON object in UTF-8, merged beneath the options.
    pub fn request_json(mut self, fields: impl Into<Vec<u8>>) -> Self {
        self.request.request_json = fields.into();
        self
    }

    /// The turn's metadata for the provider, one JSON object in UTF-8.
    pub fn turn_metadata(mut self, metadata: impl Into<Vec<u8>>) -> Self {
        self.request.turn_metadata_json = metadata.into();
        self
    }

    request_options!();

    /// Changes the message as it is sent, for everything that has no method of its own.
    pub fn request(mut self, change: impl FnOnce(&mut StreamTurnRequest)) -> Self {
        change(&mut self.request);
        self
    }

    /// Sends the turn and does not wait for its answer. What fails is told by the first read.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn send(mut self) -> Turn {
        if self.request.request_id.is_empty() {
            self.request.request_id = uuid::Uuid::new_v4().to_string();
        }
        Turn::send(self.client, self.request, self.timeout)
    }

    fn options(&mut self) -> &mut RequestOptions {
        self.request.options.get_or_insert_default()
    }
}
