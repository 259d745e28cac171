package dev.wardrobe.engine;

import dev.wardrobe.compute.Draw;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Where a sequence's tokens go. Called on the engine's thread, so every method returns at once:
 * what blocks here blocks everybody. One that throws ends its own sequence, nothing else.
 */
public interface TokenListener {

  /**
   * Whether more tokens can be taken. While this is false the sequence takes no part in steps; call
   * {@link Ticket#resume} when it becomes true again.
   */
  boolean ready();

  /** The sequence has a place in the batch. Called once, before anything else. */
  void admitted();

  /**
   * Scores of the next prompt tokens, from the second token on; only with {@code echo}.
   *
   * @param scores until this returns, see {@link Draw.Outcome#copy}
   */
  void promptScored(List<Draw.Outcome> scores);

  /**
   * The next token.
   *
   * @param outcome until this returns, see {@link Draw.Outcome#copy}
   * @param last whether it ends the sequence by itself: an end-of-sequence or stop token
   * @return false to stop here
   */
  boolean token(Draw.Outcome outcome, boolean last);

  /** How the prompt is to be pooled for {@link #pooled}; null if it is not. Asked once. */
  default @Nullable Pooling pooling() {
    return null;
  }

  /**
   * The prompt's pooled hidden state, {@code (hidden)}, once it is computed; only with {@link
   * #pooling}, and for a task of no tokens to generate.
   */
  default void pooled(float[] vector) {}

  /** The end, on every path; its pages and its lease have been given back. */
  void finished(Finish finish);
}
