package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterException.quote;

import dev.wardrobe.adapter.AdapterException.Reason;
import java.util.List;
import java.util.regex.Pattern;

/** What an adapter may be called. */
final class AdapterName {
  private static final Pattern PATTERN =
      Pattern.compile("[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*");
  private static final int LONGEST = 200;

  /** What follows a name in the paths of the adapters' JSON methods. */
  private static final List<String> TAKEN = List.of("versions", "aliases");

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
    checkEnd(name);
  }

  /**
   * Refuses a name that no path could tell from what another name has.
   *
   * @throws AdapterException INVALID if it is one
   */
  static void checkEnd(String name) throws AdapterException {
    for (String taken : TAKEN) {
      if (name.endsWith("/" + taken)) {
        throw new AdapterException(
            Reason.INVALID,
            "name: expected one that does not end in /%s, since that is where %s has its own, got %s; choose another name"
                .formatted(
                    taken,
                    quote(name.substring(0, name.length() - taken.length() - 1)),
                    quote(name)));
      }
    }
  }

  /**
   * Refuses the name by which requests ask for the base.
   *
   * @param base its name; empty if there is none
   * @throws AdapterException EXISTS if it is that
   */
  static void checkNotBase(String name, String base) throws AdapterException {
    if (!base.isEmpty() && name.equals(base)) {
      throw new AdapterException(
          Reason.EXISTS,
          "name: expected another than the base's, by which requests ask for the base, got %s; choose another name"
              .formatted(quote(name)));
    }
  }
}
