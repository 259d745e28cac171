package dev.wardrobe.text;

import java.time.Clock;
import java.time.ZoneId;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * A conversation to be rendered. Values are of JSON's kinds: null, Boolean, a number, String, List,
 * Map. An integer must come as Integer, Long or BigInteger: a Double prints with its point.
 *
 * @param messages one map each, with at least {@code role} and, as a rule, {@code content}
 * @param tools JSON schemas of functions; null for none
 * @param documents maps with {@code title} and {@code text}; null for none
 * @param addGenerationPrompt whether the text ends with the opening of an assistant's message
 * @param continueFinalMessage whether the last message stays open, to be continued
 * @param templateKwargs further variables for the template, such as {@code enable_thinking}
 * @param clock the time and zone that {@code strftime_now} sees
 */
public record ChatRequest(
    List<? extends Map<String, ? extends @Nullable Object>> messages,
    @Nullable List<? extends Map<String, ? extends @Nullable Object>> tools,
    @Nullable List<? extends Map<String, ? extends @Nullable Object>> documents,
    boolean addGenerationPrompt,
    boolean continueFinalMessage,
    Map<String, ? extends @Nullable Object> templateKwargs,
    Clock clock) {

  /** A request with nothing but messages, for an answer now. */
  public static ChatRequest of(List<? extends Map<String, ? extends @Nullable Object>> messages) {
    return new ChatRequest(
        messages, null, null, true, false, Map.of(), Clock.system(ZoneId.systemDefault()));
  }
}
