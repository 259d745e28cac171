package dev.wardrobe.text;

/** Text that counts as HTML already: adding other text to it escapes that text. */
record Markup(String text) {

  static Markup escape(Object value) {
    if (value instanceof Markup markup) {
      return markup;
    }
    return new Markup(
        Representation.str(value)
            .replace("&", "&amp;")
            .replace(">", "&gt;")
            .replace("<", "&lt;")
            .replace("'", "&#39;")
            .replace("\"", "&#34;"));
  }

  @Override
  public String toString() {
    return text;
  }
}
