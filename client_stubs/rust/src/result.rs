//! A turn's outcome, as its caller gets it.

use crate::v1::{AttemptStarted, Item, Usage};

/// How a turn's events ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// The response is complete.
    Completed,
    /// The response ended early.
    Incomplete,
    /// Not yet, or by an error; only in a snapshot.
    #[default]
    Unfinished,
}

/// A function that the model wants called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionCall {
    /// The call.
    pub call_id: String,
    /// The function.
    pub name: String,
    /// Its arguments, as JSON text.
    pub arguments: String,
}

impl FunctionCall {
    /// The item that answers the call.
    pub fn answer(&self, output: impl Into<String>) -> Item {
        Item::function_output(&self.call_id, output)
    }
}

/// A custom tool that the model wants called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomToolCall {
    /// The call.
    pub call_id: String,
    /// The tool.
    pub name: String,
    /// Free text.
    pub input: String,
}

impl CustomToolCall {
    /// The item that answers the call.
    pub fn answer(&self, output: &str) -> Item {
        Item::custom_tool_output(&self.call_id, output)
    }
}

/// A turn's outcome. `None` and blank mean: not told, or not known.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TurnResult {
    /// How the events ended.
    pub ending: Ending,
    /// Text of the answer: of the finished messages, then what was streamed of an unfinished one.
    pub text: String,
    /// The finished output items, oldest first, byte for byte as they came: append them to the conversation.
    pub items: Vec<Item>,
    /// Functions that the model wants called.
    pub function_calls: Vec<FunctionCall>,
    /// Custom tools that the model wants called.
    pub custom_tool_calls: Vec<CustomToolCall>,
    /// The turn.
    pub turn_id: String,
    /// The call.
    pub request_id: String,
    /// The conversation's id upstream.
    pub conversation_id: String,
    /// The provider's response.
    pub response_id: String,
    /// The provider's id of the request; `None`: unknown, as always over a WebSocket.
    pub upstream_request_id: Option<String>,
    /// What the response used.
    pub usage: Option<Usage>,
    /// Whether the model considers its turn ended.
    pub end_turn: Option<bool>,
    /// Why the response ended early; `None`: it did not.
    pub incomplete_reason: Option<String>,
    /// Items of the lane's conversation, for a next turn's `append_at`; `None` before the end.
    pub history_position: Option<u64>,
    /// The newest attempt upstream: its transport, slot outcome, connection.
    pub attempt: AttemptStarted,
    /// Its number.
    pub attempts: u32,
    /// Why the call went on over HTTP; `None`: it did not.
    pub fell_back: Option<String>,
    /// The model that really served the request.
    pub server_model: String,
    /// Events of a newer server that this client skipped.
    pub unknown_events: u64,
    /// Enum values of the attempt that only a newer server knows.
    pub unknown_values: usize,
}
