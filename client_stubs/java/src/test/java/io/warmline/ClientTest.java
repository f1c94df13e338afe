package io.warmline;

import static io.warmline.FakeServer.ADMITTED;
import static io.warmline.FakeServer.COMPLETED;
import static io.warmline.FakeServer.says;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanContext;
import io.opentelemetry.api.trace.TraceFlags;
import io.opentelemetry.api.trace.TraceState;
import io.warmline.v1.ListModelsRequest;
import io.warmline.v1.SessionServiceGrpc;
import io.warmline.v1.StreamTurnRequest;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

@Timeout(60)
class ClientTest {
  private static final String TRACE = "0af7651916cd43dd8448eb211c80319c";
  private static final String SPAN = "b7ad6b7169203331";

  private static String header(Metadata headers, String name) {
    return headers.get(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER));
  }

  @Test
  void versionIsTheArtifacts() {
    assertEquals(System.getProperty("project.version"), Client.VERSION);
  }

  @Test
  void callsCarryWhatTheyMust() throws Exception {
    var tokens = new AtomicInteger();
    var span = Span.wrap(SpanContext.create(TRACE, SPAN, TraceFlags.getSampled(), TraceState.getDefault()));
    try (var server = new FakeServer(says(ADMITTED, COMPLETED));
        var client = Client.builder(server.address()).token(() -> "t" + tokens.incrementAndGet()).build();
        var current = span.makeCurrent();
        var session = client.session("s1").model("m").open();
        var turn = session.turn("hello").send()) {
      turn.result();

      Metadata create = server.metadata.take();
      Metadata stream = server.metadata.take();
      assertEquals("Bearer t1", header(create, "authorization"));
      assertEquals("Bearer t2", header(stream, "authorization"));
      assertEquals("00-" + TRACE + "-" + SPAN + "-01", header(stream, "traceparent"));
      assertEquals("s1", header(stream, "x-warmline-session"));
      assertTrue(header(stream, "user-agent").startsWith("warmline-java/0.1.0"));
      StreamTurnRequest request = server.calls.get(0);
      assertEquals("m", request.getSessionConfig().getRequestDefaults().getModel());
      assertFalse(request.hasOptions());
    }
  }

  @Test
  void callWithoutASpanAndWithAnIdThatIsNotAllowedCarriesNeither() throws Exception {
    try (var server = new FakeServer(says(ADMITTED, COMPLETED));
        var client = Client.builder(server.address()).build();
        var turn = client.attach("not allowed").turn("hello").send()) {
      turn.result();

      Metadata stream = server.metadata.take();
      assertNull(header(stream, "x-warmline-session"));
      assertNull(header(stream, "traceparent"));
      assertFalse(server.calls.get(0).hasSessionConfig());
    }
  }

  @Test
  void rawStubCarriesTheTokenToo() throws Exception {
    try (var server = new FakeServer(says());
        var client = Client.builder(server.address()).token("secret").build()) {
      var stub = SessionServiceGrpc.newBlockingStub(client.channel());

      assertThrows(StatusRuntimeException.class, () -> stub.listModels(ListModelsRequest.getDefaultInstance()));

      assertEquals("Bearer secret", header(server.metadata.take(), "authorization"));
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"warmline.example:443", "127.0.0.1.example:1", "localhost.example", "dns://127.0.0.1/example"})
  void tokenIsNotSentBeyondThisMachineInPlainText(String target) {
    ClientBuilder client = Client.builder(target).token("secret");

    var error = assertThrows(IllegalArgumentException.class, client::build);

    assertFalse(error.getMessage().contains("secret"));
    client.allowPlaintextToken().build().close();
    Client.builder(target).token("secret").tls().build().close();
  }

  @ParameterizedTest
  @CsvSource({"127.0.0.1:1", "localhost:1", "[::1]:1", "dns:///127.8.9.1:1", "dns:localhost:1", "unix:/tmp/socket"})
  void loopbackIsKnownByItsSpelling(String target) {
    assertTrue(ClientBuilder.isLoopback(target));
  }

  @Test
  void tokenThatAHeaderCannotCarryIsNotRepeated() throws Exception {
    try (var server = new FakeServer(says(ADMITTED, COMPLETED));
        var client = Client.builder(server.address()).token("secret\u0007").build();
        var turn = client.attach("s1").turn("hello").send()) {
      var error = assertThrows(WarmlineException.Unauthenticated.class, turn::result);

      assertFalse(error.toString().contains("secret"));
      assertThrows(WarmlineException.Unauthenticated.class, client.attach("s1")::get);
    }
  }

  @Test
  void messageThatIsTooLongIsALimit() throws Exception {
    try (var server = new FakeServer(says(ADMITTED, FakeServer.text("x".repeat(2000)), COMPLETED));
        var client = Client.builder(server.address()).maxMessageBytes(1000).build();
        var incoming = client.attach("s1").turn("hello").send();
        var outgoing = client.attach("s1").turn("x".repeat(2000)).send()) {
      assertThrows(WarmlineException.LimitExceeded.class, outgoing::result);
      assertThrows(WarmlineException.LimitExceeded.class, incoming::result);
      assertThrows(WarmlineException.LimitExceeded.class, client.attach("s1").turn("x".repeat(2000)).send()::result);

      assertEquals(1, server.calls.size());
    }
  }

  @Test
  void serverThatCannotBeReachedIsDialledForEachResend() throws Exception {
    var dials = new AtomicInteger();
    try (var listener = new ServerSocket(0, 50, InetAddress.getLoopbackAddress())) {
      var accepting =
          new Thread(
              () -> {
                try {
                  while (true) {
                    listener.accept().close();
                    dials.incrementAndGet();
                  }
                } catch (IOException closed) {
                  // The test is over.
                }
              });
      accepting.start();
      // gRPC's own second dial comes after a second, its third after some more.
      Duration wait = Duration.ofMillis(20);
      try (var client =
          Client.builder("127.0.0.1:" + listener.getLocalPort())
              .retry(new Retry(40, wait, wait, Duration.ofSeconds(30)))
              .build()) {
        assertThrows(WarmlineException.Unavailable.class, client.attach("s1")::get);
      }
    }
    assertTrue(dials.get() > 4, "dialled " + dials.get() + " times");
  }

  @Test
  void sessionThatIsGoneIsClosed() throws Exception {
    try (var server = new FakeServer(says());
        var client = Client.builder(server.address()).build()) {
      // This server has no CloseSession: UNIMPLEMENTED is no close.
      assertThrows(
          WarmlineException.NotImplementedByServer.class, client.session("s1").closeOnExit().lazy()::close);
      client.session("s1").lazy().close();
      server.close();
      var unreachable = Client.builder(server.address()).retry(Retry.DEFAULT.withMaxTries(1)).build();
      unreachable.session("s1").closeOnExit().lazy().close();
      unreachable.close();
    }
  }
}
