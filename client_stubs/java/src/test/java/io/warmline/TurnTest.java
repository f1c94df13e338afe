package io.warmline;

import static io.warmline.FakeServer.ADMITTED;
import static io.warmline.FakeServer.COMPLETED;
import static io.warmline.FakeServer.begins;
import static io.warmline.FakeServer.message;
import static io.warmline.FakeServer.refusal;
import static io.warmline.FakeServer.says;
import static io.warmline.FakeServer.text;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Duration;
import com.google.rpc.RetryInfo;
import io.grpc.MethodDescriptor;
import io.grpc.ServerServiceDefinition;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ServerCalls;
import io.warmline.v1.Restarted;
import io.warmline.v1.StreamTurnRequest;
import io.warmline.v1.TurnEvent;
import io.warmline.v1.TurnServiceGrpc;
import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

@Timeout(60)
class TurnTest {
  private static final RetryInfo SOON =
      RetryInfo.newBuilder().setRetryDelay(Duration.newBuilder().setNanos(1_000_000)).build();
  private static final RetryInfo LATER =
      RetryInfo.newBuilder().setRetryDelay(Duration.newBuilder().setSeconds(25)).build();

  private FakeServer server;
  private Client client;

  @AfterEach
  void close() throws InterruptedException {
    client.close();
    server.close();
  }

  private Turn turn(FakeServer.Answer answer) throws Exception {
    server = new FakeServer(answer);
    client = Client.builder(server.address()).build();
    return client.session("s1").lazy().turn("hello").send();
  }

  @Test
  void textIsReadThenTheResult() throws Exception {
    try (Turn turn = turn(says(ADMITTED, text("Hello"), text(", world"), COMPLETED))) {
      List<String> pieces = new ArrayList<>();
      turn.text().forEach(pieces::add);
      TurnResult result = turn.result();

      assertEquals(List.of("Hello", ", world"), pieces);
      assertEquals("Hello, world", result.text());
      assertEquals(TurnResult.Ending.COMPLETED, result.ending());
      assertEquals("resp_1", result.responseId());
      assertEquals("turn-1", turn.turnId());
      assertFalse(turn.iterator().hasNext());
    }
  }

  @Test
  void turnThatIsClosedEarlyIsCancelledAtTheServer() throws Exception {
    Turn turn = turn(begins(ADMITTED, text("half")));
    try (turn) {
      for (TurnEvent event : turn) {
        if (event.hasTextDelta()) {
          break;
        }
      }
    }

    server.awaitCancel();
    var error = assertThrows(WarmlineException.TurnCancelled.class, turn::result);
    assertSame(error, assertThrows(WarmlineException.TurnCancelled.class, turn::result));
    assertEquals("half", turn.snapshot().text());
  }

  @Test
  void cancelOfAnotherThreadEndsAPendingRead() throws Exception {
    try (Turn turn = turn(begins(ADMITTED))) {
      assertTrue(turn.iterator().next().hasAdmitted());
      var read = CompletableFuture.supplyAsync(turn::result);

      turn.cancel();

      assertCancelled(read);
      server.awaitCancel();
    }
  }

  @Test
  void cancelOfAnotherThreadEndsAWaitForAResend() throws Exception {
    var refused = new CountDownLatch(1);
    FakeServer.Answer answer =
        (call, request, stream) -> {
          stream.onError(refusal(Status.Code.UNAVAILABLE, "SERVER_DRAINING", LATER));
          refused.countDown();
        };
    try (Turn turn = turn(answer)) {
      var read = CompletableFuture.supplyAsync(turn::result);
      assertTrue(refused.await(FakeServer.PATIENCE.toSeconds(), TimeUnit.SECONDS));

      turn.cancel();

      assertCancelled(read);
      assertEquals(1, server.calls.size());
    }
  }

  @Test
  void closedClientCancelsItsTurnsAndMakesNoOthers() throws Exception {
    Turn turn = turn(begins(ADMITTED));
    turn.iterator().next();
    Session session = client.session("s2").lazy();
    var read = CompletableFuture.supplyAsync(turn::result);

    client.close();

    assertCancelled(read);
    assertThrows(IllegalStateException.class, session.turn("hello")::send);
    assertThrows(IllegalStateException.class, session::get);
  }

  @Test
  void interruptedReadEndsTheCallAndKeepsTheInterrupt() throws Exception {
    try (Turn turn = turn(begins(ADMITTED))) {
      turn.iterator().next();
      Thread.currentThread().interrupt();

      assertThrows(WarmlineException.TurnCancelled.class, turn::result);

      assertTrue(Thread.interrupted());
      server.awaitCancel();
    }
  }

  @Test
  void deadlineEndsTheTurn() throws Exception {
    server = new FakeServer(begins(ADMITTED));
    client = Client.builder(server.address()).build();
    try (Turn turn =
        client.session("s1").lazy().turn("hello").timeout(java.time.Duration.ofMillis(50)).send()) {
      assertThrows(WarmlineException.DeadlineExceeded.class, turn::result);
    }
  }

  @Test
  void missingEventIsAGapAndCancelsTheCall() throws Exception {
    FakeServer.Answer answer =
        (call, request, stream) -> {
          stream.onNext(message(1, ADMITTED));
          stream.onNext(message(3, text("late")));
        };
    try (Turn turn = turn(answer)) {
      var error = assertThrows(WarmlineException.SequenceGap.class, turn::result);

      assertEquals("turn-1", error.turnId());
      assertTrue(error.code().isEmpty());
      server.awaitCancel();
    }
  }

  @Test
  void streamThatEndsWithoutAnEndIsAProtocolError() throws Exception {
    try (Turn turn = turn(says(ADMITTED))) {
      var error = assertThrows(WarmlineException.Protocol.class, turn::result);

      assertEquals(WarmlineException.Protocol.class, error.getClass());
    }
  }

  @Test
  void turnSucceedsWhateverStatusFollowsItsEnd() throws Exception {
    FakeServer.Answer answer =
        (call, request, stream) -> {
          stream.onNext(message(1, ADMITTED, text("done"), COMPLETED));
          stream.onError(refusal(Status.Code.ABORTED, "UPSTREAM_FAILED"));
        };
    try (Turn turn = turn(answer)) {
      assertEquals("done", turn.result().text());
    }
  }

  @Test
  void turnThatEndsByItselfIsNotCancelled() throws Exception {
    var left = new CountDownLatch(1);
    var ended = new CompletableFuture<Boolean>();
    FakeServer.Answer answer =
        (call, request, stream) -> {
          stream.onNext(message(1, ADMITTED, COMPLETED));
          new Thread(
                  () -> {
                    try {
                      left.await();
                      // Long enough for a cancel to arrive, and far below the second that the client waits.
                      TimeUnit.MILLISECONDS.sleep(50);
                    } catch (InterruptedException interrupt) {
                      ended.completeExceptionally(interrupt);
                    }
                    ended.complete(stream.isCancelled());
                    stream.onCompleted();
                  })
              .start();
        };
    Turn turn = turn(answer);
    for (TurnEvent event : turn) {
      if (event.hasCompleted()) {
        break;
      }
    }

    left.countDown();
    turn.close();

    assertFalse(ended.get());
    assertTrue(server.sawNoCancel());
  }

  @Test
  void turnWhoseEndIsNotFollowedByAStatusIsCancelled() throws Exception {
    try (Turn turn = turn(begins(ADMITTED, COMPLETED))) {
      assertEquals(TurnResult.Ending.COMPLETED, turn.result().ending());

      server.awaitCancel();
    }
  }

  static Stream<Arguments> refusals() {
    return Stream.of(
        Arguments.of("with RetryInfo", refusal(Status.Code.UNAVAILABLE, "SERVER_DRAINING", SOON), 2),
        Arguments.of("without", refusal(Status.Code.UNAVAILABLE, "TURN_DRAINED"), 1),
        Arguments.of("not reached", refusal(Status.Code.UNAVAILABLE, ""), 2),
        Arguments.of("another code", refusal(Status.Code.ABORTED, ""), 1),
        Arguments.of("rate limit", refusal(Status.Code.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMITED", SOON), 2));
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("refusals")
  void turnIsSentAgainOnlyWhereTheServerSaysSo(String name, StatusRuntimeException refusal, int calls)
      throws Exception {
    FakeServer.Answer answer =
        (call, request, stream) -> {
          if (call == 1) {
            stream.onError(refusal);
          } else {
            says(ADMITTED, COMPLETED).to(call, request, stream);
          }
        };
    try (Turn turn = turn(answer)) {
      if (calls == 1) {
        assertThrows(WarmlineException.class, turn::result);
      } else {
        turn.result();
      }

      assertEquals(calls, server.calls.size());
      var ids = server.calls.stream().map(StreamTurnRequest::getRequestId).collect(Collectors.toSet());
      assertEquals(1, ids.size());
      assertFalse(ids.contains(""));
    }
  }

  @Test
  void turnIsNotSentAgainAfterAnEvent() throws Exception {
    FakeServer.Answer answer =
        (call, request, stream) -> {
          stream.onNext(message(1, ADMITTED));
          stream.onError(refusal(Status.Code.UNAVAILABLE, "", SOON));
        };
    try (Turn turn = turn(answer)) {
      assertThrows(WarmlineException.Unavailable.class, turn::result);

      assertEquals(1, server.calls.size());
    }
  }

  @Test
  void messageThatCannotBeReadIsAServerFault() throws Exception {
    var method =
        TurnServiceGrpc.getStreamTurnMethod().toBuilder(
                TurnServiceGrpc.getStreamTurnMethod().getRequestMarshaller(), new Bytes())
            .build();
    ServerCalls.ServerStreamingMethod<StreamTurnRequest, byte[]> garbled =
        (request, stream) -> stream.onNext(new byte[] {7, 7, 7});
    var service =
        ServerServiceDefinition.builder(TurnServiceGrpc.SERVICE_NAME)
            .addMethod(method, ServerCalls.asyncServerStreamingCall(garbled))
            .build();
    server = new FakeServer(service);
    client = Client.builder(server.address()).build();
    try (Turn turn = client.attach("s1").turn("hello").send()) {
      assertThrows(WarmlineException.ServerFault.class, turn::result);
    }
  }

  private static final class Bytes implements MethodDescriptor.Marshaller<byte[]> {
    @Override
    public InputStream stream(byte[] value) {
      return new ByteArrayInputStream(value);
    }

    @Override
    public byte[] parse(InputStream stream) {
      throw new UnsupportedOperationException();
    }
  }

  @Test
  void nothingIsReadAheadOfTheCallerBeyondTheWindow() throws Exception {
    var taken = new CountDownLatch(1);
    TurnEvent big = text("x".repeat(200_000));
    FakeServer.Answer answer =
        (call, request, stream) -> {
          stream.setOnReadyHandler(
              () -> {
                // Ready for more: what was queued has left, because the client took it.
                if (stream.isReady()) {
                  taken.countDown();
                  stream.onNext(message(101, COMPLETED));
                  stream.onCompleted();
                }
              });
          for (int sequence = 1; sequence <= 100; sequence++) {
            stream.onNext(message(sequence, big));
          }
        };
    try (Turn turn = turn(answer)) {
      assertTrue(turn.iterator().next().hasTextDelta());

      // As many round trips as a client that reads ahead would take the 20 MB in.
      for (int call = 0; call < 100; call++) {
        client.session("s1").open();
      }
      assertEquals(1, taken.getCount());

      assertEquals(20_000_000, turn.result().text().length());
    }
  }

  @Test
  void textTellsWhatAResendTookBackAndTheTurnGoesOn() throws Exception {
    TurnEvent restarted = TurnEvent.newBuilder().setRestarted(Restarted.newBuilder().setAttempt(2)).build();
    try (Turn turn = turn(says(ADMITTED, text("void"), restarted, text("anew"), COMPLETED))) {
      Iterator<String> pieces = turn.text().iterator();
      assertEquals("void", pieces.next());

      assertThrows(WarmlineException.TextVoided.class, pieces::hasNext);

      assertEquals("anew", turn.result().text());
    }
  }

  private static void assertCancelled(CompletableFuture<TurnResult> read) {
    var error = assertThrows(ExecutionException.class, () -> read.get(10, TimeUnit.SECONDS));
    assertEquals(WarmlineException.TurnCancelled.class, error.getCause().getClass());
  }
}
