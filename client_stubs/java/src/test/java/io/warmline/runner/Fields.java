package io.warmline.runner;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.time.Duration;
import java.util.Optional;
import java.util.function.Consumer;
import java.util.function.Function;

/** A step's fields, taken one by one, so that one which nobody knows is found. */
final class Fields {
  private final JsonObject left;

  Fields(JsonObject fields) {
    this.left = fields.deepCopy();
  }

  Optional<JsonElement> take(String name) {
    return Optional.ofNullable(left.remove(name)).filter(value -> !value.isJsonNull());
  }

  Optional<String> text(String name) {
    return take(name).map(JsonElement::getAsString);
  }

  Optional<JsonObject> object(String name) {
    return take(name).map(JsonElement::getAsJsonObject);
  }

  Optional<JsonArray> list(String name) {
    return take(name).map(JsonElement::getAsJsonArray);
  }

  Optional<Duration> seconds(String name) {
    return take(name).map(value -> Duration.ofNanos((long) (value.getAsDouble() * 1e9)));
  }

  /** Gives a setter the field, if it is there. */
  <T> void set(String name, Function<JsonElement, T> as, Consumer<T> setter) {
    take(name).map(as).ifPresent(setter);
  }

  /** All that was not taken. */
  JsonObject rest() {
    return left;
  }

  /** Says that all was taken. */
  void end() {
    if (!left.isEmpty()) {
      throw new StepException("unknown fields " + left.keySet());
    }
  }
}
