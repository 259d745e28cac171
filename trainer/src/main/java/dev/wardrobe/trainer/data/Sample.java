package dev.wardrobe.trainer.data;

import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** A row that has been understood, and is not yet tokens. */
sealed interface Sample {

  /**
   * Plain text.
   *
   * @param prompt what is given; null where all is learned
   * @param completion what is learned
   */
  record Text(@Nullable String prompt, String completion) implements Sample {}

  /** An instruction: a conversation for a model that has a template, else plain text. */
  record Instruction(Chat chat, Text plain) implements Sample {}

  /**
   * A conversation.
   *
   * @param messages as chat templates take them
   * @param learned of each message, whether it is one that the assistant is to learn
   * @param tools null for none
   * @param variables further ones for the template
   */
  @SuppressWarnings("ArrayRecordComponent")
  record Chat(
      List<Map<String, @Nullable Object>> messages,
      boolean[] learned,
      @Nullable List<Map<String, @Nullable Object>> tools,
      Map<String, ? extends @Nullable Object> variables)
      implements Sample {}

  /**
   * Tokens that somebody else made.
   *
   * @param learned of each token, whether it is learned
   */
  @SuppressWarnings("ArrayRecordComponent")
  record Tokens(int[] ids, boolean[] learned) implements Sample {}
}
