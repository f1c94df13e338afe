package io.warmline;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.protobuf.ByteString;
import io.warmline.v1.AttemptStarted;
import io.warmline.v1.Completed;
import io.warmline.v1.FullReason;
import io.warmline.v1.Incomplete;
import io.warmline.v1.Item;
import io.warmline.v1.Restarted;
import io.warmline.v1.Retrying;
import io.warmline.v1.SlotOutcome;
import io.warmline.v1.Transport;
import io.warmline.v1.TurnEvent;
import io.warmline.v1.Usage;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** Folds the events of one call, in order. Linear in their number. Pure. */
final class TurnProgress {
  private static final String TEXT_DELTA = "response.output_text.delta";

  /** An item that is done; {@code text} is a message's, else blank. */
  private record Finished(long sequence, int attempt, ByteString item, String text) {}

  private String turnId;
  private String requestId;
  private String conversationId = "";
  private String responseId = "";
  private String upstreamRequestId;
  private long sequence;
  private int attempts;
  private int unknownEvents;
  private boolean hasVoidedText;

  private TurnResult.Ending ending = TurnResult.Ending.UNFINISHED;
  private AttemptStarted attempt = AttemptStarted.getDefaultInstance();
  private String fellBack;
  private String serverModel = "";
  private Usage usage;
  private Boolean endTurn;
  private String incompleteReason;
  private long historyPosition;

  private List<Finished> items = new ArrayList<>();

  /** What was streamed of messages that are not finished, by item id (blank when not told), in order of their beginning. */
  private final Map<String, StringBuilder> openText = new LinkedHashMap<>();

  TurnProgress(String turnId, String requestId) {
    this.turnId = turnId;
    this.requestId = requestId;
  }

  /**
   * Takes the next event.
   *
   * @return whether the caller shall see it; false for a member that this client does not know
   * @throws WarmlineException.SequenceGap an event is missing or doubled; the progress stays as it was
   */
  boolean accept(TurnEvent event) {
    if (event.getSequence() != sequence + 1) {
      String found = "event " + Long.toUnsignedString(event.getSequence()) + " came, expected " + (sequence + 1);
      throw WarmlineException.here(WarmlineException.SequenceGap::new, "read turn events: " + found, facts());
    }
    sequence++;
    attempts = Math.max(attempts, event.getAttempt());
    if (event.getEventCase() == TurnEvent.EventCase.EVENT_NOT_SET) {
      unknownEvents++;
      return false;
    }
    take(event);
    return true;
  }

  /** Whether anything of the call was delivered. */
  boolean hasBegun() {
    return sequence > 0;
  }

  /** Whether the last event has come. */
  boolean isOver() {
    return ending != TurnResult.Ending.UNFINISHED;
  }

  /** Whether a resend took back text that had been delivered. */
  boolean hasVoidedText() {
    return hasVoidedText;
  }

  /** The ids so far, for an error. */
  CallFacts facts() {
    return new CallFacts(turnId, requestId, responseId, upstreamRequestId, attempts);
  }

  /** The piece of the answer's text that an event carries, typed or raw; empty for any other event. */
  static Optional<String> textDelta(TurnEvent event) {
    if (event.hasTextDelta()) {
      return Optional.of(event.getTextDelta().getDelta());
    }
    if (event.hasRaw() && event.getUpstreamType().equals(TEXT_DELTA)) {
      return Optional.of(Json.text(Json.object(event.getPayloadJson()), "delta"));
    }
    return Optional.empty();
  }

  /** The outcome so far; the events' end decides when it is final. */
  TurnResult snapshot() {
    List<JsonObject> outputs = items.stream().map(finished -> Json.object(finished.item())).toList();
    return new TurnResult(
        ending,
        items.stream().map(Finished::text).collect(Collectors.joining()) + String.join("", openText.values()),
        items.stream().map(finished -> Items.json(finished.item())).toList(),
        outputs.stream().filter(output -> isOf(output, "function_call")).map(TurnProgress::functionCall).toList(),
        outputs.stream().filter(output -> isOf(output, "custom_tool_call")).map(TurnProgress::customToolCall).toList(),
        turnId,
        requestId,
        conversationId,
        responseId,
        Optional.ofNullable(upstreamRequestId),
        Optional.ofNullable(usage),
        Optional.ofNullable(endTurn),
        Optional.ofNullable(incompleteReason),
        isOver() ? OptionalLong.of(historyPosition) : OptionalLong.empty(),
        attempts,
        name(SlotOutcome.forNumber(attempt.getSlotOutcomeValue()), attempt.getSlotOutcomeValue(), "SLOT_OUTCOME_"),
        name(Transport.forNumber(attempt.getTransportValue()), attempt.getTransportValue(), "TRANSPORT_"),
        attempt.getConnectionId(),
        attempt.getIncremental(),
        name(FullReason.forNumber(attempt.getFullReasonValue()), attempt.getFullReasonValue(), "FULL_REASON_"),
        Optional.ofNullable(fellBack),
        serverModel,
        unknownEvents,
        unknownValues());
  }

  /** How many enum values of the newest attempt only a newer server knows. */
  private int unknownValues() {
    return Stream.<Enum<?>>of(attempt.getSlotOutcome(), attempt.getTransport(), attempt.getFullReason())
        .mapToInt(value -> value.name().equals("UNRECOGNIZED") ? 1 : 0)
        .sum();
  }

  private void take(TurnEvent event) {
    switch (event.getEventCase()) {
      case ADMITTED -> {
        turnId = event.getAdmitted().getTurnId();
        requestId = event.getAdmitted().getRequestId();
        conversationId = event.getAdmitted().getConversationId();
      }
      case ATTEMPT_STARTED -> {
        attempt = event.getAttemptStarted();
        responseId = "";
        upstreamRequestId = null;
      }
      case RETRYING -> takeRetrying(event.getRetrying());
      case FELL_BACK -> fellBack = event.getFellBack().getReason();
      case RESTARTED -> takeRestarted(event.getRestarted());
      case CREATED -> responseId = event.getCreated().getResponseId();
      case ITEM_DONE -> finishItem(event, event.getItemDone().getItem());
      case TEXT_DELTA -> stream(event.getTextDelta().getItemId(), event.getTextDelta().getDelta());
      case SERVER_MODEL -> serverModel = event.getServerModel().getModel();
      case COMPLETED -> takeCompleted(event.getCompleted());
      case INCOMPLETE -> takeIncomplete(event.getIncomplete());
      case RAW -> takeRaw(event);
      default -> {}
    }
  }

  private void takeRetrying(Retrying retrying) {
    responseId = retrying.getResponseId();
    upstreamRequestId = retrying.hasUpstreamRequestId() ? retrying.getUpstreamRequestId() : null;
  }

  private void takeRestarted(Restarted restarted) {
    Set<Long> kept = Set.copyOf(restarted.getKeptItemSequencesList());
    Map<Boolean, List<Finished>> byCounting =
        items.stream()
            .collect(
                Collectors.partitioningBy(
                    item -> item.attempt() >= restarted.getAttempt() || kept.contains(item.sequence())));
    hasVoidedText |=
        !openText.isEmpty() || byCounting.get(false).stream().anyMatch(item -> !item.text().isEmpty());
    items = new ArrayList<>(byCounting.get(true));
    openText.clear();
  }

  private void takeCompleted(Completed completed) {
    ending = TurnResult.Ending.COMPLETED;
    responseId = completed.getResponseId().isEmpty() ? responseId : completed.getResponseId();
    upstreamRequestId = completed.hasUpstreamRequestId() ? completed.getUpstreamRequestId() : null;
    usage = completed.hasUsage() ? completed.getUsage() : null;
    endTurn = completed.hasEndTurn() ? completed.getEndTurn() : null;
    historyPosition = completed.getHistoryPosition();
  }

  private void takeIncomplete(Incomplete incomplete) {
    ending = TurnResult.Ending.INCOMPLETE;
    responseId = incomplete.getResponseId().isEmpty() ? responseId : incomplete.getResponseId();
    upstreamRequestId = incomplete.hasUpstreamRequestId() ? incomplete.getUpstreamRequestId() : null;
    usage = incomplete.hasUsage() ? incomplete.getUsage() : null;
    incompleteReason = incomplete.getReason();
    historyPosition = incomplete.getHistoryPosition();
  }

  /** Reads what a result needs of events that the caller asked to have raw. */
  private void takeRaw(TurnEvent event) {
    ByteString payload = event.getPayloadJson();
    switch (event.getUpstreamType()) {
      case "response.output_item.done" ->
          Json.verbatimMember(payload, "item").ifPresent(item -> finishItem(event, Items.json(item)));
      case TEXT_DELTA -> {
        JsonObject delta = Json.object(payload);
        stream(Json.text(delta, "item_id"), Json.text(delta, "delta"));
      }
      case "response.created" -> {
        JsonElement response = Json.object(payload).get("response");
        responseId = response instanceof JsonObject object ? Json.text(object, "id") : "";
      }
      default -> {}
    }
  }

  private void stream(String itemId, String delta) {
    openText.computeIfAbsent(itemId, id -> new StringBuilder()).append(delta);
  }

  private void finishItem(TurnEvent event, Item item) {
    JsonObject output = Json.object(item.getJson());
    if (isOf(output, "message")) {
      openText.remove(Json.text(output, "id"));
      openText.remove("");
    }
    items.add(new Finished(event.getSequence(), event.getAttempt(), item.getJson(), messageText(output)));
  }

  private static boolean isOf(JsonObject output, String type) {
    return Json.text(output, "type").equals(type);
  }

  /** The text of a message's parts; blank for any other item. */
  private static String messageText(JsonObject output) {
    if (!isOf(output, "message") || output.get("content") == null || !output.get("content").isJsonArray()) {
      return "";
    }
    var text = new StringBuilder();
    for (JsonElement part : output.getAsJsonArray("content")) {
      if (part instanceof JsonObject object && isOf(object, "output_text")) {
        text.append(Json.text(object, "text"));
      }
    }
    return text.toString();
  }

  private static FunctionCall functionCall(JsonObject output) {
    return new FunctionCall(Json.text(output, "call_id"), Json.text(output, "name"), Json.text(output, "arguments"));
  }

  private static CustomToolCall customToolCall(JsonObject output) {
    return new CustomToolCall(Json.text(output, "call_id"), Json.text(output, "name"), Json.text(output, "input"));
  }

  /** A value's name without its prefix, blank for UNSPECIFIED, the number when a newer server made it. */
  private static String name(Enum<?> value, int number, String prefix) {
    if (number == 0) {
      return "";
    }
    return value == null ? String.valueOf(number) : value.name().substring(prefix.length());
  }
}
