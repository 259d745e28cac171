package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Lab;

/** CPU backends for tests. */
final class Labs {
  private Labs() {}

  static Lab cpu(long seed) {
    return of(new CpuBackend(2), seed);
  }

  static Lab of(Backend backend, long seed) {
    return new Lab(backend, open -> ((CpuBackend) open).liveBytes(), seed);
  }
}
