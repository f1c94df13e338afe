package io.warmline.runner;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;

/** Compares what was found with what was expected. */
final class Expectations {
  private Expectations() {}

  /** Throws StepException where {@code found} is not as expected. */
  static void compare(JsonElement found, JsonElement expected, String path) {
    boolean asExpected;
    if (expected instanceof JsonObject object && object.has("$any")) {
      asExpected = object.getAsJsonArray("$any").asList().stream().anyMatch(value -> isEqual(found, value));
    } else if (expected instanceof JsonObject object && object.has("$present")) {
      asExpected = isPresent(found) == object.get("$present").getAsBoolean();
    } else if (expected instanceof JsonObject object) {
      compareObjects(found, object, path);
      return;
    } else if (expected instanceof JsonArray list) {
      asExpected = found instanceof JsonArray array && array.size() == list.size();
      for (int number = 0; asExpected && number < list.size(); number++) {
        compare(found.getAsJsonArray().get(number), list.get(number), path + "[" + number + "]");
      }
    } else {
      asExpected = isEqual(found, expected);
    }
    if (!asExpected) {
      throw new StepException(path + ": found " + found + ", expected " + expected);
    }
  }

  private static void compareObjects(JsonElement found, JsonObject expected, String path) {
    if (!(found instanceof JsonObject members)) {
      throw new StepException(path + ": found " + found + ", expected an object");
    }
    expected
        .entrySet()
        .forEach(
            member -> {
              JsonElement value = members.has(member.getKey()) ? members.get(member.getKey()) : JsonNull.INSTANCE;
              compare(value, member.getValue(), path.isEmpty() ? member.getKey() : path + "." + member.getKey());
            });
  }

  private static boolean isEqual(JsonElement found, JsonElement expected) {
    if (found instanceof JsonPrimitive one && expected instanceof JsonPrimitive other && one.isNumber() && other.isNumber()) {
      return one.getAsBigDecimal().compareTo(other.getAsBigDecimal()) == 0;
    }
    return found.equals(expected);
  }

  private static boolean isPresent(JsonElement found) {
    if (found instanceof JsonArray list) {
      return !list.isEmpty();
    }
    if (found instanceof JsonObject object) {
      return !object.isEmpty();
    }
    if (!(found instanceof JsonPrimitive value)) {
      return false;
    }
    if (value.isBoolean()) {
      return value.getAsBoolean();
    }
    return value.isNumber() ? value.getAsBigDecimal().signum() != 0 : !value.getAsString().isEmpty();
  }
}
