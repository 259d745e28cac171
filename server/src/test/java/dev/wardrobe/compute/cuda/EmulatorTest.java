package dev.wardrobe.compute.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.List;
import jcuda.Pointer;
import jcuda.driver.CUcontext;
import jcuda.driver.CUdevice;
import jcuda.driver.CUdeviceptr;
import jcuda.driver.CUfunction;
import jcuda.driver.CUmodule;
import jcuda.driver.CUresult;
import jcuda.driver.CUstream;
import jcuda.driver.CUstream_flags;
import jcuda.driver.JCudaDriver;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** What the emulator must see, and what it must let pass. */
final class EmulatorTest {
  private static final int BLOCK = 256;

  private Emulator emulator;
  private CUmodule module;
  private CUstream stream;
  private final List<CUdeviceptr> allocations = new ArrayList<>();

  @BeforeEach
  void open() throws Exception {
    emulator = Emulator.load();
    Natives.load();
    emulator.reset();
    ok(JCudaDriver.cuInit(0));
    CUdevice device = new CUdevice();
    ok(JCudaDriver.cuDeviceGet(device, 0));
    CUcontext context = new CUcontext();
    ok(JCudaDriver.cuDevicePrimaryCtxRetain(context, device));
    ok(JCudaDriver.cuCtxSetCurrent(context));
    module = new CUmodule();
    ok(
        JCudaDriver.cuModuleLoadData(
            module, emulator.image(Emulator.sources().resolve("faults.cu"))));
    stream = new CUstream();
    ok(JCudaDriver.cuStreamCreate(stream, CUstream_flags.CU_STREAM_NON_BLOCKING));
  }

  @AfterEach
  void close() {
    for (CUdeviceptr allocation : allocations) {
      JCudaDriver.cuMemFree(allocation);
    }
    emulator.reset();
  }

  @Test
  void soundKernels_sameResultsWithEverySeed() {
    float[] x = ramp(1024);
    for (int seed = 1; seed <= 20; seed++) {
      emulator.seed(seed);
      CUdeviceptr from = device(x);
      CUdeviceptr to = device(new float[1024]);
      assertThat(launch("reverse_blocks", 4, from, to, 1024, 0)).isZero();
      float[] y = floats(to, 1024);
      for (int i = 0; i < y.length; i++) {
        assertThat(y[i]).isEqualTo(x[i / BLOCK * BLOCK + BLOCK - 1 - i % BLOCK]);
      }
      assertThat(launch("sum_blocks", 4, from, to, 1024, 0)).isZero();
      assertThat(floats(to, 4)).containsExactly(32640f, 98176f, 163712f, 229248f);
    }
    assertThat(emulator.report()).isEmpty();
  }

  @Test
  void readPastEnd() {
    CUdeviceptr x = device(new float[1000]);
    CUdeviceptr y = device(new float[1000]);
    assertThat(launch("reads_past_end", 4, x, y, 1000, 0))
        .isEqualTo(CUresult.CUDA_ERROR_ILLEGAL_ADDRESS);
    System.out.println(emulator.report());
  }

  @Test
  void barrierInBranch() {
    CUdeviceptr y = device(new float[BLOCK]);
    assertThat(launch("barrier_in_branch", 1, y, y, BLOCK, 0))
        .isEqualTo(CUresult.CUDA_ERROR_LAUNCH_FAILED);
    System.out.println(emulator.report());
  }

  @Test
  void shuffleInBranch() {
    CUdeviceptr y = device(new float[BLOCK]);
    assertThat(launch("shuffle_in_branch", 1, y, y, BLOCK, 0))
        .isEqualTo(CUresult.CUDA_ERROR_LAUNCH_FAILED);
    System.out.println(emulator.report());
  }

  private int launch(String kernel, int blocks, CUdeviceptr x, CUdeviceptr y, int n, float factor) {
    CUfunction function = new CUfunction();
    ok(JCudaDriver.cuModuleGetFunction(function, module, kernel));
    LaunchArguments arguments =
        new LaunchArguments().address(address(x)).address(address(y)).number(n).number(factor);
    ok(
        JCudaDriver.cuLaunchKernel(
            function, blocks, 1, 1, BLOCK, 1, 1, 0, stream, null, arguments.extra()));
    return JCudaDriver.cuStreamSynchronize(stream);
  }

  private static float[] ramp(int n) {
    float[] values = new float[n];
    for (int i = 0; i < n; i++) {
      values[i] = i;
    }
    return values;
  }

  private CUdeviceptr device(float[] values) {
    CUdeviceptr pointer = new CUdeviceptr();
    ok(JCudaDriver.cuMemAlloc(pointer, 4L * values.length));
    allocations.add(pointer);
    ok(JCudaDriver.cuMemcpyHtoD(pointer, Pointer.to(values), 4L * values.length));
    return pointer;
  }

  private float[] floats(CUdeviceptr from, int n) {
    float[] values = new float[n];
    ok(JCudaDriver.cuMemcpyDtoH(Pointer.to(values), from, 4L * n));
    return values;
  }

  private void ok(int code) {
    assertThat(code).as(() -> CUresult.stringFor(code) + ": " + emulator.report()).isZero();
  }

  private static long address(CUdeviceptr pointer) {
    return new Address(pointer).value();
  }

  private static final class Address extends CUdeviceptr {
    Address(CUdeviceptr pointer) {
      super(pointer);
    }

    long value() {
      return getNativePointer() + getByteOffset();
    }
  }
}
