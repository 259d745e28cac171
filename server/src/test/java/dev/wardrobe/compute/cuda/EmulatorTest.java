package dev.wardrobe.compute.cuda;

import static dev.wardrobe.compute.cuda.EmulatedDevice.BLOCK;
import static dev.wardrobe.compute.cuda.EmulatedDevice.ramp;
import static dev.wardrobe.compute.cuda.EmulatedDevice.view;
import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.compute.UnavailableException;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.Random;
import java.util.function.IntUnaryOperator;
import jcuda.driver.CUdeviceptr;
import jcuda.driver.CUfunction;
import jcuda.driver.CUfunction_attribute;
import jcuda.driver.CUmodule;
import jcuda.driver.CUresult;
import jcuda.driver.JCudaDriver;
import org.assertj.core.data.Offset;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** What the emulator must see of a kernel's mistakes, and what it must let pass. */
final class EmulatorTest {
  private EmulatedDevice device;
  private Emulator emulator;

  @BeforeEach
  void open() throws UnavailableException {
    device = EmulatedDevice.open();
    emulator = device.emulator;
  }

  @AfterEach
  void close() {
    if (device != null) {
      device.close();
    }
  }

  @Test
  void soundKernels_sameResultsWithEverySeed() {
    float[] x = ramp(4096);
    for (int seed = 1; seed <= 20; seed++) {
      emulator.seed(seed);
      CUdeviceptr from = device.device(x);
      CUdeviceptr to = device.device(new float[4096]);
      device.ok(device.run("reverse_blocks", 16, from, to, 4096));
      float[] y = device.floats(to, 4096);
      for (int i = 0; i < y.length; i++) {
        assertThat(y[i]).isEqualTo(x[i / BLOCK * BLOCK + BLOCK - 1 - i % BLOCK]);
      }
      device.ok(device.run("sum_blocks", 4, from, to, 1024));
      assertThat(device.floats(to, 4)).containsExactly(32640f, 98176f, 163712f, 229248f);
      device.ok(device.run("copy_asynchronously", 4, 4096, from, to, 4096));
      assertThat(device.floats(to, 4096)).isEqualTo(x);
      device.ok(device.run("constant_lookup", 1, from, to, 5));
      assertThat(device.floats(to, 6)).containsExactly(1f, 2f, 3f, 4f, 5f, 1f);
    }
    assertThat(emulator.report()).isEmpty();
    assertThat(emulator.count("kernels")).isEqualTo(80);
    assertThat(emulator.count("kernel sum_blocks")).isEqualTo(20);
  }

  @Test
  void product_ofTensorCores() {
    Random random = new Random(7);
    float[][] a = new float[16][16];
    float[][] b = new float[8][16];
    short[] rows = new short[256];
    short[] columns = new short[256];
    short[] right = new short[128];
    for (int i = 0; i < 256; i++) {
      short bits = (short) (Float.floatToRawIntBits((float) random.nextGaussian()) >>> 16);
      rows[i] = bits;
      columns[i % 16 * 16 + i / 16] = bits;
      a[i / 16][i % 16] = Float.intBitsToFloat(bits << 16);
    }
    for (int i = 0; i < 128; i++) {
      right[i] = (short) (Float.floatToRawIntBits((float) random.nextGaussian()) >>> 16);
      b[i / 16][i % 16] = Float.intBitsToFloat(right[i] << 16);
    }
    for (boolean transposed : new boolean[] {false, true}) {
      CUdeviceptr d = device.device(new float[128]);
      LaunchArguments arguments =
          new LaunchArguments()
              .address(EmulatedDevice.address(device.device(transposed ? columns : rows)))
              .address(EmulatedDevice.address(device.device(right)))
              .address(EmulatedDevice.address(d))
              .number(transposed ? 1 : 0);
      device.ok(
          JCudaDriver.cuLaunchKernel(
              device.kernel("product"),
              1,
              1,
              1,
              32,
              1,
              1,
              0,
              device.stream,
              null,
              arguments.extra()));
      device.ok(JCudaDriver.cuStreamSynchronize(device.stream));
      float[] got = device.floats(d, 128);
      for (int i = 0; i < 16; i++) {
        for (int j = 0; j < 8; j++) {
          double sum = 0;
          double scale = 0;
          for (int k = 0; k < 16; k++) {
            sum += (double) a[i][k] * b[j][k];
            scale += Math.abs((double) a[i][k] * b[j][k]);
          }
          assertThat((double) got[8 * i + j]).isCloseTo(sum, Offset.offset(scale * 0x1p-20));
        }
      }
    }
  }

  @Test
  void collectives_asDocumented() {
    CUdeviceptr words = device.allocate(4L * 32 * 11);
    CUdeviceptr counters = device.device(new float[4]);
    LaunchArguments arguments =
        new LaunchArguments()
            .address(EmulatedDevice.address(words))
            .address(EmulatedDevice.address(counters));
    device.ok(
        JCudaDriver.cuLaunchKernel(
            device.kernel("collectives"),
            3,
            1,
            1,
            64,
            1,
            1,
            0,
            device.stream,
            null,
            arguments.extra()));
    device.ok(JCudaDriver.cuStreamSynchronize(device.stream));
    IntUnaryOperator mine = lane -> 3 * lane + 1;
    int ballot = 0;
    for (int lane = 0; lane < 32; lane += 3) {
      ballot |= 1 << lane;
    }
    int[] got = device.ints(words, 32 * 11);
    for (int lane = 0; lane < 32; lane++) {
      int[] expected = {
        mine.applyAsInt(5),
        mine.applyAsInt(lane / 8 * 8 + 1),
        mine.applyAsInt(lane ^ 3),
        mine.applyAsInt(lane < 28 ? lane + 4 : lane),
        mine.applyAsInt(lane % 16 >= 2 ? lane - 2 : lane),
        ballot,
        0,
        1,
        40,
        1,
        0
      };
      for (int i = 0; i < expected.length; i++) {
        assertThat(got[32 * i + lane]).as("result %d of lane %d", i, lane).isEqualTo(expected[i]);
      }
    }
    assertThat(device.ints(counters, 4))
        .containsExactly(3 * 64, 3 * 63 + 1, -1, Float.floatToRawIntBits(96f));
  }

  /** The kernel, and what its report must say of the access. */
  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "reads_past_end     | read of 4 bytes   | past the end of an allocation of 4000 bytes",
        "writes_past_end    | write of 4 bytes  | past the end of an allocation of 4000 bytes",
        "reads_before_start | read of 4 bytes   | 4 bytes before an allocation of 4000 bytes",
        "foreign_local      | read of 4 bytes   | another thread's local memory",
      })
  void accessOutOfBounds(String kernel, String access, String where) {
    CUdeviceptr x = device.device(new float[1000]);
    CUdeviceptr y = device.device(new float[1000]);
    assertThat(device.run(kernel, 4, x, y, 1000)).isEqualTo(CUresult.CUDA_ERROR_ILLEGAL_ADDRESS);
    assertThat(emulator.report())
        .containsPattern(
            "kernel "
                + kernel
                + ", block \\(\\d, 0, 0\\), thread \\(\\d+, 0, 0\\) \\(faults.cu:\\d+\\): ")
        .contains(access, where, "grid (4, 1, 1), block (256, 1, 1) [seed 1]");
  }

  @Test
  void accessOutOfBounds_byOneByte() {
    // 258 floats and 2 bytes: the last element is there by half.
    CUdeviceptr x = device.allocate(4 * 258 + 2);
    device.ok(JCudaDriver.cuMemsetD8(x, (byte) 0, 4 * 258 + 2));
    CUdeviceptr y = device.device(new float[512]);
    device.ok(device.run("add_scaled", 2, x, y, 258));
    assertThat(device.run("add_scaled", 2, x, y, 259))
        .isEqualTo(CUresult.CUDA_ERROR_ILLEGAL_ADDRESS);
    assertThat(emulator.report())
        .contains(
            "kernel add_scaled, block (1, 0, 0), thread (2, 0, 0)",
            "read of 4 bytes",
            "0 bytes past the end of an allocation of 1034 bytes");
  }

  @Test
  void accessOutOfBounds_ofSharedMemory() {
    CUdeviceptr y = device.device(new float[BLOCK]);
    device.ok(device.run("reads_past_shared", 1, y, y, 0));
    assertThat(device.run("reads_past_shared", 1, y, y, 1))
        .isEqualTo(CUresult.CUDA_ERROR_ILLEGAL_ADDRESS);
    assertThat(emulator.report())
        .contains(
            "kernel reads_past_shared, block (0, 0, 0), thread (255, 0, 0)",
            "read of 4 bytes",
            "0 bytes past the end of the shared memory 'tile' of 1024 bytes");
  }

  @Test
  void accessOutOfBounds_ofDynamicSharedMemory() {
    CUdeviceptr y = device.device(new float[BLOCK]);
    device.ok(device.run("writes_past_dynamic_shared", 1, 1028, y, y, 1));
    assertThat(device.run("writes_past_dynamic_shared", 1, 1024, y, y, 1))
        .isEqualTo(CUresult.CUDA_ERROR_ILLEGAL_ADDRESS);
    assertThat(emulator.report())
        .contains(
            "thread (255, 0, 0)",
            "write of 4 bytes",
            "0 bytes past the end of the shared memory 'dynamic' of 1024 bytes");
  }

  @Test
  void accessOutOfBounds_ofConstants() {
    CUdeviceptr y = device.device(new float[BLOCK]);
    assertThat(device.run("constant_lookup", 1, y, y, 6))
        .isEqualTo(CUresult.CUDA_ERROR_ILLEGAL_ADDRESS);
    assertThat(emulator.report())
        .contains("read of 4 bytes", "past the end of the module's variable 'kTable' of 20 bytes");
  }

  @Test
  void accessOfHostMemory() {
    CUdeviceptr y = device.device(new float[BLOCK]);
    long host = MemorySegment.ofBuffer(view(device.pinned(BLOCK), BLOCK)).address();
    assertThat(device.run("add_scaled", 1, EmulatedDevice.pointer(host), y, BLOCK))
        .isEqualTo(CUresult.CUDA_ERROR_ILLEGAL_ADDRESS);
    assertThat(emulator.report()).contains("kernel add_scaled", "no device memory: the host's");
  }

  @Test
  void accessOfFreedMemory() {
    CUdeviceptr x = device.device(new float[BLOCK]);
    CUdeviceptr y = device.device(new float[BLOCK]);
    device.ok(JCudaDriver.cuMemFree(x));
    assertThat(device.run("add_scaled", 1, x, y, BLOCK))
        .isEqualTo(CUresult.CUDA_ERROR_ILLEGAL_ADDRESS);
    assertThat(emulator.report())
        .contains("kernel add_scaled", "inside a freed allocation of 1024 bytes");
  }

  @Test
  void accessUnaligned() {
    CUdeviceptr x = device.device(new float[BLOCK]);
    CUdeviceptr y = device.device(new float[BLOCK]);
    device.ok(device.run("unaligned_vector", 1, x, y, 4));
    assertThat(device.run("unaligned_vector", 1, x, y, 2))
        .isEqualTo(CUresult.CUDA_ERROR_MISALIGNED_ADDRESS);
    assertThat(emulator.report())
        .contains("kernel unaligned_vector", "read of 16 bytes", "which is no multiple of 16");
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "barrier_in_branch         | __syncthreads in divergent code: reached by 100 of the "
            + "block's 256 threads",
        "two_barriers              | __syncthreads in divergent code:",
        "shuffle_in_branch         | a shuffle in divergent code: reached by lanes 0000007f",
        "shuffle_against_barrier   | while ffffff80 are at __syncthreads",
        "two_collectives           | in divergent code: lanes",
        "shuffle_with_partial_mask | a shuffle by a part of a warp: mask 0000ffff",
        "too_much_shared           | 50176 bytes of static shared memory with",
      })
  void collectiveInDivergentCode(String kernel, String report) {
    CUdeviceptr y = device.device(new float[BLOCK]);
    for (int seed = 1; seed <= 5; seed++) {
      emulator.seed(seed);
      assertThat(device.run(kernel, 1, y, y, BLOCK)).isEqualTo(CUresult.CUDA_ERROR_LAUNCH_FAILED);
      assertThat(emulator.report())
          .containsPattern("kernel " + kernel + ", block \\(0, 0, 0\\), thread \\(\\d+, 0, 0\\)")
          .contains(report, "[seed " + seed + "]");
      device.close();
      reopen();
      y = device.device(new float[BLOCK]);
    }
  }

  private void reopen() {
    try {
      open();
    } catch (UnavailableException e) {
      throw new AssertionError(e);
    }
  }

  @Test
  void unwrittenOutput_isNaN() {
    CUdeviceptr x = device.device(ramp(BLOCK));
    CUdeviceptr y = device.allocate(4L * BLOCK);
    device.ok(device.run("half_written", 1, x, y, BLOCK));
    float[] values = device.floats(y, BLOCK);
    for (int i = 0; i < BLOCK; i++) {
      if (i % 2 == 0) {
        assertThat(values[i]).isEqualTo(i);
      } else {
        assertThat(values[i]).isNaN();
      }
    }
  }

  @Test
  void poison_isNaNInEveryFormat() {
    int word = device.ints(device.allocate(4), 1)[0];
    assertThat(Float.intBitsToFloat(word)).isNaN();
    assertThat(Float.intBitsToFloat(word << 16)).isNaN();
    assertThat(Float.float16ToFloat((short) word)).isNaN();
  }

  @ParameterizedTest
  @CsvSource({"no_barrier", "no_syncwarp"})
  void missingBarrier_showsInSomeOrder(String kernel) {
    CUdeviceptr x = device.device(ramp(BLOCK));
    int wrong = 0;
    for (int seed = 1; seed <= 20; seed++) {
      emulator.seed(seed);
      CUdeviceptr y = device.allocate(4L * BLOCK);
      device.ok(device.run(kernel, 1, x, y, BLOCK));
      for (float value : device.floats(y, BLOCK)) {
        if (Float.isNaN(value)) {
          wrong++;
          break;
        }
      }
    }
    assertThat(wrong).as("runs of 20 that read what was not written yet").isPositive();
  }

  @Test
  void missingWaitForCopy_readsPoison() {
    CUdeviceptr x = device.device(ramp(1024));
    CUdeviceptr y = device.device(new float[1024]);
    device.ok(device.run("no_copy_wait", 1, 4096, x, y, 1024));
    float[] got = device.floats(y, 1024);
    for (float value : got) {
      assertThat(value).isNaN();
    }
  }

  @Test
  void launch_argumentsOfTheWrongSize() {
    LaunchArguments arguments = new LaunchArguments().address(1).number(3);
    assertThat(device.queue(device.stream, "add_scaled", 1, 0, arguments))
        .isEqualTo(CUresult.CUDA_ERROR_INVALID_VALUE);
    assertThat(emulator.report())
        .contains("cuLaunchKernel of add_scaled: 16 bytes of arguments, expected 24");
  }

  @Test
  void launch_beyondTheLimits() {
    CUdeviceptr x = device.device(new float[BLOCK]);
    LaunchArguments arguments = EmulatedDevice.vector(x, x, 1, 1f);
    assertThat(
            JCudaDriver.cuLaunchKernel(
                device.kernel("add_scaled"),
                1,
                1,
                1,
                512,
                1,
                1,
                0,
                device.stream,
                null,
                arguments.extra()))
        .isEqualTo(CUresult.CUDA_ERROR_INVALID_VALUE);
    assertThat(emulator.report()).contains("512 threads a block; its KERNEL says at most 256");
    assertThat(device.queue(device.stream, "add_scaled", 0, 0, arguments))
        .isEqualTo(CUresult.CUDA_ERROR_INVALID_VALUE);
    assertThat(emulator.report()).contains("grid (0, 1, 1)");
    assertThat(device.queue(device.stream, "add_scaled", 1, 100_000, arguments))
        .isEqualTo(CUresult.CUDA_ERROR_INVALID_VALUE);
    assertThat(emulator.report())
        .contains("100000 bytes of dynamic shared memory; cuFuncSetAttribute allowed 49152");
    device.ok(
        JCudaDriver.cuFuncSetAttribute(
            device.kernel("add_scaled"),
            CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
            100_000));
    device.ok(device.queue(device.stream, "add_scaled", 1, 100_000, arguments));
    device.ok(JCudaDriver.cuStreamSynchronize(device.stream));
  }

  @Test
  void image_ofSomethingElse() {
    byte[] fatbin = new byte[64];
    fatbin[0] = 0x50;
    fatbin[1] = (byte) 0xed;
    fatbin[2] = 0x55;
    fatbin[3] = (byte) 0xba;
    var module = new CUmodule();
    assertThat(JCudaDriver.cuModuleLoadData(module, fatbin))
        .isEqualTo(CUresult.CUDA_ERROR_NO_BINARY_FOR_GPU);
    assertThat(JCudaDriver.cuModuleLoadData(module, new byte[64]))
        .isEqualTo(CUresult.CUDA_ERROR_INVALID_IMAGE);
    assertThat(JCudaDriver.cuModuleGetFunction(new CUfunction(), device.module, "no_such_kernel"))
        .isEqualTo(CUresult.CUDA_ERROR_NOT_FOUND);
  }

  @Test
  void productKernels_build() {
    byte[] image = emulator.image();
    assertThat(Arrays.copyOf(image, 4)).containsExactly(0x7f, 'E', 'L', 'F');
    device.ok(JCudaDriver.cuModuleLoadData(new CUmodule(), image));
  }
}
