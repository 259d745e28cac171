package dev.wardrobe.model;

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.util.DefaultIndenter;
import com.fasterxml.jackson.core.util.DefaultPrettyPrinter;
import com.fasterxml.jackson.core.util.Separators;
import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;

/**
 * The text of a {@code config.json} that gains a key, with every other character left alone:
 * numbers keep their spelling, and unknown keys their place.
 */
final class ConfigText {
  private static final String INDENT = "  ";

  private ConfigText() {}

  /** Two spaces a level and a line per entry, as Python's {@code json.dumps(indent=2)}. */
  static String pretty(JsonNode node) throws IOException {
    DefaultIndenter indenter = new DefaultIndenter(INDENT, "\n");
    DefaultPrettyPrinter printer =
        new DefaultPrettyPrinter(
                Separators.createDefaultInstance()
                    .withObjectFieldValueSpacing(Separators.Spacing.AFTER)
                    .withObjectEmptySeparator("")
                    .withArrayEmptySeparator(""))
            .withObjectIndenter(indenter)
            .withArrayIndenter(indenter);
    return Fields.MAPPER.writer(printer).writeValueAsString(node);
  }

  /**
   * {@code text}, an object, with {@code key} set: before the first key that sorts after it, as
   * transformers writes its keys sorted, else at the end.
   */
  static String with(String text, String key, JsonNode value) throws IOException {
    String indented = pretty(value).replace("\n", "\n" + INDENT);
    String entry = "\"" + key + "\": " + indented;
    int before = -1;
    int end = -1;
    int last = -1;
    try (JsonParser parser = Fields.MAPPER.createParser(text)) {
      parser.nextToken();
      while (parser.nextToken() == JsonToken.FIELD_NAME) {
        int at = (int) parser.currentTokenLocation().getCharOffset();
        String name = parser.currentName();
        parser.nextToken();
        if (name.equals(key)) {
          int from = (int) parser.currentTokenLocation().getCharOffset();
          parser.skipChildren();
          int to = (int) parser.currentLocation().getCharOffset();
          return text.substring(0, from) + indented + text.substring(to);
        }
        parser.skipChildren();
        // Of a number, the parser has looked one character further.
        last = valueEnd(text, parser);
        if (before < 0 && name.compareTo(key) > 0) {
          before = at;
        }
      }
      end = (int) parser.currentTokenLocation().getCharOffset();
    }
    if (before >= 0) {
      return text.substring(0, before) + entry + ",\n" + INDENT + text.substring(before);
    }
    String separator = last < 0 ? "\n" : ",\n";
    int at = last < 0 ? text.indexOf('{') + 1 : last;
    return text.substring(0, at) + separator + INDENT + entry + "\n" + text.substring(end);
  }

  private static int valueEnd(String text, JsonParser parser) {
    int to = (int) parser.currentLocation().getCharOffset();
    while (to > 0 && " \t\r\n,}".indexOf(text.charAt(to - 1)) >= 0) {
      if (text.charAt(to - 1) == '}' && parser.currentToken() == JsonToken.END_OBJECT) {
        break;
      }
      to--;
    }
    return to;
  }
}
