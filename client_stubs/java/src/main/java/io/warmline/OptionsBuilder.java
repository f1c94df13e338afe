package io.warmline;

import com.google.protobuf.ByteString;
import io.warmline.v1.RequestOptions;
import io.warmline.v1.StringList;
import io.warmline.v1.ToolList;
import java.util.List;

/**
 * Fields of the request body: a session's defaults, or a turn's overrides of them. One that is left out says nothing.
 *
 * @param <B> the builder that has them
 */
public abstract sealed class OptionsBuilder<B extends OptionsBuilder<B>> permits SessionBuilder, TurnBuilder {
  OptionsBuilder() {}

  /** Where they are written to. */
  abstract RequestOptions.Builder options();

  abstract B self();

  /**
   * Names the model.
   *
   * @param slug the model's slug
   * @return this
   */
  public B model(String slug) {
    options().setModel(slug);
    return self();
  }

  /**
   * Gives the system's instructions.
   *
   * @param text any text
   * @return this
   */
  public B instructions(String text) {
    options().setInstructions(text);
    return self();
  }

  /**
   * Gives the tools that the model may call; none removes the session's.
   *
   * @param tools each one JSON object
   * @return this
   */
  public B tools(List<String> tools) {
    options().setTools(
        ToolList.newBuilder().addAllToolsJson(tools.stream().map(ByteString::copyFromUtf8).toList()));
    return self();
  }

  /**
   * Chooses among the tools.
   *
   * @param json a word with its quotes such as {@code "auto"}, or an object
   * @return this
   */
  public B toolChoice(String json) {
    options().setToolChoiceJson(ByteString.copyFromUtf8(json));
    return self();
  }

  /**
   * Says whether the model may call several tools at once.
   *
   * @param allowed whether it may
   * @return this
   */
  public B parallelToolCalls(boolean allowed) {
    options().setParallelToolCalls(allowed);
    return self();
  }

  /**
   * Says how much to reason.
   *
   * @param effort "none", "minimal", "low", "medium", "high" or what the model knows
   * @return this
   */
  public B reasoningEffort(String effort) {
    options().getReasoningBuilder().setEffort(effort);
    return self();
  }

  /**
   * Asks for a summary of the reasoning.
   *
   * @param summary "auto", "concise" or "detailed"
   * @return this
   */
  public B reasoningSummary(String summary) {
    options().getReasoningBuilder().setSummary(summary);
    return self();
  }

  /**
   * Says how long answers are.
   *
   * @param verbosity "low", "medium" or "high"
   * @return this
   */
  public B verbosity(String verbosity) {
    options().getTextBuilder().setVerbosity(verbosity);
    return self();
  }

  /**
   * Sets the output's format.
   *
   * @param json one JSON object
   * @return this
   */
  public B textFormat(String json) {
    options().getTextBuilder().setFormatJson(ByteString.copyFromUtf8(json));
    return self();
  }

  /**
   * Sets the service tier.
   *
   * @param tier the provider's word
   * @return this
   */
  public B serviceTier(String tier) {
    options().setServiceTier(tier);
    return self();
  }

  /**
   * Says whether the provider may keep the response.
   *
   * @param allowed whether it may
   * @return this
   */
  public B store(boolean allowed) {
    options().setStore(allowed);
    return self();
  }

  /**
   * Asks for additional output.
   *
   * @param names the provider's names
   * @return this
   */
  public B include(List<String> names) {
    options().setInclude(StringList.newBuilder().addAllValues(names));
    return self();
  }

  /**
   * Sets the key of the provider's prompt cache.
   *
   * @param key any text
   * @return this
   */
  public B promptCacheKey(String key) {
    options().setPromptCacheKey(key);
    return self();
  }

  /**
   * Bounds one response, reasoning included.
   *
   * @param tokens at least 1
   * @return this
   */
  public B maxOutputTokens(int tokens) {
    options().setMaxOutputTokens(tokens);
    return self();
  }
}
