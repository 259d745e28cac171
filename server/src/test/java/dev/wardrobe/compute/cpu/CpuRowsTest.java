package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.Lab;
import dev.wardrobe.compute.RowsContract;

final class CpuRowsTest extends RowsContract {
  @Override
  public Lab lab(long seed) {
    return Labs.cpu(seed);
  }
}
