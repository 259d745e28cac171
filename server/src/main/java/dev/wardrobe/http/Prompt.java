package dev.wardrobe.http;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A text, or token ids.
 *
 * @param text null if it is token ids
 */
record Prompt(@Nullable String text, List<Integer> tokens) {
  private static final String EXPECTED =
      "a string, a list of strings, a list of token ids, or a list of such lists";

  Prompt {
    tokens = List.copyOf(tokens);
  }

  /** One or several; at least one. */
  static List<Prompt> read(@Nullable JsonNode value, String name) throws FieldException {
    if (value == null) {
      throw FieldException.of(name, "expected %s, got nothing".formatted(EXPECTED));
    }
    if (value.isTextual()) {
      return List.of(new Prompt(value.textValue(), List.of()));
    }
    if (!value.isArray()) {
      throw Fields.expected(name, EXPECTED, value);
    }
    if (value.isEmpty()) {
      throw FieldException.of(name, "expected %s, got an empty list".formatted(EXPECTED));
    }
    if (value.get(0).isNumber()) {
      return List.of(new Prompt(null, Fields.integers(value, name)));
    }
    List<Prompt> prompts = new ArrayList<>();
    for (JsonNode each : value) {
      String element = "%s[%d]".formatted(name, prompts.size());
      prompts.add(
          each.isTextual()
              ? new Prompt(each.textValue(), List.of())
              : new Prompt(null, Fields.integers(each, element)));
    }
    return prompts;
  }
}
