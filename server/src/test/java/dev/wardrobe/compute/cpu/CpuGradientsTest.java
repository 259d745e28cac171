package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.GradientsContract;
import dev.wardrobe.compute.Lab;

final class CpuGradientsTest extends GradientsContract {
  @Override
  public Lab lab(long seed) {
    return Labs.cpu(seed);
  }
}
