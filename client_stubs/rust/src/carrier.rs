//! What every call carries, those of the raw stubs too: the token and the trace context.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Channel;
use tower_service::Service;

use crate::{BoxError, tracing};

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What gives the bearer token of a call; it is asked before each one.
pub(crate) type TokenSource = Arc<dyn Fn() -> BoxFuture<Result<String, BoxError>> + Send + Sync>;

/// The connection beneath the generated stubs. Clones share it.
#[derive(Clone)]
pub struct Carrier {
    channel: Channel,
    token: Option<TokenSource>,
}

impl Carrier {
    pub(crate) fn new(channel: Channel, token: Option<TokenSource>) -> Self {
        Self { channel, token }
    }
}

impl std::fmt::Debug for Carrier {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Carrier").field("has_token", &self.token.is_some()).finish_non_exhaustive()
    }
}

impl Service<Request<Body>> for Carrier {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.channel.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        tracing::inject(request.headers_mut());
        // The channel that was asked whether it is ready, not a clone of it, takes the call.
        let unasked = self.channel.clone();
        let mut channel = std::mem::replace(&mut self.channel, unasked);
        let token = self.token.clone();
        Box::pin(async move {
            if let Some(token) = token {
                request.headers_mut().insert(AUTHORIZATION, bearer(token().await)?);
            }
            let mut response = channel.call(request).await?;
            drop_unreadable_details(response.headers_mut());
            Ok(response.map(|body| {
                Body::new(body.map_frame(|mut frame| {
                    if let Some(trailers) = frame.trailers_mut() {
                        drop_unreadable_details(trailers);
                    }
                    frame
                }))
            }))
        })
    }
}

fn bearer(given: Result<String, BoxError>) -> Result<HeaderValue, Status> {
    let token = given.map_err(|cause| {
        let mut status = Status::unauthenticated(format!("get token: {cause}"));
        status.set_source(Arc::from(cause));
        status
    })?;
    let token = token.trim();
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))
        .ok()
        // A header takes any bytes, and servers do not.
        .filter(|_| token.bytes().all(|byte| (b' '..=b'~').contains(&byte)))
        .ok_or_else(|| Status::unauthenticated("send token: it has characters that a header cannot carry"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Leaves out details that are not base64: tonic panics on them, and the status says enough. Measured with tonic 0.14.9.
fn drop_unreadable_details(headers: &mut HeaderMap) {
    const DETAILS: &str = "grpc-status-details-bin";
    const PADDED_OR_NOT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const ENGINE: GeneralPurpose = GeneralPurpose::new(&STANDARD, PADDED_OR_NOT);
    if headers.get(DETAILS).is_some_and(|value| ENGINE.decode(value).is_err()) {
        headers.remove(DETAILS);
    }
}
