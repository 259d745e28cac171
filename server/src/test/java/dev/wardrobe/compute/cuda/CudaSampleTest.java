package dev.wardrobe.compute.cuda;

import dev.wardrobe.compute.Lab;
import dev.wardrobe.compute.SampleContract;

final class CudaSampleTest extends SampleContract {
  @Override
  public Lab lab(long seed) {
    return Labs.cuda(seed);
  }
}
