package dev.wardrobe.text;

/**
 * An error while a template is read or rendered. It stays inside the package: {@link ChatTemplate}
 * turns it into a {@link TextException}.
 */
final class TemplateFailure extends RuntimeException {

  private static final long serialVersionUID = 1L;

  /** Whether the message must reach the caller as it is, without a place in front of it. */
  private final boolean verbatim;

  TemplateFailure(String message) {
    this(message, false);
  }

  private TemplateFailure(String message, boolean verbatim) {
    super(message, null, false, false);
    this.verbatim = verbatim;
  }

  /** The failure that a template asked for with {@code raise_exception}. */
  static TemplateFailure raised(String message) {
    return new TemplateFailure(message, true);
  }

  String text() {
    return String.valueOf(getMessage());
  }

  boolean verbatim() {
    return verbatim;
  }
}
