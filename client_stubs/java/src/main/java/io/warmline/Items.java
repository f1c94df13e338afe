package io.warmline;

import com.google.gson.JsonObject;
import com.google.protobuf.ByteString;
import io.warmline.v1.FunctionCallOutput;
import io.warmline.v1.Item;
import io.warmline.v1.TextMessage;

/** Makes the items of a conversation. */
public final class Items {
  private Items() {}

  /**
   * A user's message of one text.
   *
   * @param text not empty
   * @return the item
   */
  public static Item user(String text) {
    return message("user", text);
  }

  /**
   * A developer's message of one text.
   *
   * @param text not empty
   * @return the item
   */
  public static Item developer(String text) {
    return message("developer", text);
  }

  /**
   * A system message of one text.
   *
   * @param text not empty
   * @return the item
   */
  public static Item system(String text) {
    return message("system", text);
  }

  /**
   * An answer of the model, as one text.
   *
   * @param text not empty
   * @return the item
   */
  public static Item assistant(String text) {
    return message("assistant", text);
  }

  /**
   * The output of a function call.
   *
   * @param callId the call's
   * @param output any text
   * @return the item
   */
  public static Item functionOutput(String callId, String output) {
    var made = FunctionCallOutput.newBuilder().setCallId(callId).setOutput(output);
    return Item.newBuilder().setFunctionCallOutput(made).build();
  }

  /**
   * The output of a custom tool's call.
   *
   * @param callId the call's
   * @param output any text
   * @return the item
   */
  public static Item customToolOutput(String callId, String output) {
    var made = new JsonObject();
    made.addProperty("type", "custom_tool_call_output");
    made.addProperty("call_id", callId);
    made.addProperty("output", output);
    return json(made.toString());
  }

  /**
   * An item as the provider has it, sent as it is.
   *
   * @param json one JSON object
   * @return the item
   */
  public static Item json(String json) {
    return json(ByteString.copyFromUtf8(json));
  }

  /**
   * An item as the provider has it, sent byte for byte.
   *
   * @param json one JSON object in UTF-8
   * @return the item
   */
  public static Item json(ByteString json) {
    return Item.newBuilder().setJson(json).build();
  }

  private static Item message(String role, String text) {
    return Item.newBuilder().setMessage(TextMessage.newBuilder().setRole(role).setText(text)).build();
  }
}
