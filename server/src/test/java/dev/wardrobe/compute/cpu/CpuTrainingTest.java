package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.Lab;
import dev.wardrobe.compute.TrainingContract;

final class CpuTrainingTest extends TrainingContract {
  @Override
  public Lab lab(long seed) {
    return Labs.cpu(seed);
  }
}
