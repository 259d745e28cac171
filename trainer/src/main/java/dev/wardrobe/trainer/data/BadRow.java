package dev.wardrobe.trainer.data;

/** A row that cannot be used, with the reason under which it is counted. */
final class BadRow extends Exception {

  private static final long serialVersionUID = 1L;

  private final String reason;

  /**
   * @param reason one of a few, such as {@code not valid JSON}
   * @param detail what was expected and what was there
   */
  BadRow(String reason, String detail) {
    // A file may hold millions: where in this program they are found tells nobody anything.
    super(detail, null, false, false);
    this.reason = reason;
  }

  String reason() {
    return reason;
  }
}
