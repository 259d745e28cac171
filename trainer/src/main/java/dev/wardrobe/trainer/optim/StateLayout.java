package dev.wardrobe.trainer.optim;

import dev.wardrobe.compute.UpdateRule;
import dev.wardrobe.trainer.backward.Parameter;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * Which blocks lie in which page: parameters in order, their blocks in order, no block across
 * pages.
 */
final class StateLayout {
  private final List<List<Part>> pages = new ArrayList<>();
  private final long bytes;
  private final int pageBytes;

  /**
   * Blocks of one parameter that lie in one page, one after another.
   *
   * @param parameter its number
   * @param from first element
   * @param count elements
   * @param offset bytes from the page's start
   * @param bytes of their records
   */
  record Part(int parameter, int from, int count, int offset, int bytes) {}

  /** The layout of parameters' state. */
  static StateLayout of(List<Parameter> parameters, OptimizerOptions options, int pageBytes) {
    long[] sizes = parameters.stream().mapToLong(Parameter::size).toArray();
    int[] records = parameters.stream().mapToInt(p -> options.at(1, 0, p).blockBytes()).toArray();
    return new StateLayout(sizes, records, pageBytes);
  }

  /**
   * @param sizes elements of each parameter
   * @param blockBytes bytes of a block's record, of each parameter; at most a page
   */
  StateLayout(long[] sizes, int[] blockBytes, int pageBytes) {
    long all = 0;
    for (int i = 0; i < sizes.length; i++) {
      all += Math.ceilDiv(sizes[i], UpdateRule.BLOCK) * blockBytes[i];
    }
    this.bytes = all;
    // Whole records of the largest kind, so that pages end with little unused.
    int largest = Math.max(1, Arrays.stream(blockBytes).max().orElse(1));
    this.pageBytes = Math.clamp(all, 1, pageBytes / largest * largest);
    divide(sizes, blockBytes);
  }

  private void divide(long[] sizes, int[] blockBytes) {
    List<Part> page = new ArrayList<>();
    int used = 0;
    for (int i = 0; i < sizes.length; i++) {
      long from = 0;
      while (from < sizes[i] && blockBytes[i] > 0) {
        int room = (pageBytes - used) / blockBytes[i];
        if (room == 0) {
          pages.add(List.copyOf(page));
          page.clear();
          used = 0;
          continue;
        }
        int count = (int) Math.min(sizes[i] - from, (long) room * UpdateRule.BLOCK);
        int bytes = Math.ceilDiv(count, UpdateRule.BLOCK) * blockBytes[i];
        page.add(new Part(i, (int) from, count, used, bytes));
        used += bytes;
        from += count;
      }
    }
    if (!page.isEmpty()) {
      pages.add(List.copyOf(page));
    }
  }

  /** Bytes of all records. */
  long bytes() {
    return bytes;
  }

  /** Bytes of a page: what was asked for or a little less, and no more than there is. */
  int pageBytes() {
    return pageBytes;
  }

  int pages() {
    return pages.size();
  }

  List<Part> parts(int page) {
    return pages.get(page);
  }
}
