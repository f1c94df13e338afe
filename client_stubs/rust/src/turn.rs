//! One call: a turn's events as they come, and its outcome.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Sleep;
use tonic::{Status, Streaming};

use crate::client::{Client, deadline_exceeded};
use crate::errors::{Error, ErrorKind};
use crate::progress::{Progress, text_delta};
use crate::result::TurnResult;
use crate::retry::Tries;
use crate::status::error_of;
use crate::tracing::TraceContext;
use crate::v1::turn_event::Event;
use crate::v1::{StreamTurnRequest, StreamTurnResponse, TurnEvent};

/// How long the server may take to end the stream after the last event, before the call is cancelled. A choice: the
/// outcome is known by then, and a call that ends by itself is not recorded as cancelled at the other end.
const END: Duration = Duration::from_secs(1);

/// A call that was sent, made by [`TurnBuilder::send`](crate::TurnBuilder::send). Dropping it cancels what still runs, here and at the provider.
///
/// It is a [`Stream`] of the events that this client knows. [`Turn::next`], [`Turn::text`] and [`Turn::result`] each read
/// on where the other stopped, and may be dropped while they wait: nothing is lost. After an error the stream ends.
#[must_use = "dropping a turn cancels it"]
pub struct Turn {
    client: Client,
    request: StreamTurnRequest,
    trace: TraceContext,
    tries: Tries,
    deadline: Option<Pin<Box<Sleep>>>,
    call: Call,
    ready: VecDeque<TurnEvent>,
    progress: Progress,
    error: Option<Error>,
}

/// Where the call is. Whatever is dropped here is cancelled.
enum Call {
    /// Sent; the server has not answered.
    Sent(Head),
    /// It failed, and is sent again after a wait.
    Waiting(Pin<Box<Sleep>>),
    /// The server answers.
    Answered(Box<Streaming<StreamTurnResponse>>),
    /// The last event has come, and the server may end the stream by itself.
    Ending(Box<Streaming<StreamTurnResponse>>, Pin<Box<Sleep>>),
    /// It has ended, or was cancelled.
    Over,
}

impl Turn {
    pub(crate) fn send(client: Client, request: StreamTurnRequest, timeout: Option<Duration>) -> Self {
        let (trace, tries) = (TraceContext::current(), Tries::new(client.retry, timeout));
        let head = Head::send(&client, &request, &trace, &tries);
        Self {
            progress: Progress::new(request.turn_id.clone(), request.request_id.clone()),
            deadline: tries.remaining().map(|remaining| Box::pin(tokio::time::sleep(remaining))),
            client,
            request,
            trace,
            tries,
            call: Call::Sent(head),
            ready: VecDeque::new(),
            error: None,
        }
    }

    /// The message as it is sent.
    pub fn request(&self) -> &StreamTurnRequest {
        &self.request
    }

    /// The turn's id, for its tool follow-ups; blank until the server told the one it made.
    pub fn turn_id(&self) -> &str {
        &self.progress.known.turn_id
    }

    /// The next event that this client knows; `None` after the last, and after an error.
    pub async fn next(&mut self) -> Option<Result<TurnEvent, Error>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// The pieces of the answer's text, as they come.
    pub fn text(&mut self) -> Text<'_> {
        Text { turn: self }
    }

    /// Reads the rest and returns the outcome; again, the same.
    pub async fn result(&mut self) -> Result<TurnResult, Error> {
        while let Some(event) = self.next().await {
            event?;
        }
        match &self.error {
            Some(error) => Err(error.clone()),
            None => Ok(self.snapshot()),
        }
    }

    /// The outcome so far, also after a failure: what was delivered and counts.
    pub fn snapshot(&self) -> TurnResult {
        self.progress.snapshot()
    }

    /// Cancels what still runs, as dropping does, and keeps what was delivered for [`Turn::snapshot`].
    pub fn cancel(&mut self) {
        self.leave();
        if !self.progress.is_over() && self.error.is_none() {
            let facts = self.progress.known.clone();
            self.error = Some(Error::new(ErrorKind::TurnCancelled, "the call was cancelled by the client", facts));
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<TurnEvent, Error>>> {
        loop {
            if self.progress.is_over() {
                ready!(self.poll_end(cx));
                return Poll::Ready(None);
            }
            let Some(event) = self.ready.pop_front() else {
                self.ready = ready!(self.poll_message(cx))?.into();
                continue;
            };
            if self.progress.accept(&event)? {
                return Poll::Ready(Some(Ok(event)));
            }
        }
    }

    /// Reads a message; sends the call again where that is allowed and nothing of it was delivered.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<TurnEvent>, Error>> {
        loop {
            let status = match self.poll_call(cx) {
                Poll::Ready(Ok(events)) => return Poll::Ready(Ok(events)),
                Poll::Ready(Err(status)) => status,
                Poll::Pending => {
                    // Only now, so that what has come is not lost to a deadline that has just passed.
                    let Some(deadline) = &mut self.deadline else { return Poll::Pending };
                    ready!(deadline.as_mut().poll(cx));
                    return Poll::Ready(Err(error_of(deadline_exceeded(), self.progress.known.clone())));
                }
            };
            let Some(status) = status else {
                let text = "read turn: found the end of the stream, expected a completed or incomplete event";
                return Poll::Ready(Err(Error::new(ErrorKind::Protocol, text, self.progress.known.clone())));
            };
            let error = error_of(status, self.progress.known.clone());
            let wait = if self.progress.sequence == 0 { self.tries.next_wait(&error) } else { None };
            match wait {
                Some(wait) => self.call = Call::Waiting(Box::pin(tokio::time::sleep(wait))),
                None => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Moves the call on to its next message; the error is its status, `None` for OK.
    fn poll_call(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<TurnEvent>, Option<Status>>> {
        loop {
            self.call = match &mut self.call {
                Call::Sent(head) => Call::Answered(Box::new(ready!(head.poll_answer(cx)).map_err(Some)?)),
                Call::Waiting(wait) => {
                    ready!(wait.as_mut().poll(cx));
                    Call::Sent(Head::send(&self.client, &self.request, &self.trace, &self.tries))
                }
                Call::Answered(stream) => {
                    return Poll::Ready(match ready!(Pin::new(stream).poll_next(cx)) {
                        Some(Ok(message)) => Ok(message.events),
                        Some(Err(status)) => Err(Some(status)),
                        None => Err(None),
                    });
                }
                // Not reached: neither is read after the last event or an error.
                Call::Ending(..) | Call::Over => return Poll::Ready(Err(None)),
            };
        }
    }

    /// Lets the server end the stream by itself; however it does, the outcome stands.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.begin_end();
        if let Call::Ending(stream, limit) = &mut self.call {
            ready!(poll_end(stream, limit, cx));
        }
        self.call = Call::Over;
        Poll::Ready(())
    }

    fn begin_end(&mut self) {
        self.call = match std::mem::replace(&mut self.call, Call::Over) {
            Call::Answered(stream) => Call::Ending(stream, Box::pin(tokio::time::sleep(END))),
            call => call,
        };
    }

    /// Ends the call: a turn whose last event has come may end by itself, any other is cancelled.
    fn leave(&mut self) {
        if self.progress.is_over()
            && let Ok(runtime) = Handle::try_current()
        {
            self.begin_end();
            if let Call::Ending(mut stream, mut limit) = std::mem::replace(&mut self.call, Call::Over) {
                // On its own, for at most the limit: nothing can be awaited here.
                runtime.spawn(poll_fn(move |cx| poll_end(&mut stream, &mut limit, cx)));
            }
        }
        self.call = Call::Over;
    }
}

fn poll_end(stream: &mut Streaming<StreamTurnResponse>, limit: &mut Pin<Box<Sleep>>, cx: &mut Context<'_>) -> Poll<()> {
    while let Poll::Ready(message) = Pin::new(&mut *stream).poll_next(cx) {
        if !matches!(message, Some(Ok(_))) {
            return Poll::Ready(());
        }
    }
    limit.as_mut().poll(cx)
}

impl Stream for Turn {
    type Item = Result<TurnEvent, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let turn = self.get_mut();
        if turn.error.is_some() {
            return Poll::Ready(None);
        }
        let event = ready!(turn.poll_event(cx));
        if let Some(Err(error)) = &event {
            turn.error = Some(error.clone());
            turn.call = Call::Over;
        }
        Poll::Ready(event)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.leave();
    }
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = &self.progress.known;
        out.debug_struct("Turn")
            .field("turn_id", &known.turn_id)
            .field("request_id", &known.request_id)
            .finish_non_exhaustive()
    }
}

/// The pieces of the answer's text, made by [`Turn::text`].
///
/// An error of the kind [`ErrorKind::TextVoided`] says that a resend took back pieces that had been given out; the turn
/// goes on, and can be read on.
#[derive(Debug)]
pub struct Text<'a> {
    turn: &'a mut Turn,
}

impl Text<'_> {
    /// The next piece; `None` after the last, and after an error.
    pub async fn next(&mut self) -> Option<Result<String, Error>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Text<'_> {
    type Item = Result<String, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let turn = &mut *self.turn;
        loop {
            let Some(event) = ready!(Pin::new(&mut *turn).poll_next(cx)?) else { return Poll::Ready(None) };
            if matches!(event.event, Some(Event::Restarted(_))) && turn.progress.has_voided_text {
                let text = "read text: a resend took back what was read";
                return Poll::Ready(Some(Err(Error::new(ErrorKind::TextVoided, text, turn.progress.known.clone()))));
            }
            if let Some(piece) = text_delta(&event) {
                return Poll::Ready(Some(Ok(piece)));
            }
        }
    }
}

/// The task that sends a call and waits for the server to answer. A task, because a turn is sent before it is read.
struct Head(JoinHandle<Result<Streaming<StreamTurnResponse>, Status>>);

impl Head {
    fn send(client: &Client, message: &StreamTurnRequest, trace: &TraceContext, tries: &Tries) -> Self {
        let request = client.request(&message.session_id, message.clone(), tries.remaining());
        let mut turns = client.turns();
        let answer = async move { turns.stream_turn(request?).await.map(tonic::Response::into_inner) };
        Self(tokio::spawn(trace.clone().scope(answer)))
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Streaming<StreamTurnResponse>, Status>> {
        Pin::new(&mut self.0).poll(cx).map(|joined| match joined {
            Ok(answer) => answer,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(Status::cancelled("the runtime is shutting down")),
        })
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        self.0.abort();
    }
}
