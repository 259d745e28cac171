package dev.wardrobe.compute.cuda;

import dev.wardrobe.compute.Lab;
import dev.wardrobe.compute.MixContract;

final class CudaMixTest extends MixContract {
  @Override
  public Lab lab(long seed) {
    return Labs.cuda(seed);
  }
}
