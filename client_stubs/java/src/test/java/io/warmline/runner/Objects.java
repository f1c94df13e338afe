package io.warmline.runner;

import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import io.warmline.TurnResult;
import io.warmline.WarmlineException;
import io.warmline.v1.UpstreamError;
import io.warmline.v1.Usage;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Optional;
import java.util.function.Function;

/** The result object and the error object of client_stubs/scenarios/README.md. */
final class Objects {
  private static final Gson GSON = new Gson();

  private Objects() {}

  /** A turn's outcome so far. */
  static JsonObject result(Played played) {
    TurnResult result = played.turn.snapshot();
    var made = new JsonObject();
    made.addProperty("ending", result.ending().name().toLowerCase());
    made.addProperty("text", result.text());
    made.addProperty("text_bytes", result.text().getBytes(StandardCharsets.UTF_8).length);
    made.add("items", list(result.items(), item -> new JsonPrimitive(item.getJson().toStringUtf8())));
    made.add("function_calls", list(result.functionCalls(), call -> call(call.callId(), call.name(), "arguments", call.arguments())));
    made.add("custom_tool_calls", list(result.customToolCalls(), call -> call(call.callId(), call.name(), "input", call.input())));
    made.addProperty("turn_id", result.turnId());
    made.addProperty("request_id", result.requestId());
    made.addProperty("conversation_id", result.conversationId());
    made.addProperty("response_id", result.responseId());
    made.add("upstream_request_id", known(result.upstreamRequestId()));
    made.add("usage", known(result.usage().map(Objects::usage)));
    made.add("end_turn", known(result.endTurn()));
    made.add("incomplete_reason", known(result.incompleteReason()));
    boolean hasPosition = result.historyPosition().isPresent();
    made.add("history_position", known(hasPosition ? Optional.of(result.historyPosition().getAsLong()) : Optional.empty()));
    made.addProperty("attempts", result.attempts());
    made.addProperty("slot_outcome", result.slotOutcome());
    made.addProperty("transport", result.transport());
    made.addProperty("connection_id", result.connectionId());
    made.addProperty("incremental", result.incremental());
    made.addProperty("full_reason", result.fullReason());
    made.add("fell_back", known(result.fellBack()));
    made.addProperty("server_model", result.serverModel());
    made.addProperty("unknown_events", result.unknownEvents());
    made.addProperty("unknown_values", result.unknownValues());
    made.add("events", GSON.toJsonTree(played.events));
    made.addProperty("payloads", played.payloads);
    return made;
  }

  /** An error. */
  static JsonObject error(WarmlineException error) {
    var made = new JsonObject();
    made.addProperty("kind", error.getClass().getSimpleName());
    made.add("code", known(error.code().map(Enum::name)));
    made.addProperty("reason", error.reason());
    made.addProperty("turn_id", error.turnId());
    made.addProperty("request_id", error.requestId());
    made.addProperty("response_id", error.responseId());
    made.add("upstream_request_id", known(error.upstreamRequestId()));
    made.add("attempts", known(error.attempts().isPresent() ? Optional.of(error.attempts().getAsInt()) : Optional.empty()));
    made.add("retry_after_s", known(error.retryAfter().map(after -> after.toNanos() / 1e9)));
    made.add("fields", list(error.fieldViolations(), violation -> new JsonPrimitive(violation.field())));
    made.add("quotas", list(error.quotaViolations(), violation -> new JsonPrimitive(violation.subject())));
    made.add("upstream", known(error.upstream().map(Objects::upstream)));
    return made;
  }

  private static JsonObject call(String callId, String name, String kind, String text) {
    var made = new JsonObject();
    made.addProperty("call_id", callId);
    made.addProperty("name", name);
    made.addProperty(kind, text);
    return made;
  }

  private static JsonObject usage(Usage usage) {
    var made = new JsonObject();
    Usage.getDescriptor().getFields().forEach(field -> made.add(field.getName(), GSON.toJsonTree(usage.getField(field))));
    return made;
  }

  private static JsonObject upstream(UpstreamError words) {
    var made = new JsonObject();
    made.add("status", known(words.hasStatus() ? Optional.of(words.getStatus()) : Optional.empty()));
    made.addProperty("code", words.getCode());
    made.addProperty("type", words.getType());
    made.addProperty("param", words.getParam());
    made.addProperty("message", words.getMessage());
    return made;
  }

  private static <T> JsonArray list(List<T> values, Function<T, JsonElement> as) {
    var made = new JsonArray();
    values.forEach(value -> made.add(as.apply(value)));
    return made;
  }

  private static JsonElement known(Optional<?> value) {
    return value.isPresent() ? GSON.toJsonTree(value.get()) : JsonNull.INSTANCE;
  }
}
