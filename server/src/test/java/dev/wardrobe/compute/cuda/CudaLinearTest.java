package dev.wardrobe.compute.cuda;

import dev.wardrobe.compute.Lab;
import dev.wardrobe.compute.LinearContract;

final class CudaLinearTest extends LinearContract {
  @Override
  public Lab lab(long seed) {
    return Labs.cuda(seed);
  }
}
