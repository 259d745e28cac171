package dev.wardrobe.tenant;

import java.util.regex.Pattern;

/**
 * Names of adapters, without versions: {@code *} stands for any characters, {@code /} included, all
 * others for themselves.
 */
record NamePattern(String text) {
  private static final int LONGEST = 200;
  private static final Pattern VALID = Pattern.compile("[A-Za-z0-9._/*-]+");

  NamePattern {
    if (text.length() > LONGEST || !VALID.matcher(text).matches()) {
      throw new IllegalArgumentException(
          "adapters: expected names in which * stands for anything, at most %d letters, digits and"
                  .formatted(LONGEST)
              + " ._-/*, got "
              + Quoted.of(text));
    }
  }

  /** In time of the product of the lengths at most, whatever the pattern. */
  boolean matches(String name) {
    int at = 0;
    int in = 0;
    int star = -1;
    int resume = 0;
    while (in < name.length()) {
      if (at < text.length() && text.charAt(at) == '*') {
        star = at++;
        resume = in;
      } else if (at < text.length() && text.charAt(at) == name.charAt(in)) {
        at++;
        in++;
      } else if (star >= 0) {
        at = star + 1;
        in = ++resume;
      } else {
        return false;
      }
    }
    while (at < text.length() && text.charAt(at) == '*') {
      at++;
    }
    return at == text.length();
  }
}
