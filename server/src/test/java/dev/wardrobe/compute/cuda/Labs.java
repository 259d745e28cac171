package dev.wardrobe.compute.cuda;

import dev.wardrobe.compute.Lab;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.compute.UnavailableException;

/** CUDA backends for tests, on the emulator. */
final class Labs {
  private Labs() {}

  /** A backend on a device whose scheduling is the seed's too; the test is skipped without g++. */
  static Lab cuda(long seed) {
    Emulator emulator = Emulator.load();
    emulator.reset();
    emulator.seed(seed);
    return new Lab(backend(emulator), open -> ((CudaBackend) open).liveBytes(), seed, 0x1p-8);
  }

  /** A backend on the device as it is. */
  static CudaBackend backend(Emulator emulator) {
    try {
      Gpu gpu = Gpu.open();
      gpu.load(emulator.image());
      return new CudaBackend(gpu, MathMode.EXACT);
    } catch (UnavailableException e) {
      throw new AssertionError(e);
    }
  }
}
