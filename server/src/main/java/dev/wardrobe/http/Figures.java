package dev.wardrobe.http;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.v1.AppliedAdapter;
import dev.wardrobe.v1.Usage;
import java.math.BigInteger;
import java.util.List;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/** What answers took: OpenAI's {@code usage}, and our own figures beside it. */
final class Figures {
  private List<AppliedAdapter> adapters = List.of();
  private final TreeMap<Integer, Long> seeds = new TreeMap<>();
  private long prompt;
  private long cached;
  private long generated;
  private double queue;
  private double swapIn;
  private double firstToken;
  private double total;
  private String math = "";

  void adapters(List<AppliedAdapter> applied) {
    adapters = applied;
  }

  /** The prompt of one or several answers. */
  void prompt(Usage usage) {
    prompt += usage.getPromptTokens();
    cached += usage.getCachedTokens();
  }

  /** An answer, or what several together took. */
  void answers(Usage usage) {
    generated += usage.getGeneratedTokens();
    queue = Math.max(queue, usage.getQueueMs());
    swapIn = Math.max(swapIn, usage.getSwapInMs());
    firstToken = Math.max(firstToken, usage.getFirstTokenMs());
    total = Math.max(total, usage.getTotalMs());
    math = usage.getMath();
  }

  void seed(int index, long seed) {
    seeds.put(index, seed);
  }

  void usage(ObjectNode body) {
    body.putObject("usage")
        .put("prompt_tokens", prompt)
        .put("completion_tokens", generated)
        .put("total_tokens", prompt + generated)
        .putObject("prompt_tokens_details")
        .put("cached_tokens", cached);
  }

  void own(ObjectNode body) {
    ObjectNode own = body.putObject("wardrobe");
    adapters(own, adapters);
    ArrayNode drawn = own.putArray("seeds");
    seeds.values().forEach(seed -> drawn.add(new BigInteger(Long.toUnsignedString(seed))));
    own.put("math", math)
        .put("queue_ms", queue)
        .put("swap_in_ms", swapIn)
        .put("first_token_ms", firstToken)
        .put("total_ms", total);
  }

  static void adapters(ObjectNode own, List<AppliedAdapter> applied) {
    ArrayNode list = own.putArray("adapters");
    for (AppliedAdapter each : applied) {
      list.addObject()
          .put("adapter", each.getAdapter())
          .put("digest", each.getDigest())
          .put("scale", each.getScale());
    }
  }

  /** Which weights answered: the base's fingerprint, and the adapters' digests, cut short. */
  static String fingerprint(String base, @Nullable List<AppliedAdapter> applied) {
    StringBuilder text = new StringBuilder("fp_").append(shortened(base, 12));
    if (applied != null) {
      applied.forEach(each -> text.append('_').append(shortened(each.getDigest(), 8)));
    }
    return text.toString();
  }

  private static String shortened(String digest, int length) {
    String digits = digest.substring(digest.indexOf(':') + 1);
    return digits.substring(0, Math.min(length, digits.length()));
  }
}
