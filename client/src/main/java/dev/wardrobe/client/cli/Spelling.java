package dev.wardrobe.client.cli;

import java.util.Collection;
import java.util.Locale;
import org.jspecify.annotations.Nullable;

/** What may have been meant by a word that is unknown. */
final class Spelling {
  private Spelling() {}

  /** The nearest of the known words, if it is near: a third of the word's letters, at most 3. */
  static @Nullable String closest(String word, Collection<String> known) {
    int least = Math.min(3, Math.max(1, word.length() / 3)) + 1;
    String closest = null;
    for (String each : known) {
      int distance = distance(word.toLowerCase(Locale.ROOT), each.toLowerCase(Locale.ROOT), least);
      if (distance < least) {
        least = distance;
        closest = each;
      }
    }
    return closest;
  }

  /**
   * Letters to insert, delete, replace or swap with their neighbour; counted up to {@code most}.
   */
  static int distance(String a, String b, int most) {
    if (Math.abs(a.length() - b.length()) >= most) {
      return most;
    }
    int[][] cost = new int[a.length() + 1][b.length() + 1];
    for (int i = 0; i <= a.length(); i++) {
      for (int j = 0; j <= b.length(); j++) {
        if (i == 0 || j == 0) {
          cost[i][j] = i + j;
          continue;
        }
        boolean same = a.charAt(i - 1) == b.charAt(j - 1);
        int least =
            Math.min(
                cost[i - 1][j - 1] + (same ? 0 : 1), 1 + Math.min(cost[i - 1][j], cost[i][j - 1]));
        if (i > 1
            && j > 1
            && a.charAt(i - 1) == b.charAt(j - 2)
            && a.charAt(i - 2) == b.charAt(j - 1)) {
          least = Math.min(least, cost[i - 2][j - 2] + 1);
        }
        cost[i][j] = least;
      }
    }
    return Math.min(most, cost[a.length()][b.length()]);
  }
}
