//! Items of a conversation, from what callers have at hand.

use crate::v1::{FunctionCallOutput, Item, TextMessage, item::Content};

impl Item {
    /// A user's message of one text.
    pub fn user(text: impl Into<String>) -> Self {
        Self::message("user", text)
    }

    /// A developer's message of one text.
    pub fn developer(text: impl Into<String>) -> Self {
        Self::message("developer", text)
    }

    /// A system message of one text.
    pub fn system(text: impl Into<String>) -> Self {
        Self::message("system", text)
    }

    /// An answer of the model, as one text.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::message("assistant", text)
    }

    /// The output of a function call; `call_id` is the call's.
    pub fn function_output(call_id: impl Into<String>, output: impl Into<String>) -> Self {
        let output = FunctionCallOutput { call_id: call_id.into(), output: output.into() };
        Self { content: Some(Content::FunctionCallOutput(output)) }
    }

    /// The output of a custom tool's call; `call_id` is the call's.
    pub fn custom_tool_output(call_id: &str, output: &str) -> Self {
        let item = serde_json::json!({"type": "custom_tool_call_output", "call_id": call_id, "output": output});
        Self::json(item.to_string())
    }

    /// An item verbatim: one JSON object in UTF-8, sent as it is.
    pub fn json(item: impl Into<Vec<u8>>) -> Self {
        Self { content: Some(Content::Json(item.into())) }
    }

    /// The JSON of an item that is verbatim, as all are that came from the provider; `None` for any other.
    pub fn as_json(&self) -> Option<&[u8]> {
        match &self.content {
            Some(Content::Json(json)) => Some(json),
            _ => None,
        }
    }

    fn message(role: &str, text: impl Into<String>) -> Self {
        Self { content: Some(Content::Message(TextMessage { role: role.into(), text: text.into() })) }
    }
}

impl From<&str> for Item {
    /// A user's message.
    fn from(text: &str) -> Self {
        Self::user(text)
    }
}

impl From<String> for Item {
    /// A user's message.
    fn from(text: String) -> Self {
        Self::user(text)
    }
}
