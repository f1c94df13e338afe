//! The client: one connection to one server, how it is made, and its unary calls.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use prost::Message;
use tonic::transport::{ClientTlsConfig, Endpoint};
use tonic::{Request, Response, Status};

use crate::BoxError;
use crate::carrier::{Carrier, TokenSource};
use crate::errors::{Error, ErrorFacts, ErrorKind};
use crate::retry::{Retry, Tries};
use crate::session::{Session, SessionBuilder};
use crate::status::error_of;
use crate::v1::session_service_client::SessionServiceClient;
use crate::v1::trace_service_client::TraceServiceClient;
use crate::v1::turn_service_client::TurnServiceClient;

/// Longest message both ways. A choice: a conversation with several images inline; the server has its own limit.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// What a turn that is not read may hold back, in bytes. A choice: events are small, so that the server soon notices.
const STREAM_WINDOW: u32 = 256 * 1024;

/// The same of all turns together. h2 gives back only what was read, so it bounds how many turns may stand unread before
/// they hold up the others: 256. Its own 5 MB are used up by three streams of its own 2 MB.
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;

/// How long a connection may take to be made. A choice.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The key that proxies route by. Source: protos/warmline/v1/session_service.proto.
const SESSION_KEY: &str = "x-warmline-session";

/// Says how a server is reached; made by [`Client::builder`].
pub struct ClientBuilder {
    target: String,
    tls: Option<ClientTlsConfig>,
    token: Option<TokenSource>,
    allow_plaintext_token: bool,
    max_message_bytes: usize,
    keepalive: (Duration, Duration),
    retry: Retry,
    unary_timeout: Option<Duration>,
    change_endpoint: Box<dyn FnOnce(Endpoint) -> Endpoint + Send>,
}

impl ClientBuilder {
    /// Uses TLS; with an identity it is mutual. The config must say whom to trust: `with_native_roots`, or certificates
    /// of your own. Without TLS the connection is in plain text.
    pub fn tls(self, config: ClientTlsConfig) -> Self {
        Self { tls: Some(config), ..self }
    }

    /// Sends a bearer token with each call.
    pub fn token(self, token: impl Into<String>) -> Self {
        let token = token.into();
        self.token_source(move || std::future::ready(Ok::<_, BoxError>(token.clone())))
    }

    /// Sends the bearer token that the source gives for each call.
    pub fn token_source<F, G, E>(self, source: F) -> Self
    where
        F: Fn() -> G + Send + Sync + 'static,
        G: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let source: TokenSource = Arc::new(move || {
            let token = source();
            Box::pin(async move { token.await.map_err(Into::into) })
        });
        Self { token: Some(source), ..self }
    }

    /// Allows a token beyond this machine without TLS, where something else encrypts.
    pub fn allow_plaintext_token(self) -> Self {
        Self { allow_plaintext_token: true, ..self }
    }

    /// Longest message, both ways; [`DEFAULT_MAX_MESSAGE_BYTES`] without it.
    pub fn max_message_bytes(self, bytes: usize) -> Self {
        Self { max_message_bytes: bytes, ..self }
    }

    /// Pings after that long without traffic while a call runs, and counts the connection as lost without an answer for
    /// the timeout; 30 s and 10 s without it. The server must allow the interval.
    pub fn keepalive(self, interval: Duration, timeout: Duration) -> Self {
        Self { keepalive: (interval, timeout), ..self }
    }

    /// Limits the client's own resends.
    pub fn retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// Deadline of every call but turns; 30 s without it, `None`: there is none.
    pub fn unary_timeout(self, timeout: Option<Duration>) -> Self {
        Self { unary_timeout: timeout, ..self }
    }

    /// Changes tonic's own settings, after those made here.
    pub fn endpoint(self, change: impl FnOnce(Endpoint) -> Endpoint + Send + 'static) -> Self {
        Self { change_endpoint: Box::new(change), ..self }
    }

    /// Makes the client. The first call dials.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidSettings`]: a token would go beyond this machine in plain text, or the target or the TLS
    /// config cannot be used.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn build(self) -> Result<Client, Error> {
        let endpoint = self.make_endpoint()?;
        let has_plaintext_token = self.token.is_some() && self.tls.is_none() && !self.allow_plaintext_token;
        if has_plaintext_token && !is_loopback(&self.target, endpoint.uri()) {
            let text = format!(
                "open client: a token would go to {} in plain text; give tls, or allow_plaintext_token where something \
                 else encrypts",
                self.target
            );
            return Err(Error::new(ErrorKind::InvalidSettings, text, ErrorFacts::default()));
        }
        let channel = (self.change_endpoint)(endpoint).connect_lazy();
        Ok(Client {
            carrier: Carrier::new(channel, self.token),
            max_message_bytes: self.max_message_bytes,
            retry: self.retry,
            unary_timeout: self.unary_timeout,
        })
    }

    fn make_endpoint(&self) -> Result<Endpoint, Error> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let target = &self.target;
        let uri = if target.starts_with("unix:") { target.clone() } else { format!("{scheme}://{target}") };
        let invalid = |error: tonic::transport::Error| {
            let text = format!("open client: {target} or its TLS config cannot be used");
            Error::new(ErrorKind::InvalidSettings, text, ErrorFacts::default()).caused_by(error)
        };
        let (interval, timeout) = self.keepalive;
        let endpoint = Endpoint::from_shared(uri)
            .and_then(|endpoint| endpoint.user_agent(concat!("warmline-rust/", env!("CARGO_PKG_VERSION"))))
            .map_err(invalid)?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(timeout)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        match &self.tls {
            Some(config) => endpoint.tls_config(config.clone()).map_err(invalid),
            None => Ok(endpoint),
        }
    }
}

/// Whether the target is this machine, by its spelling.
fn is_loopback(target: &str, uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    target.starts_with("unix:") || host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// A connection to a Warmline server. Clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    carrier: Carrier,
    max_message_bytes: usize,
    pub(crate) retry: Retry,
    unary_timeout: Option<Duration>,
}

impl Client {
    /// Begins a client of the server at the target: host and port, or `unix:PATH`.
    pub fn builder(target: impl Into<String>) -> ClientBuilder {
        ClientBuilder {
            target: target.into(),
            tls: None,
            token: None,
            allow_plaintext_token: false,
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            keepalive: (Duration::from_secs(30), Duration::from_secs(10)),
            retry: Retry::default(),
            unary_timeout: Some(Duration::from_secs(30)),
            change_endpoint: Box::new(|endpoint| endpoint),
        }
    }

    /// A client in plain text, with all defaults; see [`ClientBuilder::build`].
    pub fn new(target: impl Into<String>) -> Result<Self, Error> {
        Self::builder(target).build()
    }

    /// Begins a session; `id` is the caller's choice, 1 to 64 of `[A-Za-z0-9._-]`.
    pub fn session(&self, id: impl Into<String>) -> SessionBuilder {
        SessionBuilder::new(self.clone(), id.into())
    }

    /// Joins a session that another made; while it is missing, its calls fail with [`ErrorKind::SessionNotFound`].
    pub fn attach(&self, id: impl Into<String>) -> Session {
        Session::new(self.clone(), id.into(), None)
    }

    /// The generated stub, as it is.
    pub fn sessions(&self) -> SessionServiceClient<Carrier> {
        SessionServiceClient::new(self.carrier.clone())
            .max_decoding_message_size(self.max_message_bytes)
            .max_encoding_message_size(self.max_message_bytes)
    }

    /// The generated stub, as it is.
    pub fn turns(&self) -> TurnServiceClient<Carrier> {
        TurnServiceClient::new(self.carrier.clone())
            .max_decoding_message_size(self.max_message_bytes)
            .max_encoding_message_size(self.max_message_bytes)
    }

    /// The generated stub, as it is.
    pub fn traces(&self) -> TraceServiceClient<Carrier> {
        TraceServiceClient::new(self.carrier.clone())
            .max_decoding_message_size(self.max_message_bytes)
            .max_encoding_message_size(self.max_message_bytes)
    }

    /// A message with what the call carries beside it. Fails where it is longer than a message may be, because tonic's
    /// own refusal comes back as a broken stream.
    pub(crate) fn request<Q: Message>(
        &self,
        session_id: &str,
        message: Q,
        timeout: Option<Duration>,
    ) -> Result<Request<Q>, Status> {
        let (found, limit) = (message.encoded_len(), self.max_message_bytes);
        if found > limit {
            return Err(Status::resource_exhausted(format!(
                "send message: it has {found} bytes, the limit is {limit}"
            )));
        }
        let mut request = Request::new(message);
        // Another id is refused by the server, with its reason.
        if is_session_id(session_id)
            && let Ok(value) = session_id.parse()
        {
            request.metadata_mut().insert(SESSION_KEY, value);
        }
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        Ok(request)
    }

    /// Makes a unary call about a session, and makes it again where [`Retry`] allows it. Dropping it cancels the call.
    pub(crate) async fn unary<Q, R, F, G>(&self, session_id: &str, message: Q, call: F) -> Result<R, Error>
    where
        Q: Message + Clone,
        F: Fn(Client, Request<Q>) -> G,
        G: Future<Output = Result<Response<R>, Status>>,
    {
        let mut tries = Tries::new(self.retry, self.unary_timeout);
        loop {
            let request = self.request(session_id, message.clone(), tries.remaining());
            let sent = async { call(self.clone(), request?).await };
            let error = match within(tries.remaining(), sent).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => error_of(status, ErrorFacts::default()),
            };
            match tries.next_wait(&error) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(error),
            }
        }
    }
}

async fn within<T>(limit: Option<Duration>, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Err(deadline_exceeded())),
        None => call.await,
    }
}

/// The status of a deadline that passed here.
pub(crate) fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("the call's deadline passed")
}

/// Whether the contract allows it.
fn is_session_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}
