package dev.wardrobe.compute.cuda;

import dev.wardrobe.compute.Lab;
import dev.wardrobe.compute.MemoryContract;

final class CudaMemoryTest extends MemoryContract {
  @Override
  public Lab lab(long seed) {
    return Labs.cuda(seed);
  }
}
