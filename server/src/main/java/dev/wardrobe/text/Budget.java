package dev.wardrobe.text;

/**
 * What one rendering may use. A template is a file from elsewhere, so that each limit is an error
 * to the caller; they lie far beyond what real templates need.
 */
final class Budget {

  /** The budget of the rendering that runs on this thread. */
  static final ScopedValue<Budget> CURRENT = ScopedValue.newInstance();

  /** Bits of the largest integer. */
  static final int MAX_BITS = 14_000;

  /** Characters of the largest text. */
  static final int MAX_TEXT = 16 << 20;

  private static final long STEPS = 10_000_000;
  private static final long BASE_CHARACTERS = 64L << 20;
  private static final int CHARACTERS_PER_INPUT = 256;
  private static final int MAX_DEPTH = 1000;

  private long steps = STEPS;
  private long characters;
  private int depth;

  /**
   * Sizes a rendering of a conversation.
   *
   * @param inputCharacters the length of all the text that the template is given
   */
  Budget(long inputCharacters) {
    this.characters = BASE_CHARACTERS + CHARACTERS_PER_INPUT * inputCharacters;
  }

  /** Counts steps of evaluation, or elements looked at. */
  static void steps(long count) {
    Budget budget = CURRENT.get();
    budget.steps -= count;
    if (budget.steps < 0) {
      throw new TemplateFailure("rendering takes more than " + STEPS + " steps");
    }
  }

  /** Counts text about to be made. */
  static void text(long length) {
    if (length > MAX_TEXT) {
      throw new TemplateFailure("a text of more than " + MAX_TEXT + " characters");
    }
    Budget budget = CURRENT.get();
    budget.characters -= length;
    if (budget.characters < 0) {
      throw new TemplateFailure("rendering makes too much text");
    }
  }

  /** Counts a step that adds to a text under way. */
  static void growing(StringBuilder out) {
    steps(1);
    if (out.length() > MAX_TEXT) {
      throw new TemplateFailure("a text of more than " + MAX_TEXT + " characters");
    }
  }

  /** Counts text already made, no longer than a few times an input that was counted. */
  static String made(String text) {
    text(text.length());
    return text;
  }

  static void enter() {
    if (++CURRENT.get().depth > MAX_DEPTH) {
      throw new TemplateFailure("nested more than " + MAX_DEPTH + " deep while rendering");
    }
  }

  static void leave() {
    CURRENT.get().depth--;
  }
}
