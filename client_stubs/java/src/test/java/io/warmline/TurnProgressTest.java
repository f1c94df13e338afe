package io.warmline;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.UnknownFieldSet;
import io.warmline.v1.AttemptStarted;
import io.warmline.v1.Completed;
import io.warmline.v1.Incomplete;
import io.warmline.v1.Item;
import io.warmline.v1.ItemDone;
import io.warmline.v1.RawEvent;
import io.warmline.v1.Restarted;
import io.warmline.v1.ResponseCreated;
import io.warmline.v1.Retrying;
import io.warmline.v1.TextDelta;
import io.warmline.v1.TurnEvent;
import java.util.List;
import java.util.Optional;
import java.util.OptionalLong;
import org.junit.jupiter.api.Test;

class TurnProgressTest {
  private static final String GREETING =
      "{\"id\":\"m1\",\"type\":\"message\",  \"content\":"
          + "[{\"type\":\"output_text\",\"text\":\"Hi\"},{\"type\":\"refusal\",\"text\":\"no\"}]}";

  private final TurnProgress progress = new TurnProgress("turn", "request");
  private long sequence;

  private boolean take(int attempt, TurnEvent.Builder event) {
    return progress.accept(event.setSequence(++sequence).setAttempt(attempt).build());
  }

  private static TurnEvent.Builder delta(String itemId, String text) {
    return TurnEvent.newBuilder().setTextDelta(TextDelta.newBuilder().setItemId(itemId).setDelta(text));
  }

  private static TurnEvent.Builder done(String item) {
    return TurnEvent.newBuilder().setItemDone(ItemDone.newBuilder().setItem(Items.json(item)));
  }

  private static TurnEvent.Builder raw(String type, String payload) {
    return TurnEvent.newBuilder()
        .setUpstreamType(type)
        .setPayloadJson(ByteString.copyFromUtf8(payload))
        .setRaw(RawEvent.getDefaultInstance());
  }

  @Test
  void finishedMessageReplacesWhatWasStreamedOfIt() {
    take(1, delta("m1", "H"));
    take(1, delta("m2", "unfinished"));
    take(1, delta("", "unnamed"));
    take(1, done(GREETING));

    assertEquals("Hiunfinished", progress.snapshot().text());
    assertEquals(List.of(Items.json(GREETING)), progress.snapshot().items());
  }

  @Test
  void callsAreFoundAmongTheItems() {
    take(1, done("{\"type\":\"function_call\",\"call_id\":\"c1\",\"name\":\"look\",\"arguments\":\"{}\"}"));
    take(1, done("{\"type\":\"custom_tool_call\",\"call_id\":\"c2\",\"name\":\"sh\",\"input\":7}"));
    take(1, done("no JSON"));

    assertEquals(List.of(new FunctionCall("c1", "look", "{}")), progress.snapshot().functionCalls());
    assertEquals(List.of(new CustomToolCall("c2", "sh", "")), progress.snapshot().customToolCalls());
    assertEquals(3, progress.snapshot().items().size());
  }

  @Test
  void rawEventsMakeTheSameResult() {
    take(1, raw("response.created", "{\"response\":{\"id\":\"resp_1\"}}"));
    take(1, raw("response.output_text.delta", "{\"item_id\":\"m2\",\"delta\":\"more\"}"));
    take(1, raw("response.output_item.done", "{ \"a\":[\"}\\\"\\\\\"] , \"item\" : " + GREETING + " }"));
    take(1, raw("response.output_item.done", "{}"));
    take(1, raw("response.output_text.delta", "no JSON"));

    assertEquals("resp_1", progress.snapshot().responseId());
    assertEquals("Himore", progress.snapshot().text());
    assertEquals(List.of(Items.json(GREETING)), progress.snapshot().items());
  }

  @Test
  void restartKeepsWhatItNamesAndVoidsTheRest() {
    take(1, done("{\"type\":\"function_call\",\"call_id\":\"kept\"}"));
    take(1, done("{\"type\":\"function_call\",\"call_id\":\"void\"}"));
    var restarted = Restarted.newBuilder().setAttempt(2).addKeptItemSequences(1);
    take(2, TurnEvent.newBuilder().setRestarted(restarted));
    assertFalse(progress.hasVoidedText());
    take(2, done(GREETING));
    take(3, TurnEvent.newBuilder().setRestarted(restarted.setAttempt(3)));

    assertTrue(progress.hasVoidedText());
    assertEquals(List.of(new FunctionCall("kept", "", "")), progress.snapshot().functionCalls());
    assertEquals("", progress.snapshot().text());
    assertEquals(3, progress.snapshot().attempts());
  }

  @Test
  void gapIsFoundAndChangesNothing() {
    take(1, delta("m", "a"));
    sequence++;

    assertThrows(WarmlineException.SequenceGap.class, () -> take(1, delta("m", "b")));
    sequence = 0;
    assertThrows(WarmlineException.SequenceGap.class, () -> take(1, delta("m", "a")));
    take(1, delta("m", "c"));

    assertEquals("ac", progress.snapshot().text());
  }

  @Test
  void unknownMemberIsCountedAndUnknownValueStaysANumber() throws InvalidProtocolBufferException {
    var unknown = UnknownFieldSet.Field.newBuilder().addLengthDelimited(ByteString.EMPTY).build();
    var event = TurnEvent.newBuilder().setUnknownFields(UnknownFieldSet.newBuilder().addField(99, unknown).build());

    assertFalse(take(1, TurnEvent.newBuilder().mergeFrom(event.build().toByteArray())));
    assertTrue(take(1, TurnEvent.newBuilder().setAttemptStarted(AttemptStarted.newBuilder().setTransportValue(77))));

    assertEquals(1, progress.snapshot().unknownEvents());
    assertEquals("77", progress.snapshot().transport());
    assertEquals(1, progress.snapshot().unknownValues());
    assertEquals("", progress.snapshot().slotOutcome());
  }

  @Test
  void idsAreThoseOfTheNewestAttempt() {
    take(1, TurnEvent.newBuilder().setCreated(ResponseCreated.newBuilder().setResponseId("resp_1")));
    var retrying = Retrying.newBuilder().setResponseId("resp_1").setUpstreamRequestId("req_1");
    take(1, TurnEvent.newBuilder().setRetrying(retrying));
    assertEquals(new CallFacts("turn", "request", "resp_1", "req_1", 1), progress.facts());
    take(2, TurnEvent.newBuilder().setAttemptStarted(AttemptStarted.getDefaultInstance()));
    assertEquals(new CallFacts("turn", "request", "", null, 2), progress.facts());
    assertEquals(OptionalLong.empty(), progress.snapshot().historyPosition());
    take(2, TurnEvent.newBuilder().setCompleted(Completed.newBuilder().setResponseId("resp_2").setEndTurn(false)));

    assertEquals("resp_2", progress.snapshot().responseId());
    assertEquals(Optional.of(false), progress.snapshot().endTurn());
    assertEquals(OptionalLong.of(0), progress.snapshot().historyPosition());
  }

  @Test
  void incompleteResponseSaysWhy() {
    take(1, TurnEvent.newBuilder().setIncomplete(Incomplete.newBuilder().setReason("max_output_tokens")));

    assertTrue(progress.isOver());
    assertEquals(Optional.of("max_output_tokens"), progress.snapshot().incompleteReason());
  }

  @Test
  void itemThatIsDeeplyNestedIsRead() {
    String deep = "[".repeat(5000) + "]".repeat(5000);
    String item = "{\"type\":\"message\",\"id\":\"m1\",\"x\":" + deep + "}";
    take(1, delta("m1", "streamed"));
    take(1, raw("response.output_item.done", "{\"item\":" + item + "}"));

    Item found = progress.snapshot().items().get(0);

    assertEquals(item, found.getJson().toStringUtf8());
    assertEquals("", progress.snapshot().text());
  }
}
