package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.Lab;
import dev.wardrobe.compute.MemoryContract;

final class CpuMemoryTest extends MemoryContract {
  @Override
  public Lab lab(long seed) {
    return Labs.cpu(seed);
  }
}
