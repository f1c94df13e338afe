//! A server of scripted turns. It speaks gRPC over hyper itself, because the crate has no server's stubs.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tonic_types::pb;
use warmline::tonic::{Code, Status};
use warmline::v1::turn_event::Event;
use warmline::v1::{Admitted, Completed, StreamTurnRequest, StreamTurnResponse, TextDelta, TurnEvent};
use warmline::{Client, ClientBuilder, Session};

/// The longest wait for what a test expects to happen at once; only reached when the test fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// One thing that the server does in a call. After the last it ends the stream with OK.
pub enum Play {
    /// Writes one message of events, numbered from the first on.
    Send(u64, Vec<Event>),
    /// Writes nothing more until the caller leaves; when it comes first, not even headers.
    Hang,
    /// Waits until the test lets it go on.
    Gate(tokio::sync::oneshot::Receiver<()>),
    /// Ends the stream with this.
    End(Status),
    /// Ends the stream with these trailers.
    Trailers(HeaderMap),
}

/// How a call ended at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    ByItself,
    Cancelled,
}

type Script = Arc<dyn Fn(usize, &StreamTurnRequest) -> Vec<Play> + Send + Sync>;

/// A server on a free port; dropping it breaks its connections.
pub struct Fake {
    pub address: String,
    state: Arc<State>,
    ended: UnboundedReceiver<Ended>,
    _connections: JoinSet<()>,
}

struct State {
    script: Script,
    calls: AtomicUsize,
    requests: Mutex<Vec<StreamTurnRequest>>,
    carried: Mutex<Vec<HeaderMap>>,
    ended: UnboundedSender<Ended>,
}

impl Fake {
    /// Starts a server whose turns are the script's: it is given the number of the call, from 1, and the request.
    pub async fn start(script: impl Fn(usize, &StreamTurnRequest) -> Vec<Play> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, ended) = unbounded_channel();
        let state = Arc::new(State {
            script: Arc::new(script),
            calls: AtomicUsize::new(0),
            requests: Mutex::default(),
            carried: Mutex::default(),
            ended: sender,
        });
        let mut connections = JoinSet::new();
        connections.spawn(accept(listener, state.clone()));
        Self { address, state, ended, _connections: connections }
    }

    pub fn client(&self) -> Client {
        Client::new(&self.address).unwrap()
    }

    pub fn builder(&self) -> ClientBuilder {
        Client::builder(&self.address)
    }

    /// A session whose turns create it.
    pub fn session(&self) -> Session {
        self.client().session("s1").lazy()
    }

    /// Turns that were sent.
    pub fn calls(&self) -> usize {
        self.state.calls.load(Ordering::SeqCst)
    }

    /// The requests of all turns, as they came.
    pub fn requests(&self) -> Vec<StreamTurnRequest> {
        self.state.requests.lock().unwrap().clone()
    }

    /// What the calls carried, oldest first.
    pub fn carried(&self) -> Vec<HeaderMap> {
        self.state.carried.lock().unwrap().clone()
    }

    /// How the next turn that ends did end.
    pub async fn ended(&mut self) -> Ended {
        tokio::time::timeout(PATIENCE, self.ended.recv()).await.expect("the call never ended").unwrap()
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let state = state.clone();
        let service = service_fn(move |request| answer(state.clone(), request));
        connections.spawn(async move {
            let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Scripted>, Infallible> {
    state.carried.lock().unwrap().push(request.headers().clone());
    let is_turn = request.uri().path().ends_with("/StreamTurn");
    let body = request.into_body().collect().await.map(|collected| collected.to_bytes()).unwrap_or_default();
    let (plays, ended) = if is_turn {
        let sent = StreamTurnRequest::decode(body.get(5..).unwrap_or_default()).unwrap();
        state.requests.lock().unwrap().push(sent.clone());
        let call = state.calls.fetch_add(1, Ordering::SeqCst) + 1;
        ((state.script)(call, &sent), Some(state.ended.clone()))
    } else {
        // An empty message is a good answer to every other call.
        (vec![Play::Send(0, vec![])], None)
    };
    let body = Scripted { plays: plays.into(), ended, has_ended: false };
    if matches!(body.plays.front(), Some(Play::Hang)) {
        std::future::pending::<()>().await;
    }
    Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
}

/// The body of an answer; it is dropped when the caller has left.
struct Scripted {
    plays: VecDeque<Play>,
    ended: Option<UnboundedSender<Ended>>,
    has_ended: bool,
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while let Some(Play::Gate(gate)) = self.plays.front_mut() {
            std::task::ready!(Pin::new(gate).poll(cx)).unwrap();
            self.plays.pop_front();
        }
        let frame = match self.plays.pop_front() {
            _ if self.has_ended => return Poll::Ready(None),
            Some(Play::Send(first, events)) => Frame::data(message(first, events)),
            Some(Play::Hang | Play::Gate(_)) => {
                self.plays.push_front(Play::Hang);
                return Poll::Pending;
            }
            Some(Play::End(status)) => self.end(trailers(&status)),
            Some(Play::Trailers(trailers)) => self.end(trailers),
            None => self.end(trailers(&Status::ok(""))),
        };
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Scripted {
    fn end(&mut self, trailers: HeaderMap) -> Frame<Bytes> {
        self.has_ended = true;
        Frame::trailers(trailers)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        if let Some(ended) = &self.ended {
            let _ = ended.send(if self.has_ended { Ended::ByItself } else { Ended::Cancelled });
        }
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers).unwrap();
    trailers
}

/// Trailers of a status whose details are not even base64.
pub fn broken_trailers(code: Code) -> HeaderMap {
    let mut trailers = trailers(&Status::new(code, "scripted"));
    trailers.insert("grpc-status-details-bin", HeaderValue::from_static("!?"));
    trailers
}

fn message(first: u64, events: Vec<Event>) -> Bytes {
    let numbered = events.into_iter().zip(first..).map(|(event, sequence)| {
        let attempt = u32::from(!matches!(event, Event::Admitted(_)));
        TurnEvent { sequence, attempt, event: Some(event), ..TurnEvent::default() }
    });
    let message = StreamTurnResponse { events: numbered.collect() };
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut framed).unwrap();
    framed.freeze()
}

pub fn admitted() -> Event {
    Event::Admitted(Admitted { turn_id: "turn-1".into(), request_id: "request-1".into(), ..Admitted::default() })
}

pub fn text(piece: &str) -> Event {
    Event::TextDelta(TextDelta { delta: piece.into(), item_id: "m".into(), content_index: 0 })
}

pub fn completed() -> Event {
    Event::Completed(Completed { response_id: "resp_1".into(), history_position: 2, ..Completed::default() })
}

/// A whole turn of these events between the first and the last.
pub fn says(events: impl IntoIterator<Item = Event>) -> Play {
    Play::Send(1, [admitted()].into_iter().chain(events).chain([completed()]).collect())
}

/// A status with an ErrorInfo of that reason and further details.
pub fn refusal(code: Code, reason: &str, further: Vec<prost_types::Any>) -> Status {
    let metadata = [("turn_id".to_string(), "turn-9".to_string())].into();
    let info = pb::ErrorInfo { reason: reason.into(), domain: "warmline".into(), metadata };
    let details = [vec![any("google.rpc.ErrorInfo", &info)], further].concat();
    let status = pb::Status { code: code as i32, message: "scripted".into(), details };
    Status::with_details(code, "scripted", status.encode_to_vec().into())
}

pub fn any(name: &str, detail: &impl Message) -> prost_types::Any {
    prost_types::Any { type_url: format!("type.googleapis.com/{name}"), value: detail.encode_to_vec() }
}

/// A RetryInfo of a millisecond.
pub fn soon() -> prost_types::Any {
    let delay = prost_types::Duration { seconds: 0, nanos: 1_000_000 };
    any("google.rpc.RetryInfo", &pb::RetryInfo { retry_delay: Some(delay) })
}
