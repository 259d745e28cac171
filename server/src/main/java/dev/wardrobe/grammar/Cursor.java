package dev.wardrobe.grammar;

import org.jspecify.annotations.Nullable;

/**
 * One answer's place in its {@link Grammar}. For one thread at a time.
 *
 * <p>Before each token {@link #ready} says whether the mask is there. It mostly is; else another
 * thread makes it, so that the caller never waits.
 */
public final class Cursor {
  private final Grammar grammar;

  /** Tokens that end the answer, and are allowed only where it is whole. */
  private final int[] ends;

  /** Whether one of them is a text, too; then no mask is used as it is. */
  private final boolean endsHaveText;

  private Frames state;
  private boolean first = true;
  private boolean asked;
  private long @Nullable [] mask;

  /** A mask with {@link #ends}, in place of one that is shared. */
  private long @Nullable [] own;

  Cursor(Grammar grammar, int[] ends) {
    this.grammar = grammar;
    this.ends = ends.clone();
    this.state = grammar.first();
    boolean text = false;
    for (int end : ends) {
      text |= grammar.tokens().bytes(end) != null;
    }
    endsHaveText = text;
  }

  /**
   * Whether {@link #mask} may be asked; if not, {@code wake} is called by another thread once it
   * may.
   */
  public boolean ready(Runnable wake) {
    if (mask != null || state.failure != null) {
      return true;
    }
    long[] shared = grammar.knownMask(state, first);
    if (shared == null && !asked) {
      shared = grammar.quickMask(state, first);
      asked = true;
      if (shared == null) {
        grammar.makeMask(state, first, wake);
      }
    }
    if (shared == null) {
      return false;
    }
    mask = withEnds(shared);
    return true;
  }

  private long[] withEnds(long[] shared) {
    if (!endsHaveText && (!state.bottom || ends.length == 0)) {
      return shared;
    }
    long[] copy = own;
    if (copy == null) {
      copy = new long[shared.length];
      own = copy;
    }
    System.arraycopy(shared, 0, copy, 0, shared.length);
    for (int end : ends) {
      if (end < grammar.tokens().vocabulary) {
        if (state.bottom) {
          TokenTable.set(copy, end);
        } else {
          TokenTable.clear(copy, end);
        }
      }
    }
    return copy;
  }

  /** Why there is no mask, and will be none; null if there is one. */
  public @Nullable String failure() {
    return state.failure;
  }

  /** The tokens that may come next, a bit each; until {@link #accept}. */
  public long[] mask() {
    long[] known = mask;
    if (known == null) {
      throw new IllegalStateException("the mask is not ready");
    }
    return known;
  }

  /**
   * Takes the next token, which is none that ends the answer.
   *
   * @throws IllegalArgumentException if it may not come next
   */
  public void accept(int token) {
    byte[] bytes = first ? grammar.tokens().first(token) : grammar.tokens().bytes(token);
    Frames next = bytes == null ? Frames.DEAD : grammar.after(state, bytes);
    if (next == Frames.DEAD) {
      throw new IllegalArgumentException("token " + token + " may not come next");
    }
    state = next;
    first = false;
    asked = false;
    mask = null;
  }

  /** Whether the text so far is one that is allowed. */
  public boolean isWhole() {
    return state.bottom;
  }

  /** Whether it is, and nothing may follow. */
  public boolean isLast() {
    return state.isLast();
  }
}
