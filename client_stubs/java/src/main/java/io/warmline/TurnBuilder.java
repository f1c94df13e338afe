package io.warmline;

import com.google.protobuf.ByteString;
import io.grpc.Channel;
import io.warmline.v1.BusyMode;
import io.warmline.v1.EventMode;
import io.warmline.v1.InputMode;
import io.warmline.v1.Item;
import io.warmline.v1.RequestOptions;
import io.warmline.v1.RetryMode;
import io.warmline.v1.SessionConfig;
import io.warmline.v1.StreamTurnRequest;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.UUID;
import java.util.function.Consumer;

/** What a turn will be, begun by {@link Session#turn}. */
public final class TurnBuilder extends OptionsBuilder<TurnBuilder> {
  private final Connection connection;
  private final Channel channel;
  private final StreamTurnRequest.Builder request;
  private Optional<Duration> timeout = Optional.empty();

  TurnBuilder(
      Connection connection, Channel channel, String sessionId, Optional<SessionConfig> config, List<Item> input) {
    this.connection = connection;
    this.channel = channel;
    this.request =
        StreamTurnRequest.newBuilder()
            .setSessionId(sessionId)
            .setInputMode(InputMode.INPUT_MODE_FULL)
            .addAllInput(input);
    config.ifPresent(request::setSessionConfig);
  }

  /**
   * Names the turn, the same for a user request and all its tool follow-ups.
   *
   * @param id blank: the server makes one
   * @return this
   */
  public TurnBuilder turnId(String id) {
    request.setTurnId(id);
    return this;
  }

  /**
   * Names this call, also when the client sends it again.
   *
   * @param id blank: one is made
   * @return this
   */
  public TurnBuilder requestId(String id) {
    request.setRequestId(id);
    return this;
  }

  /**
   * Takes a lane, an independent chain of calls inside the session.
   *
   * @param name blank: the default lane
   * @return this
   */
  public TurnBuilder lane(String name) {
    request.setLane(name);
    return this;
  }

  /**
   * Says that the input is only what is new.
   *
   * @param position items of the lane before it, see {@link TurnResult#historyPosition}
   * @return this
   */
  public TurnBuilder appendAt(long position) {
    request.setInputMode(InputMode.INPUT_MODE_APPEND).setExpectedHistoryPosition(position);
    return this;
  }

  /**
   * Says what the server sends to the provider again after a failure.
   *
   * @param mode a mode of the contract
   * @return this
   */
  public TurnBuilder retry(RetryMode mode) {
    request.setRetry(mode);
    return this;
  }

  /**
   * Says what happens when the lane has a running call.
   *
   * @param mode a mode of the contract
   * @return this
   */
  public TurnBuilder onBusy(BusyMode mode) {
    request.setOnBusy(mode);
    return this;
  }

  /**
   * Says in which form the provider's events come.
   *
   * @param mode a mode of the contract
   * @return this
   */
  public TurnBuilder events(EventMode mode) {
    request.setEvents(mode);
    return this;
  }

  /**
   * Sets a limit that the server keeps.
   *
   * @param limit longer than 0
   * @return this
   */
  public TurnBuilder maxDuration(Duration limit) {
    request.getMaxDurationBuilder().setSeconds(limit.getSeconds()).setNanos(limit.getNano());
    return this;
  }

  /**
   * Sets the call's deadline, with all its sends.
   *
   * @param timeout from {@link #send} on
   * @return this
   */
  public TurnBuilder timeout(Duration timeout) {
    this.timeout = Optional.of(timeout);
    return this;
  }

  /**
   * Gives further fields of the request body, merged beneath the options.
   *
   * @param json one JSON object
   * @return this
   */
  public TurnBuilder requestJson(String json) {
    request.setRequestJson(ByteString.copyFromUtf8(json));
    return this;
  }

  /**
   * Gives the turn's metadata for the provider.
   *
   * @param json one JSON object
   * @return this
   */
  public TurnBuilder turnMetadata(String json) {
    request.setTurnMetadataJson(ByteString.copyFromUtf8(json));
    return this;
  }

  /**
   * Changes the message itself, for what has no method of its own.
   *
   * @param change given the message's builder
   * @return this
   */
  public TurnBuilder request(Consumer<StreamTurnRequest.Builder> change) {
    change.accept(request);
    return this;
  }

  /**
   * Sends the turn. What fails is thrown by the first read.
   *
   * @return the turn, which must be closed
   */
  public Turn send() {
    StreamTurnRequest made = request.build();
    if (made.getRequestId().isEmpty()) {
      made = made.toBuilder().setRequestId(UUID.randomUUID().toString()).build();
    }
    return new Turn(connection, channel, made, timeout).begin();
  }

  @Override
  RequestOptions.Builder options() {
    return request.getOptionsBuilder();
  }

  @Override
  TurnBuilder self() {
    return this;
  }
}
