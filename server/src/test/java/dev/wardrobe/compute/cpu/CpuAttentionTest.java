package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.AttentionContract;
import dev.wardrobe.compute.Lab;

final class CpuAttentionTest extends AttentionContract {
  @Override
  public Lab lab(long seed) {
    return Labs.cpu(seed);
  }
}
