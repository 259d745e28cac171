package dev.wardrobe.text;

import java.util.Arrays;
import java.util.function.Function;
import java.util.function.IntPredicate;

/**
 * A detokenizer that takes one id at a time and never gives out half a character.
 *
 * <p>The rule: of the text of all ids so far (special tokens skipped), nothing is given while it
 * ends in U+FFFD, as a character may be incomplete there; else what is new is given. The increments
 * and {@link #flush} together are the whole text. Where sentencepiece's bytes turn out to be no
 * text at all, a later token changes text that was given already; the stream then waits for {@link
 * #PATIENCE} tokens whether it comes back, and goes on behind the part that is still right.
 *
 * <p>Only a window of the last ids is decoded for each token, so that a stream costs as much at its
 * end as at its start. The window begins at a token whose own text shows that nothing before it
 * matters. For one thread at a time.
 */
public final class TokenStream {

  private static final char REPLACEMENT = '\ufffd';

  /** Ids in the window from which on a shorter one is looked for. */
  private static final int LONG = 12;

  /**
   * The most ids that wait for the end of a character. Real ones need four at most; only garbage
   * gets here, and its replacement characters are given out then.
   */
  private static final int MAX_HELD = 1024;

  /** How many tokens a stream is silent after text that it gave has changed. */
  static final int PATIENCE = 32;

  private final Function<int[], String> decode;
  private final IntPredicate silent;
  private final boolean windowed;

  private int[] window = new int[16];
  private int length;

  /** What the window's text was when something of it was given last. */
  private String given = "";

  /** Ids taken since then. */
  private int held;

  /**
   * Starts an empty stream.
   *
   * @param decode the text of ids, special tokens skipped
   * @param silent whether an id has no text and no effect on others
   * @param windowed whether a token's text depends on few tokens around it
   */
  TokenStream(Function<int[], String> decode, IntPredicate silent, boolean windowed) {
    this.decode = decode;
    this.silent = silent;
    this.windowed = windowed;
  }

  /** Takes the next id and returns the text that it completes, often none. */
  public String next(int token) {
    if (silent.test(token)) {
      return "";
    }
    if (length == window.length) {
      window = Arrays.copyOf(window, 2 * length);
    }
    window[length++] = token;
    held++;
    String text = decode.apply(Arrays.copyOf(window, length));
    boolean complete = text.isEmpty() || text.charAt(text.length() - 1) != REPLACEMENT;
    boolean changed = !text.startsWith(given);
    boolean patient = changed ? held <= PATIENCE : held <= MAX_HELD;
    if (patient && (changed || !complete)) {
      return "";
    }
    return give(text, changed);
  }

  /** Returns the text that was held back; the stream goes on from there. */
  public String flush() {
    String text = decode.apply(Arrays.copyOf(window, length));
    return give(text, !text.startsWith(given));
  }

  private String give(String text, boolean changed) {
    String increment = text.substring(changed ? commonPrefix(text, given) : given.length());
    given = text;
    held = 0;
    if (windowed && length > MAX_HELD) {
      length = 0;
      given = "";
    } else if (windowed && length > LONG) {
      shorten();
    }
    return increment;
  }

  private static int commonPrefix(String left, String right) {
    int i = 0;
    while (i < left.length() && i < right.length() && left.charAt(i) == right.charAt(i)) {
      i++;
    }
    return i;
  }

  /**
   * Moves the window's start. The ids from i on may stand for all if they alone give text (so that
   * what is stripped at a start is stripped inside them), the same that they give here, with no
   * damaged character in it (so that no character crosses the cut).
   */
  private void shorten() {
    for (int start = length - 1; start > 0 && length - start <= LONG; start--) {
      int[] rest = Arrays.copyOfRange(window, start, length);
      String text = decode.apply(rest);
      if (!text.isEmpty() && text.indexOf(REPLACEMENT) < 0 && given.endsWith(text)) {
        System.arraycopy(window, start, window, 0, rest.length);
        length = rest.length;
        given = text;
        return;
      }
    }
  }
}
