//! One conversation's session at the server, seen from the client.

use std::sync::Arc;

use crate::client::Client;
use crate::errors::Error;
use crate::options::request_options;
use crate::turn_builder::TurnBuilder;
use crate::v1::{
    CancelTurnRequest, CloseSessionRequest, CreateSessionRequest, GetSessionRequest, Item, PreconnectRequest,
    RequestOptions, SessionConfig, Slot, WarmUpMode,
};
use crate::{v1, v1::Session as State};

/// Says what a session is; made by [`Client::session`].
#[derive(Clone, Debug)]
#[must_use = "open it, or leave that to its first turn by `lazy`"]
pub struct SessionBuilder {
    client: Client,
    id: String,
    config: SessionConfig,
}

impl SessionBuilder {
    pub(crate) fn new(client: Client, id: String) -> Self {
        Self { client, id, config: SessionConfig::default() }
    }

    /// The whole config, in place of what was said before.
    pub fn config(self, config: SessionConfig) -> Self {
        Self { config, ..self }
    }

    /// The provider, one that the server's operator configured.
    pub fn upstream(mut self, name: impl Into<String>) -> Self {
        self.config.upstream = name.into();
        self
    }

    /// What opens before the first turn.
    pub fn warm_up(mut self, mode: WarmUpMode) -> Self {
        self.config.set_warm_up(mode);
        self
    }

    request_options!();

    /// Opens the session: it is created at the server if it is not there, and its warm-up begins.
    pub async fn open(self) -> Result<Session, Error> {
        let request = CreateSessionRequest { session_id: self.id.clone(), config: Some(self.config.clone()) };
        let create = |client: Client, request| async move { client.sessions().create_session(request).await };
        self.client.unary(&self.id, request, create).await?;
        Ok(self.lazy())
    }

    /// Leaves the session's creation to its first turn.
    pub fn lazy(self) -> Session {
        Session::new(self.client, self.id, Some(self.config))
    }

    fn options(&mut self) -> &mut RequestOptions {
        self.config.request_defaults.get_or_insert_default()
    }
}

/// One conversation's session. Its config goes with each turn, so a restarted server is not noticed. Clones are the same
/// session. Dropping it leaves it warm at the server until it expires; [`Session::close`] closes it.
#[derive(Clone, Debug)]
pub struct Session {
    client: Client,
    id: Arc<str>,
    /// `None`: the session is another's, and only attached to.
    config: Option<Arc<SessionConfig>>,
}

impl Session {
    pub(crate) fn new(client: Client, id: String, config: Option<SessionConfig>) -> Self {
        Self { client, id: id.into(), config: config.map(Arc::new) }
    }

    /// The session's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Begins a turn; `input` is the conversation, oldest first. A text is a user's message.
    pub fn turn<I: Into<Item>>(&self, input: impl IntoIterator<Item = I>) -> TurnBuilder {
        let request = v1::StreamTurnRequest {
            session_id: self.id.to_string(),
            session_config: self.config.as_deref().cloned(),
            input_mode: v1::InputMode::Full.into(),
            input: input.into_iter().map(Into::into).collect(),
            ..Default::default()
        };
        TurnBuilder::new(self.client.clone(), request)
    }

    /// The session's state.
    pub async fn get(&self) -> Result<State, Error> {
        let request = GetSessionRequest { session_id: self.id.to_string() };
        let get = |client: Client, request| async move { client.sessions().get_session(request).await };
        Ok(self.client.unary(&self.id, request, get).await?.session.unwrap_or_default())
    }

    /// Starts a warm-up if the slot is idle; with `wait`, it returns when the handshake has ended, well or not.
    pub async fn preconnect(&self, wait: bool) -> Result<Slot, Error> {
        let request = PreconnectRequest { session_id: self.id.to_string(), wait };
        let preconnect = |client: Client, request| async move { client.sessions().preconnect(request).await };
        Ok(self.client.unary(&self.id, request, preconnect).await?.slot.unwrap_or_default())
    }

    /// Cancels running calls by request or turn, either blank, and tells the request ids of those that end now.
    ///
    /// # Errors
    /// [`ErrorKind::TurnNotFound`](crate::ErrorKind::TurnNotFound): none matches.
    pub async fn cancel_turn(&self, request_id: &str, turn_id: &str) -> Result<Vec<String>, Error> {
        let session_id = self.id.to_string();
        let request = CancelTurnRequest { session_id, request_id: request_id.into(), turn_id: turn_id.into() };
        let cancel = |client: Client, request| async move { client.turns().cancel_turn(request).await };
        Ok(self.client.unary(&self.id, request, cancel).await?.request_ids)
    }

    /// Closes the session at the server: its running calls end with
    /// [`ErrorKind::SessionClosed`](crate::ErrorKind::SessionClosed).
    pub async fn close(&self) -> Result<(), Error> {
        let request = CloseSessionRequest { session_id: self.id.to_string() };
        let close = |client: Client, request| async move { client.sessions().close_session(request).await };
        self.client.unary(&self.id, request, close).await?;
        Ok(())
    }
}
