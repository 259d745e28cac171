package dev.wardrobe.compute.cuda;

import dev.wardrobe.compute.AttentionContract;
import dev.wardrobe.compute.Lab;

final class CudaAttentionTest extends AttentionContract {
  @Override
  public Lab lab(long seed) {
    return Labs.cuda(seed);
  }
}
