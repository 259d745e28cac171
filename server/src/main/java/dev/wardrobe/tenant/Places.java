package dev.wardrobe.tenant;

import java.util.HashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Something of which there is room for so many at a time. One tenant has a part of it at most, so
 * that it cannot lock the others out. Safe for use by all threads.
 */
public final class Places {
  private final String what;
  private final int most;
  private final int mostOfOne;

  // Guarded by this.
  private final Map<String, Integer> taken = new HashMap<>();
  private int all;

  /**
   * @param what they are for, in the plural
   * @param most of all callers together
   * @param mostOfOne of a tenant
   */
  public Places(String what, int most, int mostOfOne) {
    this.what = what;
    this.most = most;
    this.mostOfOne = mostOfOne;
  }

  /**
   * Takes a place, which is to be given back.
   *
   * @return why there is none; null if it was taken
   */
  public synchronized @Nullable String take(Caller caller) {
    String tenant = caller.tenant();
    if (tenant != null && taken.getOrDefault(tenant, 0) >= mostOfOne) {
      return "expected at most %d %s of a tenant at once, got another; end one, or come again later"
          .formatted(mostOfOne, what);
    }
    if (all >= most) {
      return "expected at most %d %s at once, got another; come again later".formatted(most, what);
    }
    all++;
    if (tenant != null) {
      taken.merge(tenant, 1, Integer::sum);
    }
    return null;
  }

  /** Gives a place back. */
  public synchronized void giveBack(Caller caller) {
    all--;
    if (caller.tenant() != null) {
      taken.computeIfPresent(caller.tenant(), (_, count) -> count == 1 ? null : count - 1);
    }
  }
}
