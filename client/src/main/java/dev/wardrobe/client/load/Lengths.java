package dev.wardrobe.client.load;

import java.util.SplittableRandom;

/**
 * How many tokens: always the same, or any number between two, each as likely.
 *
 * @param least of them
 * @param most of them
 */
public record Lengths(int least, int most) {
  /** More than any context. */
  private static final int MOST = 1 << 24;

  /**
   * Reads {@code 64} or {@code 16-64}.
   *
   * @param what the option's name, for the message
   * @throws IllegalArgumentException if it is neither
   */
  public static Lengths parse(String what, String text) {
    int dash = text.indexOf('-');
    try {
      int least = Integer.parseInt(dash < 0 ? text : text.substring(0, dash));
      int most = dash < 0 ? least : Integer.parseInt(text.substring(dash + 1));
      if (least >= 1 && most >= least && most <= MOST) {
        return new Lengths(least, most);
      }
    } catch (NumberFormatException e) {
      // Said below.
    }
    throw new IllegalArgumentException(
        "%s: expected a number of tokens such as 64, or a range such as 16-64, got '%s'"
            .formatted(what, text));
  }

  int draw(SplittableRandom random) {
    return least == most ? least : random.nextInt(least, most + 1);
  }

  @Override
  public String toString() {
    return least == most ? Integer.toString(least) : least + " to " + most;
  }
}
