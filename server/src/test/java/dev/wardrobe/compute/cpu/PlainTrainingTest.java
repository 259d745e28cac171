package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.Lab;
import dev.wardrobe.compute.TrainingContract;

/** The plain code, which generated code is compared with. */
final class PlainTrainingTest extends TrainingContract {
  @Override
  public Lab lab(long seed) {
    return Labs.of(new CpuBackend(2, new ScalarKernels()), seed);
  }
}
