package dev.wardrobe.text;

/**
 * A tokenizer, chat template or conversation that cannot be used, with the reason and, where there
 * is one, what to do about it. The text that a template gives to {@code raise_exception} is the
 * message verbatim.
 */
public final class TextException extends Exception {

  private static final long serialVersionUID = 1L;

  public TextException(String message) {
    super(message);
  }

  public TextException(String message, Throwable cause) {
    super(message, cause);
  }
}
