package dev.wardrobe.adapter;

import java.io.Serial;

/**
 * An adapter that cannot be used, and why: the message says on one line what is wrong, what was
 * expected, what was found and what to do; the reason is what callers act on.
 */
public final class AdapterException extends Exception {
  @Serial private static final long serialVersionUID = 1L;

  /** Longest piece of a file's own text that a message repeats. */
  private static final int LONGEST_QUOTE = 160;

  private static final int LONGEST_MESSAGE = 1000;

  /** What a caller can do about it. */
  public enum Reason {
    /** The adapter's files are damaged, contradict each other, or ask for what is not supported. */
    INVALID,
    /** The adapter is well-formed but was made for another base. */
    MISMATCH,
    /** No adapter of that name or digest. */
    NOT_FOUND,
    /** The name is taken. */
    EXISTS,
    /** Something else still needs it. */
    IN_USE,
    /** What was asked for is no longer kept; ask for the present state. */
    OUTDATED,
    /** It was given up before it was complete. */
    CUT_OFF,
    /** The server was started without what it takes. */
    NOT_SET_UP,
    /** The path leads out of the adapter roots, or there are none. */
    REFUSED_PATH,
    /** It exceeds a limit, or the memory there is. */
    TOO_LARGE,
    /** What was stored is no longer what it was. */
    DAMAGED,
    /** The files could not be read, or not written. */
    IO
  }

  private final Reason reason;

  public AdapterException(Reason reason, String message) {
    super(message);
    this.reason = reason;
  }

  public AdapterException(Reason reason, String message, Throwable cause) {
    super(message, cause);
    this.reason = reason;
  }

  public Reason reason() {
    return reason;
  }

  /** The same, said of the adapter that is called {@code name}. */
  AdapterException of(String name) {
    AdapterException named =
        new AdapterException(reason, "adapter " + quote(name) + ": " + getMessage());
    named.initCause(this);
    return named;
  }

  /** {@code text} in quotes, on one line, cut short: fit for a message, whoever wrote it. */
  static String quote(String text) {
    return "'" + plain(text) + "'";
  }

  /** {@code text} on one line, cut short. */
  static String plain(String text) {
    return plain(text, LONGEST_QUOTE);
  }

  /** Another layer's message, on one line. */
  static String message(Exception e) {
    return plain(String.valueOf(e.getMessage()), LONGEST_MESSAGE);
  }

  private static String plain(String text, int longest) {
    StringBuilder safe = new StringBuilder();
    for (int i = 0; i < text.length(); i++) {
      if (safe.length() >= longest) {
        return safe.append('…').toString();
      }
      char c = text.charAt(i);
      boolean pair =
          Character.isHighSurrogate(c)
              && i + 1 < text.length()
              && Character.isLowSurrogate(text.charAt(i + 1));
      if (pair) {
        safe.append(c).append(text.charAt(++i));
      } else if (Character.isISOControl(c)
          || Character.isSurrogate(c)
          || Character.getType(c) == Character.FORMAT
          || c == '\u2028'
          || c == '\u2029') {
        safe.append(String.format("\\u%04x", (int) c));
      } else {
        safe.append(c);
      }
    }
    return safe.toString();
  }
}
