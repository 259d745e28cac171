package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterException.quote;

import dev.wardrobe.adapter.AdapterException.Reason;
import java.util.regex.Pattern;

/** What an adapter may be called. */
final class AdapterName {
  private static final Pattern PATTERN =
      Pattern.compile("[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*");
  private static final int LONGEST = 200;

  private AdapterName() {}

  /**
   * Checks a name by itself.
   *
   * @throws AdapterException INVALID if it is none
   */
  static void check(String name) throws AdapterException {
    if (name.length() > LONGEST || !PATTERN.matcher(name).matches() || name.contains("..")) {
      throw new AdapterException(
          Reason.INVALID,
          "name: expected at most %d letters, digits and ._-/ inside, beginning with a letter or"
                  .formatted(LONGEST)
              + " digit, got %s; choose another name".formatted(quote(name)));
    }
  }
}
