package dev.wardrobe.compute.cuda;

import dev.wardrobe.compute.Lab;
import dev.wardrobe.compute.MathMode;
import dev.wardrobe.compute.UnavailableException;
import java.lang.foreign.Arena;
import java.lang.foreign.SymbolLookup;

/** CUDA backends for tests: on the emulator, or with this property on a real device. */
public final class Labs {
  static final String DEVICE = "wardrobe.cuda.device";

  private Labs() {}

  /** A backend on a device whose scheduling is the seed's too; the test is skipped without g++. */
  static Lab cuda(long seed) {
    if (Boolean.getBoolean(DEVICE)) {
      return lab(device(), seed);
    }
    Emulator emulator = Emulator.load();
    emulator.reset();
    emulator.seed(seed);
    return lab(backend(emulator), seed);
  }

  /** The same in fast mode, with a cuBLASLt for the emulator. */
  @SuppressWarnings("restricted") // native code is the point
  static Lab fast(long seed) {
    Emulator emulator = Emulator.load();
    emulator.reset();
    emulator.seed(seed);
    try {
      Gpu gpu = gpu(emulator);
      SymbolLookup library = SymbolLookup.libraryLookup(emulator.cublasLt(), Arena.global());
      return lab(new CudaBackend(gpu, CublasLt.load(library, gpu), null), seed);
    } catch (UnavailableException e) {
      throw new AssertionError(e);
    }
  }

  private static Gpu gpu(Emulator emulator) throws UnavailableException {
    Gpu gpu = Gpu.open();
    gpu.load(emulator.image());
    return gpu;
  }

  private static Lab lab(CudaBackend backend, long seed) {
    return new Lab(backend, open -> ((CudaBackend) open).liveBytes(), seed, 0x1p-8);
  }

  private static CudaBackend device() {
    try {
      return CudaBackend.open(MathMode.EXACT);
    } catch (UnavailableException e) {
      throw new AssertionError(e);
    }
  }

  /** A backend on the device as it is. */
  public static CudaBackend backend(Emulator emulator) {
    try {
      return new CudaBackend(gpu(emulator));
    } catch (UnavailableException e) {
      throw new AssertionError(e);
    }
  }
}
