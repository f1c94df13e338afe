//! The options that a session has as defaults of its turns, and a turn as overrides: the same methods on both builders.

use crate::v1::{Reasoning, RequestOptions, ToolList};

/// Writes the options' methods for a builder that has `fn options(&mut self) -> &mut RequestOptions`.
macro_rules! request_options {
    () => {
        /// Names the model.
        pub fn model(mut self, slug: impl Into<String>) -> Self {
            self.options().model = Some(slug.into());
            self
        }

        /// The system's instructions.
        pub fn instructions(mut self, text: impl Into<String>) -> Self {
            self.options().instructions = Some(text.into());
            self
        }

        /// The tools that the model may call, each one JSON object in UTF-8; none removes the session's.
        pub fn tools<T: Into<Vec<u8>>>(mut self, tools: impl IntoIterator<Item = T>) -> Self {
            self.options().tools = Some($crate::options::tool_list(tools));
            self
        }

        /// Whether the model may call several tools at once.
        pub fn parallel_tool_calls(mut self, allowed: bool) -> Self {
            self.options().parallel_tool_calls = Some(allowed);
            self
        }

        /// "none", "minimal", "low", "medium", "high" or what the model knows.
        pub fn reasoning_effort(mut self, effort: impl Into<String>) -> Self {
            $crate::options::reasoning(self.options()).effort = Some(effort.into());
            self
        }

        /// "auto", "concise" or "detailed".
        pub fn reasoning_summary(mut self, summary: impl Into<String>) -> Self {
            $crate::options::reasoning(self.options()).summary = Some(summary.into());
            self
        }

        /// Bounds one response, reasoning included.
        pub fn max_output_tokens(mut self, tokens: i32) -> Self {
            self.options().max_output_tokens = Some(tokens);
            self
        }
    };
}

pub(crate) use request_options;

pub(crate) fn tool_list<T: Into<Vec<u8>>>(tools: impl IntoIterator<Item = T>) -> ToolList {
    ToolList { tools_json: tools.into_iter().map(Into::into).collect() }
}

pub(crate) fn reasoning(options: &mut RequestOptions) -> &mut Reasoning {
    options.reasoning.get_or_insert_default()
}
