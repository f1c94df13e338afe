package io.warmline;

import io.warmline.v1.Item;
import io.warmline.v1.Usage;
import java.util.List;
import java.util.Optional;
import java.util.OptionalLong;

/**
 * A turn's outcome. Blank and empty mean: not told, or not known.
 *
 * @param ending how the events ended
 * @param text of the finished messages, then what was streamed of an unfinished one
 * @param items the finished output items, oldest first, each byte for byte as it came: send them back so
 * @param functionCalls the functions that the model wants called, in order
 * @param customToolCalls the custom tools that the model wants called, in order
 * @param turnId the turn's, for its tool follow-ups
 * @param requestId the call's
 * @param conversationId the conversation's upstream
 * @param responseId the response's
 * @param upstreamRequestId the provider's id of the request; unknown, as always, over a WebSocket
 * @param usage the tokens used
 * @param endTurn whether the model considers its turn ended
 * @param incompleteReason why the response ended early; empty: it did not
 * @param historyPosition items of the lane's conversation, for a next turn's {@link TurnBuilder#appendAt}; empty before the end
 * @param attempts number of the newest attempt upstream
 * @param slotOutcome of the newest attempt: ADOPTED, AWAITED, REUSED, COLD or NONE; the number itself where no name is known
 * @param transport of the newest attempt: WEBSOCKET, HTTP or FIXTURE; likewise
 * @param connectionId of the newest attempt's socket
 * @param incremental whether the newest attempt sent only new items
 * @param fullReason why it did not
 * @param fellBack why the call went on over HTTP; empty: it did not
 * @param serverModel the model that really served the request
 * @param unknownEvents events of a newer server that this client skipped
 * @param unknownValues how many of slotOutcome, transport and fullReason are a newer server's, and so numbers
 */
public record TurnResult(
    Ending ending,
    String text,
    List<Item> items,
    List<FunctionCall> functionCalls,
    List<CustomToolCall> customToolCalls,
    String turnId,
    String requestId,
    String conversationId,
    String responseId,
    Optional<String> upstreamRequestId,
    Optional<Usage> usage,
    Optional<Boolean> endTurn,
    Optional<String> incompleteReason,
    OptionalLong historyPosition,
    int attempts,
    String slotOutcome,
    String transport,
    String connectionId,
    boolean incremental,
    String fullReason,
    Optional<String> fellBack,
    String serverModel,
    int unknownEvents,
    int unknownValues) {

  /** How a turn's events ended. */
  public enum Ending {
    /** The response is complete. */
    COMPLETED,
    /** The response ended early, see {@link #incompleteReason}. */
    INCOMPLETE,
    /** Only in a snapshot. */
    UNFINISHED
  }
}
