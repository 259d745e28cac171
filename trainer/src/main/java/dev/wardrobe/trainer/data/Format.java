package dev.wardrobe.trainer.data;

import java.util.Locale;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** What the rows of a file are, told by their fields. In the order in which they are looked for. */
public enum Format {
  /** OpenAI's {@code messages}, with {@code tools} where the template takes them. */
  MESSAGES,
  /** ShareGPT's {@code conversations} of {@code from} and {@code value}. */
  SHAREGPT,
  /** Pre-tokenized: {@code input_ids}, {@code labels}, {@code attention_mask}. */
  TOKENS,
  /** Alpaca's {@code instruction}, {@code input} and {@code output}. */
  ALPACA,
  /** {@code prompt} and {@code completion}, both texts or both lists of messages. */
  COMPLETION,
  /** {@code text}, all of which is learned. */
  TEXT;

  /** As options name it. */
  public String option() {
    return name().toLowerCase(Locale.ROOT);
  }

  /** The format of a row, or null if it has the fields of none. */
  static @Nullable Format of(Map<String, ?> row) {
    if (row.containsKey("messages")) {
      return MESSAGES;
    }
    if (row.containsKey("conversations")) {
      return SHAREGPT;
    }
    if (row.containsKey("input_ids")) {
      return TOKENS;
    }
    if (row.containsKey("instruction") && row.containsKey("output")) {
      return ALPACA;
    }
    if (row.containsKey("prompt") && row.containsKey("completion")) {
      return COMPLETION;
    }
    return row.containsKey("text") ? TEXT : null;
  }
}
