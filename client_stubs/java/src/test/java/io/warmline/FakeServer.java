package io.warmline;

import com.google.protobuf.Any;
import com.google.protobuf.Message;
import com.google.rpc.ErrorInfo;
import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.ServerServiceDefinition;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import io.warmline.v1.Admitted;
import io.warmline.v1.Completed;
import io.warmline.v1.CreateSessionRequest;
import io.warmline.v1.CreateSessionResponse;
import io.warmline.v1.SessionServiceGrpc;
import io.warmline.v1.StreamTurnRequest;
import io.warmline.v1.StreamTurnResponse;
import io.warmline.v1.TextDelta;
import io.warmline.v1.TurnEvent;
import io.warmline.v1.TurnServiceGrpc;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** A server on this machine whose turns are a function's, and whose sessions always are there. */
final class FakeServer implements AutoCloseable {
  /** Longest wait for what a test expects to happen at once; only reached when the test fails. */
  static final Duration PATIENCE = Duration.ofSeconds(10);

  /** Answers one send of a turn; {@code call} counts from 1. */
  interface Answer {
    void to(int call, StreamTurnRequest request, ServerCallStreamObserver<StreamTurnResponse> stream);
  }

  static final TurnEvent ADMITTED =
      TurnEvent.newBuilder().setAdmitted(Admitted.newBuilder().setTurnId("turn-1").setRequestId("request-1")).build();
  static final TurnEvent COMPLETED =
      TurnEvent.newBuilder().setCompleted(Completed.newBuilder().setResponseId("resp_1").setHistoryPosition(2)).build();

  final List<StreamTurnRequest> calls = new CopyOnWriteArrayList<>();
  final BlockingQueue<Metadata> metadata = new LinkedBlockingQueue<>();
  private final BlockingQueue<Boolean> cancels = new LinkedBlockingQueue<>();
  private final Server server;
  private final String address;

  FakeServer(Answer answer) throws IOException {
    server = serve(new Turns(answer).bindService());
    address = "127.0.0.1:" + server.getPort();
  }

  /** A server with another service of turns. */
  FakeServer(ServerServiceDefinition turns) throws IOException {
    server = serve(turns);
    address = "127.0.0.1:" + server.getPort();
  }

  private Server serve(ServerServiceDefinition turns) throws IOException {
    return Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
        .addService(turns)
        .addService(new Sessions())
        .intercept(new Noting())
        .build()
        .start();
  }

  /** Where it listens, or did. */
  String address() {
    return address;
  }

  /** Waits until a call was given up by its caller. */
  void awaitCancel() throws InterruptedException {
    if (cancels.poll(PATIENCE.toSeconds(), TimeUnit.SECONDS) == null) {
      throw new AssertionError("the server never saw the cancel");
    }
  }

  /** Whether no call was given up by its caller. */
  boolean sawNoCancel() {
    return cancels.isEmpty();
  }

  @Override
  public void close() throws InterruptedException {
    server.shutdownNow().awaitTermination();
  }

  /** A piece of the answer's text. */
  static TurnEvent text(String piece) {
    return TurnEvent.newBuilder().setTextDelta(TextDelta.newBuilder().setDelta(piece).setItemId("m")).build();
  }

  /** One message of events that are numbered from {@code first}. */
  static StreamTurnResponse message(long first, TurnEvent... events) {
    var made = StreamTurnResponse.newBuilder();
    for (int number = 0; number < events.length; number++) {
      made.addEvents(events[number].toBuilder().setSequence(first + number).setAttempt(1));
    }
    return made.build();
  }

  /** Answers with one message, and ends well. */
  static Answer says(TurnEvent... events) {
    return (call, request, stream) -> {
      stream.onNext(message(1, events));
      stream.onCompleted();
    };
  }

  /** Answers with one message, and then with nothing until the caller leaves. */
  static Answer begins(TurnEvent... events) {
    return (call, request, stream) -> stream.onNext(message(1, events));
  }

  /** A status with an ErrorInfo of that reason, unless it is blank, and further details. */
  static StatusRuntimeException refusal(Status.Code code, String reason, Message... details) {
    var status = com.google.rpc.Status.newBuilder().setCode(code.value()).setMessage("scripted");
    if (!reason.isEmpty()) {
      var info = ErrorInfo.newBuilder().setReason(reason).setDomain("warmline").putMetadata("turn_id", "turn-9");
      status.addDetails(Any.pack(info.build()));
    }
    for (Message detail : details) {
      status.addDetails(Any.pack(detail));
    }
    return StatusProto.toStatusRuntimeException(status.build());
  }

  private final class Turns extends TurnServiceGrpc.TurnServiceImplBase {
    private final Answer answer;

    Turns(Answer answer) {
      this.answer = answer;
    }

    @Override
    public void streamTurn(StreamTurnRequest request, StreamObserver<StreamTurnResponse> observer) {
      var stream = (ServerCallStreamObserver<StreamTurnResponse>) observer;
      stream.setOnCancelHandler(() -> cancels.add(true));
      calls.add(request);
      answer.to(calls.size(), request, stream);
    }
  }

  private static final class Sessions extends SessionServiceGrpc.SessionServiceImplBase {
    @Override
    public void createSession(CreateSessionRequest request, StreamObserver<CreateSessionResponse> observer) {
      observer.onNext(CreateSessionResponse.newBuilder().setCreated(true).build());
      observer.onCompleted();
    }
  }

  private final class Noting implements ServerInterceptor {
    @Override
    public <Q, A> ServerCall.Listener<Q> interceptCall(
        ServerCall<Q, A> call, Metadata headers, ServerCallHandler<Q, A> next) {
      metadata.add(headers);
      return next.startCall(call, headers);
    }
  }
}
