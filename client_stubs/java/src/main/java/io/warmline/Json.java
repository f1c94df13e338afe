package io.warmline;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParseException;
import com.google.gson.JsonParser;
import com.google.gson.Strictness;
import com.google.gson.stream.JsonReader;
import com.google.gson.stream.JsonToken;
import com.google.protobuf.ByteString;
import java.io.IOException;
import java.io.StringReader;
import java.util.Optional;

/** Reads the provider's JSON without failing on it. Pure. */
final class Json {
  private Json() {}

  /** A JSON object; empty for anything else, because a result must not fail on an item that it cannot read. */
  static JsonObject object(ByteString json) {
    if (!json.isValidUtf8()) {
      return new JsonObject();
    }
    var reader = new JsonReader(new StringReader(json.toStringUtf8()));
    reader.setStrictness(Strictness.STRICT);
    reader.setNestingLimit(Integer.MAX_VALUE);
    try {
      JsonElement value = JsonParser.parseReader(reader);
      boolean isWhole = reader.peek() == JsonToken.END_DOCUMENT;
      return isWhole && value.isJsonObject() ? value.getAsJsonObject() : new JsonObject();
    } catch (JsonParseException | IOException unreadable) {
      return new JsonObject();
    }
  }

  /** A member that is a text; blank where there is none. */
  static String text(JsonObject object, String name) {
    JsonElement found = object.get(name);
    return found != null && found.isJsonPrimitive() && found.getAsJsonPrimitive().isString() ? found.getAsString() : "";
  }

  /**
   * The value of an object's member, byte for byte as it stands; of one that occurs twice, the last.
   *
   * @param payload one JSON object in UTF-8
   * @return empty: there is none, or the payload is no object
   */
  static Optional<ByteString> verbatimMember(ByteString payload, String name) {
    if (!object(payload).has(name)) {
      return Optional.empty();
    }
    // A JSON object for certain: structure is ASCII, and what is not stands in strings.
    ByteString found = null;
    int at = nextToken(payload, nextToken(payload, 0) + 1);
    while (payload.byteAt(at) != '}') {
      int keyEnd = endOfValue(payload, at);
      String key = JsonParser.parseString(payload.substring(at, keyEnd).toStringUtf8()).getAsString();
      int start = nextToken(payload, nextToken(payload, keyEnd) + 1);
      int end = endOfValue(payload, start);
      found = key.equals(name) ? payload.substring(start, end) : found;
      at = nextToken(payload, end);
      at = payload.byteAt(at) == ',' ? nextToken(payload, at + 1) : at;
    }
    return Optional.ofNullable(found);
  }

  private static int nextToken(ByteString json, int from) {
    int at = from;
    while (isBlank(json.byteAt(at))) {
      at++;
    }
    return at;
  }

  /** Where the value that starts at {@code from}, inside an object, ends. */
  private static int endOfValue(ByteString json, int from) {
    int depth = 0;
    int at = from;
    do {
      switch (json.byteAt(at)) {
        case '"' -> at = endOfString(json, at);
        case '{', '[' -> depth++;
        case '}', ']' -> depth--;
        default -> {}
      }
      at++;
    } while (depth > 0 || !endsValue(json.byteAt(at)));
    return at;
  }

  /** Where the closing quote of the string that starts at {@code from} is. */
  private static int endOfString(ByteString json, int from) {
    int at = from + 1;
    while (json.byteAt(at) != '"') {
      at += json.byteAt(at) == '\\' ? 2 : 1;
    }
    return at;
  }

  private static boolean endsValue(byte letter) {
    return letter == ',' || letter == ':' || letter == '}' || letter == ']' || isBlank(letter);
  }

  private static boolean isBlank(byte letter) {
    return letter == ' ' || letter == '\t' || letter == '\n' || letter == '\r';
  }
}
