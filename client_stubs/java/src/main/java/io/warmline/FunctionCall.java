package io.warmline;

import io.warmline.v1.Item;

/**
 * A function that the model wants called.
 *
 * @param callId names the call
 * @param name the function's
 * @param arguments JSON text
 */
public record FunctionCall(String callId, String name, String arguments) {
  /**
   * The item that answers the call.
   *
   * @param output any text
   * @return the item
   */
  public Item answer(String output) {
    return Items.functionOutput(callId, output);
  }
}
