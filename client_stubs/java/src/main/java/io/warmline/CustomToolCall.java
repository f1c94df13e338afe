package io.warmline;

import io.warmline.v1.Item;

/**
 * A custom tool that the model wants called.
 *
 * @param callId names the call
 * @param name the tool's
 * @param input free text
 */
public record CustomToolCall(String callId, String name, String input) {
  /**
   * The item that answers the call.
   *
   * @param output any text
   * @return the item
   */
  public Item answer(String output) {
    return Items.customToolOutput(callId, output);
  }
}
