package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.Lab;
import dev.wardrobe.compute.MixContract;

final class CpuMixTest extends MixContract {
  @Override
  public Lab lab(long seed) {
    return Labs.cpu(seed);
  }
}
