package io.warmline.runner;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import io.warmline.Client;
import io.warmline.Items;
import io.warmline.OptionsBuilder;
import io.warmline.Session;
import io.warmline.SessionBuilder;
import io.warmline.TurnBuilder;
import io.warmline.WarmlineException;
import io.warmline.v1.BusyMode;
import io.warmline.v1.EventMode;
import io.warmline.v1.Item;
import io.warmline.v1.RetryMode;
import io.warmline.v1.SessionConfig;
import io.warmline.v1.WarmUpMode;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.HttpURLConnection;
import java.net.Proxy;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Consumer;
import java.util.function.Supplier;

/** Plays the steps of a scenario. */
final class Steps {
  final Map<String, Played> turns = new HashMap<>();

  private final Client client;
  private final String control;
  private final Map<String, Session> sessions = new HashMap<>();
  private final Map<String, Consumer<Fields>> verbs =
      Map.ofEntries(
          Map.entry("session", this::session),
          Map.entry("turn", this::turn),
          Map.entry("read_until", this::readUntil),
          Map.entry("expect_result", this::expectResult),
          Map.entry("expect_error", this::expectError),
          Map.entry("cancel", this::cancel),
          Map.entry("cancel_turn", this::cancelTurn),
          Map.entry("preconnect", this::preconnect),
          Map.entry("close", this::close),
          Map.entry("control", this::control));

  Steps(Client client, String control) {
    this.client = client;
    this.control = control;
  }

  /** Plays the steps; tells what went wrong in the first that did. */
  Optional<String> play(JsonArray steps) {
    int number = 0;
    for (JsonElement step : steps) {
      number++;
      for (Map.Entry<String, JsonElement> entry : step.getAsJsonObject().entrySet()) {
        try {
          verb(entry.getKey()).accept(fields(entry.getValue()));
        } catch (RuntimeException error) {
          if (!(error instanceof StepException)) {
            error.printStackTrace();
          }
          return Optional.of("step " + number + " " + entry.getKey() + ": " + error.getMessage());
        }
      }
    }
    return Optional.empty();
  }

  /** Leaves every turn that is still open, and every session. */
  void end() {
    turns.values().forEach(played -> played.turn.close());
    sessions.values().forEach(Session::close);
  }

  private Consumer<Fields> verb(String name) {
    return Optional.ofNullable(verbs.get(name)).orElseThrow(() -> new StepException("unknown verb"));
  }

  private static Fields fields(JsonElement value) {
    if (value instanceof JsonObject object) {
      return new Fields(object);
    }
    var path = new JsonObject();
    path.add("path", value);
    return new Fields(path);
  }

  private void session(Fields fields) {
    String id = fields.text("id").orElseThrow();
    String start = fields.text("start").orElse("now");
    Optional<JsonObject> error = fields.object("error");
    if (start.equals("attach")) {
      fields.end();
      sessions.put(id, client.attach(id));
      return;
    }
    SessionBuilder session = client.session(id);
    if (fields.take("close_on_exit").map(JsonElement::getAsBoolean).orElse(false)) {
      session.closeOnExit();
    }
    fields.set("upstream", JsonElement::getAsString, session::upstream);
    fields.set("warm_up", value -> WarmUpMode.valueOf(named("WARM_UP_MODE_", value)), session::warmUp);
    var config = SessionConfig.newBuilder();
    fields.set("http_only", JsonElement::getAsBoolean, config.getFallbackPolicyBuilder()::setHttpOnly);
    fields.set("stream_max_retries", JsonElement::getAsInt, config.getRetryPolicyBuilder()::setStreamMaxRetries);
    fields.set("max_lanes", JsonElement::getAsInt, config.getLimitsBuilder()::setMaxLanes);
    session.config(config.build());
    options(session, fields);
    fields.end();
    switch (start) {
      case "now" -> expecting(error, session::open).ifPresent(opened -> sessions.put(id, opened));
      case "lazy" -> sessions.put(id, session.lazy());
      default -> throw new StepException("unknown start " + start);
    }
  }

  private void turn(Fields fields) {
    String name = fields.text("as").orElseThrow();
    Session session = sessions.get(fields.text("session").orElseThrow());
    List<Item> sent = new ArrayList<>();
    fields.list("input").orElseThrow().forEach(item -> sent.addAll(items(item)));
    TurnBuilder turn = session.turn(sent);
    fields.set("turn_id", JsonElement::getAsString, turn::turnId);
    fields.set("request_id", JsonElement::getAsString, turn::requestId);
    fields.set("lane", JsonElement::getAsString, turn::lane);
    fields.set("retry", value -> RetryMode.valueOf(named("RETRY_MODE_", value)), turn::retry);
    fields.set("on_busy", value -> BusyMode.valueOf(named("BUSY_MODE_", value)), turn::onBusy);
    fields.set("events", value -> EventMode.valueOf(named("EVENT_MODE_", value)), turn::events);
    fields.set("append_at", this::position, turn::appendAt);
    fields.set("request_json", JsonElement::toString, turn::requestJson);
    fields.seconds("max_duration_s").ifPresent(turn::maxDuration);
    fields.seconds("timeout_s").ifPresent(turn::timeout);
    options(turn, fields);
    fields.end();
    turns.put(name, new Played(turn.send(), sent));
  }

  private static void options(OptionsBuilder<?> options, Fields fields) {
    fields.set("model", JsonElement::getAsString, options::model);
    fields.set("instructions", JsonElement::getAsString, options::instructions);
    fields.set("tools", tools -> tools.getAsJsonArray().asList().stream().map(JsonElement::toString).toList(), options::tools);
    fields.set("parallel_tool_calls", JsonElement::getAsBoolean, options::parallelToolCalls);
    fields.set("reasoning_effort", JsonElement::getAsString, options::reasoningEffort);
    fields.set("reasoning_summary", JsonElement::getAsString, options::reasoningSummary);
    fields.set("max_output_tokens", JsonElement::getAsInt, options::maxOutputTokens);
  }

  private long position(JsonElement value) {
    return value instanceof JsonObject object
        ? turns.get(object.get("position_of").getAsString()).turn.snapshot().historyPosition().orElseThrow()
        : value.getAsLong();
  }

  /** Those that one item of the scenario stands for. */
  private List<Item> items(JsonElement item) {
    if (!(item instanceof JsonObject object)) {
      return List.of(Items.user(item.getAsString()));
    }
    Map.Entry<String, JsonElement> only = object.entrySet().iterator().next();
    switch (only.getKey()) {
      case "developer":
        return List.of(Items.developer(only.getValue().getAsString()));
      case "json":
        return List.of(Items.json(only.getValue().getAsString()));
      case "function_output":
        JsonObject output = only.getValue().getAsJsonObject();
        return List.of(Items.functionOutput(output.get("call_id").getAsString(), output.get("output").getAsString()));
      case "conversation_of":
        Played played = turns.get(only.getValue().getAsString());
        List<Item> items = new ArrayList<>(played.sent);
        items.addAll(played.turn.snapshot().items());
        return items;
      default:
        throw new StepException("unknown item " + item);
    }
  }

  private void readUntil(Fields fields) {
    Played played = played(fields);
    String event = fields.text("event").orElseThrow();
    int count = fields.take("count").map(JsonElement::getAsInt).orElse(1);
    fields.end();
    played.read(event, count);
  }

  private void expectResult(Fields fields) {
    Played played = played(fields);
    played.read("", 0);
    Expectations.compare(Objects.result(played), fields.rest(), "");
  }

  private void expectError(Fields fields) {
    Played played = played(fields);
    Optional<JsonObject> snapshot = fields.object("snapshot");
    expecting(
        Optional.of(fields.rest()),
        () -> {
          played.read("", 0);
          return Objects.result(played);
        });
    snapshot.ifPresent(expected -> Expectations.compare(Objects.result(played), expected, "snapshot"));
  }

  private Played played(Fields fields) {
    String name = fields.text("turn").orElseThrow();
    return Optional.ofNullable(turns.get(name)).orElseThrow(() -> new StepException("no turn " + name));
  }

  private void cancel(Fields fields) {
    Played played = played(fields);
    fields.end();
    post("/mark/cancel");
    played.turn.close();
  }

  private void cancelTurn(Fields fields) {
    Session session = sessions.get(fields.text("session").orElseThrow());
    String requestId = fields.text("request_id").orElse("");
    String turnId = fields.text("turn_id").orElse("");
    Optional<JsonArray> expected = fields.list("expect");
    Optional<JsonObject> error = fields.object("error");
    fields.end();
    var found = new JsonArray();
    expecting(error, () -> session.cancelTurn(requestId, turnId)).ifPresent(ids -> ids.forEach(found::add));
    expected.ifPresent(ids -> Expectations.compare(found, ids, "request_ids"));
  }

  private void preconnect(Fields fields) {
    Session session = sessions.get(fields.text("session").orElseThrow());
    Optional<String> expected = fields.text("expect");
    Optional<JsonObject> error = fields.object("error");
    fields.end();
    String found =
        expecting(error, () -> session.preconnect(true)).map(slot -> slot.getState().name()).orElse("nothing");
    if (expected.isPresent() && !found.equals("SLOT_STATE_" + expected.get())) {
      throw new StepException("slot: found " + found + ", expected " + expected.get());
    }
  }

  private void close(Fields fields) {
    Session session = sessions.get(fields.text("session").orElseThrow());
    Optional<JsonObject> error = fields.object("error");
    fields.end();
    expecting(error, session::closeSession);
  }

  private void control(Fields fields) {
    String path = fields.text("path").orElseThrow();
    Optional<JsonElement> expected = fields.take("expect");
    fields.end();
    JsonElement found = post(path);
    expected.ifPresent(value -> Expectations.compare(found, value, ""));
  }

  private JsonElement post(String path) {
    try {
      var connection = (HttpURLConnection) URI.create(control + path).toURL().openConnection(Proxy.NO_PROXY);
      connection.setRequestMethod("POST");
      int status = connection.getResponseCode();
      try (InputStream body = status == 200 ? connection.getInputStream() : connection.getErrorStream()) {
        String text = body == null ? "" : new String(body.readAllBytes(), StandardCharsets.UTF_8);
        if (status != 200) {
          throw new StepException("control " + path + ": " + status + ": " + text);
        }
        return JsonParser.parseString(text);
      }
    } catch (IOException error) {
      throw new UncheckedIOException("control " + path, error);
    }
  }

  /** Makes a call that shall succeed, or with an expected error fail like that; empty: it did. */
  private static <T> Optional<T> expecting(Optional<JsonObject> error, Supplier<T> call) {
    if (error.isEmpty()) {
      return Optional.of(call.get());
    }
    T found;
    try {
      found = call.get();
    } catch (WarmlineException failure) {
      Expectations.compare(Objects.error(failure), error.get(), "");
      return Optional.empty();
    }
    throw new StepException("the call succeeded with " + found + ", expected " + error.get());
  }

  private static String named(String prefix, JsonElement name) {
    return prefix + name.getAsString().toUpperCase();
  }
}
