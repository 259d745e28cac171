package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.Lab;
import dev.wardrobe.compute.SampleContract;

final class CpuSampleTest extends SampleContract {
  @Override
  public Lab lab(long seed) {
    return Labs.cpu(seed);
  }
}
