package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.Lab;
import dev.wardrobe.compute.LinearContract;

final class CpuLinearTest extends LinearContract {
  @Override
  public Lab lab(long seed) {
    return Labs.cpu(seed);
  }
}
