package dev.wardrobe.tenant;

/** Foreign text in messages. */
final class Quoted {
  private static final int LONGEST = 80;

  private Quoted() {}

  /** {@code text} in quotes, on one line, cut short; what looks like a key is left out. */
  static String of(String text) {
    if (text.contains("wardrobe_")) {
      return "what looks like a key, not repeated here";
    }
    StringBuilder safe = new StringBuilder("'");
    for (int i = 0; i < text.length(); i++) {
      if (i == LONGEST) {
        return safe.append("…'").toString();
      }
      char c = text.charAt(i);
      safe.append(c >= ' ' && c <= '~' ? c : '?');
    }
    return safe.append('\'').toString();
  }
}
