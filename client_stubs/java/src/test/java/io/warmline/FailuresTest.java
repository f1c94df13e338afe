package io.warmline;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.warmline.v1.UpstreamError;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;

class FailuresTest {
  private static final Path TABLES = Path.of("../scenarios/README.md");

  private static WarmlineException read(StatusRuntimeException refusal) {
    return Failures.read(refusal.getStatus(), refusal.getTrailers(), CallFacts.NONE, refusal);
  }

  /** The kinds that the tables of all languages have for these names. */
  private static Map<String, String> kinds(Pattern cell) throws IOException {
    Map<String, String> kinds = new TreeMap<>();
    Matcher row = cell.matcher(Files.readString(TABLES));
    while (row.find()) {
      for (String name : row.group(1).split(", ")) {
        kinds.put(name, row.group(2));
      }
    }
    return kinds;
  }

  @Test
  void everyReasonOfTheTableHasItsKind() throws IOException {
    Map<String, String> expected = kinds(Pattern.compile("(?m)^\\| ([A-Z_, ]+) \\| (\\w+) \\|$"));
    Map<String, String> found = new TreeMap<>();
    for (String reason : expected.keySet()) {
      found.put(reason, read(FakeServer.refusal(Status.Code.UNKNOWN, reason)).getClass().getSimpleName());
    }

    assertEquals(18, expected.size());
    assertEquals(expected, found);
  }

  @Test
  void everyCodeOfTheTableHasItsKind() throws IOException {
    Map<String, String> expected = kinds(Pattern.compile("\\| ([A-Z_, ]+) \\| (\\w+) \\| \\|"));
    expected.putAll(kinds(Pattern.compile("\\| \\| ([A-Z_, ]+) \\| (\\w+) \\|(?! \\|)")));
    Map<String, String> found = new TreeMap<>();
    for (Status.Code code : Status.Code.values()) {
      if (code != Status.Code.OK) {
        found.put(code.name(), read(FakeServer.refusal(code, "")).getClass().getSimpleName());
      }
    }

    assertEquals(expected, found);
  }

  @Test
  void detailsAreRead() {
    var invalid = BadRequest.FieldViolation.newBuilder().setField("input").setDescription("is empty");
    var words = UpstreamError.newBuilder().setStatus(400).setMessage("no").build();
    var error =
        read(
            FakeServer.refusal(
                Status.Code.INVALID_ARGUMENT,
                "INVALID_REQUEST",
                BadRequest.newBuilder().addFieldViolations(invalid).build(),
                words));

    assertEquals(List.of(new FieldViolation("input", "is empty")), error.fieldViolations());
    assertEquals(words, error.upstream().orElseThrow());
    assertEquals("turn-9", error.turnId());
    assertEquals("INVALID_REQUEST: scripted (turn turn-9)", error.getMessage());
  }

  @Test
  void whatTheServerTellsOverrulesWhatIsKnownAndTheRestStays() {
    var known = new CallFacts("turn-1", "request-1", "resp_1", null, 3);
    var refusal = FakeServer.refusal(Status.Code.ABORTED, "LANE_BUSY");
    var error = Failures.read(refusal.getStatus(), refusal.getTrailers(), known, refusal);

    assertEquals(new CallFacts("turn-9", "request-1", "resp_1", null, 3), error.facts());
  }

  @Test
  void errorInfoOfAnotherDomainIsNoReasonAndNoTransportFailure() {
    var foreign = ErrorInfo.newBuilder().setDomain("proxy").setReason("LANE_BUSY").build();
    var error = read(FakeServer.refusal(Status.Code.UNAVAILABLE, "", foreign));

    assertEquals("", error.reason());
    assertFalse(error.isTransportFailure());
    assertTrue(read(FakeServer.refusal(Status.Code.UNAVAILABLE, "")).isTransportFailure());
  }

  @Test
  void unreadableDetailsAreLeftOut() {
    var broken = Any.pack(ErrorInfo.getDefaultInstance()).toBuilder().setValue(ByteString.copyFromUtf8("\u0007")).build();
    var status = com.google.rpc.Status.newBuilder().addDetails(broken).build();
    for (byte[] bytes : List.of(status.toByteArray(), new byte[] {7, 7, 7})) {
      var trailers = new Metadata();
      trailers.put(Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER), bytes);

      var error = Failures.read(Status.NOT_FOUND.withDescription("gone"), trailers, CallFacts.NONE, null);

      assertEquals("NotFound: gone", error.getMessage());
    }
  }
}
