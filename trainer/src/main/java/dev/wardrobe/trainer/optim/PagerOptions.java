package dev.wardrobe.trainer.optim;

import java.nio.file.Path;
import org.jspecify.annotations.Nullable;

/**
 * Where an optimizer's state may lie.
 *
 * @param budget bytes of state that may be in fast memory at once; at least one page is
 * @param pageBytes of a page; whole blocks lie in it
 * @param ring most pages that are on their way in or out at once, of those that the budget allows
 * @param hostBytes bytes that may lie in host memory beside it, before the file
 * @param directory where the rest is written to, in a file that is gone when the job ends, however
 *     it ends; null if nothing may leave memory
 */
public record PagerOptions(
    long budget, int pageBytes, int ring, long hostBytes, @Nullable Path directory) {
  /** 1 MiB: large enough that threads share the work on one, and disks read it at full speed. */
  public static final int PAGE_BYTES = 1 << 20;

  /** Pages on their way. */
  public static final int RING = 4;

  private static final int LEAST_PAGE = 2 * Float.BYTES * dev.wardrobe.compute.UpdateRule.BLOCK;

  /** Everything in fast memory, always. */
  public static final PagerOptions RESIDENT =
      new PagerOptions(Long.MAX_VALUE, PAGE_BYTES, RING, 0, null);

  /**
   * @throws IllegalArgumentException if a number is out of range
   */
  public PagerOptions {
    if (budget < 1 || ring < 1 || hostBytes < 0) {
      throw new IllegalArgumentException(
          "paging: expected a budget and a ring of at least 1, host memory of at least 0,"
              + " got %d, %d, %d".formatted(budget, ring, hostBytes));
    }
    if (pageBytes < LEAST_PAGE || pageBytes > 1 << 30) {
      throw new IllegalArgumentException(
          "paging: expected pages of %d to %d bytes, got %d"
              .formatted(LEAST_PAGE, 1 << 30, pageBytes));
    }
  }

  /** At most {@code budget} bytes in fast memory, the rest in a file in {@code directory}. */
  public static PagerOptions within(long budget, Path directory) {
    return new PagerOptions(budget, PAGE_BYTES, RING, 0, directory);
  }
}
