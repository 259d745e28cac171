package dev.wardrobe.compute.cuda;

import static dev.wardrobe.compute.cuda.EmulatedDevice.BLOCK;
import static dev.wardrobe.compute.cuda.EmulatedDevice.ramp;
import static dev.wardrobe.compute.cuda.EmulatedDevice.vector;
import static dev.wardrobe.compute.cuda.EmulatedDevice.view;
import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.compute.UnavailableException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import jcuda.Pointer;
import jcuda.driver.CUcontext;
import jcuda.driver.CUdeviceptr;
import jcuda.driver.CUevent;
import jcuda.driver.CUgraph;
import jcuda.driver.CUgraphExec;
import jcuda.driver.CUmemAllocationProp;
import jcuda.driver.CUmemGenericAllocationHandle;
import jcuda.driver.CUmemLocation;
import jcuda.driver.CUresult;
import jcuda.driver.CUstream;
import jcuda.driver.CUstreamCaptureMode;
import jcuda.driver.CUstream_flags;
import jcuda.driver.JCudaDriver;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What the emulator's driver must see of the host's mistakes, and what it must let pass. */
final class EmulatedDriverTest {
  private static final int RUNS = 30;
  private static final long PAGE = 2 << 20;

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

  // Streams and events

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void copyOnAnotherStream_needsItsEvent(boolean waits) {
    int wrong = 0;
    CUstream upload = device.stream();
    Pointer host = device.pinned(BLOCK);
    for (int i = 0; i < BLOCK; i++) {
      view(host, BLOCK).put(i, 1f);
    }
    CUdeviceptr x = device.allocate(4 * BLOCK);
    CUdeviceptr y = device.allocate(4 * BLOCK);
    CUevent copied = device.event();
    for (int seed = 1; seed <= RUNS; seed++) {
      emulator.seed(seed);
      device.ok(JCudaDriver.cuMemsetD8Async(x, (byte) 0, 4 * BLOCK, upload));
      device.ok(JCudaDriver.cuMemsetD8Async(y, (byte) 0, 4 * BLOCK, device.stream));
      device.ok(JCudaDriver.cuCtxSynchronize());
      device.ok(JCudaDriver.cuMemcpyHtoDAsync(x, host, 4 * BLOCK, upload));
      device.ok(JCudaDriver.cuEventRecord(copied, upload));
      if (waits) {
        device.ok(JCudaDriver.cuStreamWaitEvent(device.stream, copied, 0));
      }
      device.ok(device.queue(device.stream, "add_scaled", 1, 0, vector(x, y, BLOCK, 2f)));
      device.ok(JCudaDriver.cuStreamSynchronize(device.stream));
      if (device.floats(y, BLOCK)[5] != 2f) {
        wrong++;
      }
      device.ok(JCudaDriver.cuCtxSynchronize());
    }
    if (waits) {
      assertThat(wrong).isZero();
    } else {
      assertThat(wrong).as("wrong of %d runs", RUNS).isBetween(1, RUNS - 1);
    }
  }

  @Test
  void copyToHost_isPoisonUntilItIsWaitedFor() {
    CUdeviceptr x = device.device(ramp(16));
    Pointer host = device.pinned(16);
    view(host, 16).put(3, 42f);
    device.ok(JCudaDriver.cuMemcpyDtoHAsync(host, x, 64, device.stream));
    assertThat(view(host, 16).get(3)).isNaN();
    device.ok(JCudaDriver.cuStreamSynchronize(device.stream));
    assertThat(view(host, 16).get(3)).isEqualTo(3f);
  }

  @Test
  void copyOfUnpinnedMemory_isRefused() {
    CUdeviceptr x = device.device(ramp(16));
    var buffer = ByteBuffer.allocateDirect(64);
    assertThat(JCudaDriver.cuMemcpyHtoDAsync(x, Pointer.to(buffer), 64, device.stream))
        .isEqualTo(CUresult.CUDA_ERROR_INVALID_VALUE);
    assertThat(emulator.report()).contains("async copy of 64 bytes", "not pinned");
  }

  @Test
  void copyFromFreedPinnedMemory_isAnErrorInSomeOrder() {
    int caught = 0;
    for (int seed = 1; seed <= RUNS; seed++) {
      emulator.seed(seed);
      CUdeviceptr x = device.allocate(64);
      Pointer host = device.pinned(16);
      device.ok(JCudaDriver.cuMemcpyHtoDAsync(x, host, 64, device.stream));
      device.ok(JCudaDriver.cuMemFreeHost(host));
      int code = JCudaDriver.cuStreamSynchronize(device.stream);
      if (code != CUresult.CUDA_SUCCESS) {
        assertThat(code).isEqualTo(CUresult.CUDA_ERROR_ILLEGAL_ADDRESS);
        assertThat(emulator.report())
            .contains("the host's pinned memory", "was freed before the copy ran");
        caught++;
        reopen();
      }
    }
    assertThat(caught).as("of %d runs", RUNS).isPositive();
  }

  @Test
  void memoryFreedUnderAKernel_isAnErrorInSomeOrder() {
    int caught = 0;
    for (int seed = 1; seed <= RUNS; seed++) {
      emulator.seed(seed);
      CUdeviceptr x = device.device(ramp(BLOCK));
      CUdeviceptr y = device.device(ramp(BLOCK));
      device.ok(device.queue(device.stream, "add_scaled", 1, 0, vector(x, y, BLOCK, 1f)));
      device.ok(JCudaDriver.cuMemFree(x));
      int code = JCudaDriver.cuStreamSynchronize(device.stream);
      if (code != CUresult.CUDA_SUCCESS) {
        assertThat(code).isEqualTo(CUresult.CUDA_ERROR_ILLEGAL_ADDRESS);
        assertThat(emulator.report()).contains("inside a freed allocation of 1024 bytes");
        caught++;
        reopen();
      }
    }
    assertThat(caught).as("of %d runs", RUNS).isBetween(1, RUNS - 1);
  }

  @ParameterizedTest
  @ValueSource(ints = {CUstream_flags.CU_STREAM_DEFAULT, CUstream_flags.CU_STREAM_NON_BLOCKING})
  void synchronousCopy_waitsForBlockingStreamsAlone(int flags) {
    CUstream stream = new CUstream();
    device.ok(JCudaDriver.cuStreamCreate(stream, flags));
    int stale = 0;
    for (int seed = 1; seed <= RUNS; seed++) {
      emulator.seed(seed);
      CUdeviceptr x = device.device(0f);
      device.ok(JCudaDriver.cuMemsetD32Async(x, Float.floatToRawIntBits(1f), 1, stream));
      if (device.floats(x, 1)[0] == 0f) {
        stale++;
      }
      device.ok(JCudaDriver.cuCtxSynchronize());
      assertThat(device.floats(x, 1)).containsExactly(1f);
    }
    if (flags == CUstream_flags.CU_STREAM_DEFAULT) {
      assertThat(stale).isZero();
    } else {
      assertThat(stale).as("of %d runs", RUNS).isBetween(1, RUNS - 1);
    }
  }

  @Test
  void copyBeyondAnAllocation_isRefused() {
    CUdeviceptr x = device.device(ramp(16));
    assertThat(JCudaDriver.cuMemcpyHtoD(x, Pointer.to(new float[17]), 68))
        .isEqualTo(CUresult.CUDA_ERROR_INVALID_VALUE);
    assertThat(emulator.report())
        .contains("cuMemcpyHtoD: a write of 68 bytes", "0 bytes past the end of an allocation");
  }

  @Test
  void event_queriedUntilItIsThere() {
    CUdeviceptr x = device.device(ramp(16));
    CUevent event = device.event();
    device.ok(JCudaDriver.cuMemsetD8Async(x, (byte) 0, 64, device.stream));
    device.ok(JCudaDriver.cuEventRecord(event, device.stream));
    int queries = 1;
    while (JCudaDriver.cuEventQuery(event) == CUresult.CUDA_ERROR_NOT_READY) {
      queries++;
      assertThat(queries).isLessThan(1000);
    }
    device.ok(JCudaDriver.cuEventQuery(event));
    assertThat(device.floats(x, 1)).containsExactly(0f);
  }

  // Handles

  @Test
  void handlesAfterTheirEnd() {
    CUdeviceptr x = device.device(ramp(16));
    device.ok(JCudaDriver.cuMemFree(x));
    assertThat(JCudaDriver.cuMemFree(x)).isEqualTo(CUresult.CUDA_ERROR_INVALID_VALUE);
    assertThat(emulator.report())
        .contains("cuMemFree", "no allocation, or no longer", "a freed allocation of 64 bytes");
    CUstream stream = device.stream();
    device.ok(JCudaDriver.cuStreamDestroy(stream));
    assertThat(JCudaDriver.cuStreamSynchronize(stream))
        .isEqualTo(CUresult.CUDA_ERROR_INVALID_HANDLE);
    assertThat(emulator.report()).contains("there is no stream", "or no longer");
    CUevent event = device.event();
    device.ok(JCudaDriver.cuEventDestroy(event));
    assertThat(JCudaDriver.cuEventRecord(event, device.stream))
        .isEqualTo(CUresult.CUDA_ERROR_INVALID_HANDLE);
    assertThat(emulator.report()).contains("there is no event");
  }

  @Test
  void threadWithoutContext() throws InterruptedException {
    int[] code = {0};
    Thread thread = new Thread(() -> code[0] = JCudaDriver.cuMemAlloc(new CUdeviceptr(), 64));
    thread.start();
    thread.join();
    assertThat(code[0]).isEqualTo(CUresult.CUDA_ERROR_INVALID_CONTEXT);
    assertThat(emulator.report()).contains("the calling thread has no current context");
  }

  // Memory

  @Test
  void budget_endsInTheMiddle() {
    emulator.budget(1 << 20);
    List<CUdeviceptr> taken = new ArrayList<>();
    int code = CUresult.CUDA_SUCCESS;
    while (code == CUresult.CUDA_SUCCESS) {
      CUdeviceptr pointer = new CUdeviceptr();
      code = JCudaDriver.cuMemAlloc(pointer, 300_000);
      if (code == CUresult.CUDA_SUCCESS) {
        taken.add(pointer);
      }
    }
    assertThat(code).isEqualTo(CUresult.CUDA_ERROR_OUT_OF_MEMORY);
    assertThat(taken).hasSize(3);
    assertThat(emulator.report())
        .contains("cuMemAlloc: 300000 bytes asked for, 148576 of 1048576 left");
    long[] free = {0};
    long[] total = {0};
    device.ok(JCudaDriver.cuMemGetInfo(free, total));
    assertThat(free[0]).isEqualTo(148_576);
    for (CUdeviceptr pointer : taken) {
      device.ok(JCudaDriver.cuMemFree(pointer));
    }
    assertThat(emulator.liveBytes()).isZero();
    device.ok(JCudaDriver.cuMemAlloc(new CUdeviceptr(), 1 << 20));
  }

  @Test
  void reset_saysWhatWasLive() {
    device.allocate(100);
    device.allocate(28);
    assertThat(emulator.reset()).isEqualTo(128);
    assertThat(emulator.report())
        .contains("128 bytes of device memory live: 100 bytes at", "28 bytes at");
    assertThat(emulator.liveBytes()).isZero();
    assertThat(emulator.reset()).isZero();
    assertThat(emulator.report()).isEmpty();
  }

  @Test
  void callFails_whenTheTestWantsIt() {
    emulator.fail("cuMemAlloc", 2, CUresult.CUDA_ERROR_OUT_OF_MEMORY);
    device.allocate(64);
    assertThat(JCudaDriver.cuMemAlloc(new CUdeviceptr(), 64))
        .isEqualTo(CUresult.CUDA_ERROR_OUT_OF_MEMORY);
    device.allocate(64);
    assertThat(emulator.count("cuMemAlloc")).isEqualTo(3);
  }

  @Test
  void stickyError_lastsUntilTheContextEnds() {
    emulator.fail("cuStreamSynchronize", 1, CUresult.CUDA_ERROR_ILLEGAL_ADDRESS);
    CUdeviceptr x = device.device(ramp(16));
    assertThat(JCudaDriver.cuStreamSynchronize(device.stream))
        .isEqualTo(CUresult.CUDA_ERROR_ILLEGAL_ADDRESS);
    assertThat(JCudaDriver.cuMemFree(x)).isEqualTo(CUresult.CUDA_ERROR_ILLEGAL_ADDRESS);
    assertThat(JCudaDriver.cuMemAlloc(new CUdeviceptr(), 64))
        .isEqualTo(CUresult.CUDA_ERROR_ILLEGAL_ADDRESS);
    device.ok(JCudaDriver.cuDevicePrimaryCtxRelease(device.device));
    assertThat(JCudaDriver.cuMemAlloc(new CUdeviceptr(), 64))
        .isEqualTo(CUresult.CUDA_ERROR_CONTEXT_IS_DESTROYED);
    assertThat(emulator.reset()).isZero();
    reopen();
    device.allocate(64);
  }

  @Test
  void virtualMemory_onlyWhereItIsMapped() {
    CUmemAllocationProp properties = new CUmemAllocationProp();
    properties.type = 1;
    properties.location = new CUmemLocation(1, 0);
    long[] granularity = {0};
    device.ok(JCudaDriver.cuMemGetAllocationGranularity(granularity, properties, 0));
    assertThat(granularity[0]).isEqualTo(PAGE);
    CUdeviceptr range = new CUdeviceptr();
    device.ok(JCudaDriver.cuMemAddressReserve(range, 4 * PAGE, 0, new CUdeviceptr(), 0));
    assertThat(emulator.liveBytes()).isZero();
    CUmemGenericAllocationHandle page = new CUmemGenericAllocationHandle();
    assertThat(JCudaDriver.cuMemCreate(page, PAGE + 1, properties, 0))
        .isEqualTo(CUresult.CUDA_ERROR_INVALID_VALUE);
    device.ok(JCudaDriver.cuMemCreate(page, PAGE, properties, 0));
    assertThat(emulator.liveBytes()).isEqualTo(PAGE);
    device.ok(JCudaDriver.cuMemMap(range, PAGE, 0, page, 0));
    device.ok(allowAccess(range, PAGE));
    assertThat(device.floats(range, 1)[0]).isNaN();
    device.ok(JCudaDriver.cuMemcpyHtoD(range, Pointer.to(ramp(BLOCK)), 4 * BLOCK));

    // The same memory elsewhere has the same content.
    device.ok(JCudaDriver.cuMemUnmap(range, PAGE));
    CUdeviceptr third = range.withByteOffset(2 * PAGE);
    device.ok(JCudaDriver.cuMemMap(third, PAGE, 0, page, 0));
    assertThat(JCudaDriver.cuMemcpyDtoH(Pointer.to(new float[1]), third, 4))
        .as("mapped, without access")
        .isEqualTo(CUresult.CUDA_ERROR_INVALID_VALUE);
    device.ok(allowAccess(third, PAGE));
    CUdeviceptr y = device.device(new float[BLOCK]);
    device.ok(device.run("add_scaled", 1, third, y, BLOCK));
    assertThat(device.floats(y, BLOCK)).isEqualTo(ramp(BLOCK));

    // A kernel that goes where nothing is mapped any more.
    assertThat(device.run("add_scaled", 1, range, y, BLOCK))
        .isEqualTo(CUresult.CUDA_ERROR_ILLEGAL_ADDRESS);
    assertThat(emulator.report())
        .contains("kernel add_scaled", "into a reservation of 8388608 bytes", "nothing is mapped");
  }

  @Test
  void virtualMemory_countsUntilNobodyHasIt() {
    CUmemAllocationProp properties = new CUmemAllocationProp();
    properties.type = 1;
    properties.location = new CUmemLocation(1, 0);
    emulator.budget(3 * PAGE);
    CUdeviceptr range = new CUdeviceptr();
    device.ok(JCudaDriver.cuMemAddressReserve(range, 8 * PAGE, 0, new CUdeviceptr(), 0));
    CUmemGenericAllocationHandle first = new CUmemGenericAllocationHandle();
    CUmemGenericAllocationHandle second = new CUmemGenericAllocationHandle();
    device.ok(JCudaDriver.cuMemCreate(first, 2 * PAGE, properties, 0));
    assertThat(JCudaDriver.cuMemCreate(second, 2 * PAGE, properties, 0))
        .isEqualTo(CUresult.CUDA_ERROR_OUT_OF_MEMORY);
    device.ok(JCudaDriver.cuMemMap(range, 2 * PAGE, 0, first, 0));
    assertThat(JCudaDriver.cuMemMap(range.withByteOffset(PAGE), 2 * PAGE, 0, first, 0))
        .isEqualTo(CUresult.CUDA_ERROR_INVALID_VALUE);
    assertThat(JCudaDriver.cuMemAddressFree(range, 8 * PAGE))
        .isEqualTo(CUresult.CUDA_ERROR_INVALID_VALUE);
    device.ok(JCudaDriver.cuMemRelease(first));
    assertThat(emulator.liveBytes()).isEqualTo(2 * PAGE);
    device.ok(JCudaDriver.cuMemUnmap(range, 2 * PAGE));
    assertThat(emulator.liveBytes()).isZero();
    device.ok(JCudaDriver.cuMemAddressFree(range, 8 * PAGE));
  }

  // Graphs

  @Test
  void graph_replaysOverOtherContents() {
    CUdeviceptr x = device.device(ramp(BLOCK));
    CUdeviceptr y = device.device(new float[BLOCK]);
    Pointer host = device.pinned(BLOCK);
    begin(device.stream);
    device.ok(device.queue(device.stream, "add_scaled", 1, 0, vector(x, y, BLOCK, 1f)));
    device.ok(JCudaDriver.cuMemcpyDtoHAsync(host, y, 4 * BLOCK, device.stream));
    CUgraphExec graph = instantiate(device.stream);
    assertThat(device.floats(y, 2)).as("nothing ran yet").containsExactly(0f, 0f);
    for (int launch = 1; launch <= 3; launch++) {
      device.ok(JCudaDriver.cuGraphLaunch(graph, device.stream));
      assertThat(view(host, BLOCK).get(2)).isNaN();
      device.ok(JCudaDriver.cuStreamSynchronize(device.stream));
      assertThat(view(host, BLOCK).get(2)).isEqualTo(2f * launch);
    }
    assertThat(emulator.count("graphs")).isEqualTo(3);
    assertThat(emulator.count("kernel add_scaled")).isEqualTo(3);
    device.ok(JCudaDriver.cuGraphExecDestroy(graph));
    assertThat(JCudaDriver.cuGraphLaunch(graph, device.stream))
        .isEqualTo(CUresult.CUDA_ERROR_INVALID_HANDLE);
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void graph_ofTwoStreams_keepsOnlyTheOrderOfEvents(boolean waits) {
    CUdeviceptr x = device.device(new float[BLOCK]);
    CUdeviceptr y = device.device(new float[BLOCK]);
    CUstream side = device.stream();
    CUevent forked = device.event();
    CUevent filled = device.event();
    begin(device.stream);
    device.ok(JCudaDriver.cuEventRecord(forked, device.stream));
    device.ok(JCudaDriver.cuStreamWaitEvent(side, forked, 0));
    device.ok(JCudaDriver.cuMemsetD32Async(x, Float.floatToRawIntBits(3f), BLOCK, side));
    device.ok(JCudaDriver.cuEventRecord(filled, side));
    if (waits) {
      device.ok(JCudaDriver.cuStreamWaitEvent(device.stream, filled, 0));
    }
    device.ok(device.queue(device.stream, "add_scaled", 1, 0, vector(x, y, BLOCK, 1f)));
    device.ok(JCudaDriver.cuStreamWaitEvent(device.stream, filled, 0));
    CUgraphExec graph = instantiate(device.stream);
    int wrong = 0;
    for (int seed = 1; seed <= RUNS; seed++) {
      emulator.seed(seed);
      device.ok(JCudaDriver.cuMemsetD8(x, (byte) 0, 4 * BLOCK));
      device.ok(JCudaDriver.cuMemsetD8(y, (byte) 0, 4 * BLOCK));
      device.ok(JCudaDriver.cuCtxSynchronize());
      device.ok(JCudaDriver.cuGraphLaunch(graph, device.stream));
      device.ok(JCudaDriver.cuStreamSynchronize(device.stream));
      if (device.floats(y, 1)[0] != 3f) {
        wrong++;
      }
    }
    if (waits) {
      assertThat(wrong).isZero();
    } else {
      assertThat(wrong).as("wrong of %d runs", RUNS).isBetween(1, RUNS - 1);
    }
  }

  @Test
  void capture_refusesToWait() {
    begin(device.stream);
    assertThat(JCudaDriver.cuStreamSynchronize(device.stream))
        .isEqualTo(CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    assertThat(emulator.report()).contains("cuStreamSynchronize: the stream is capturing");
    CUdeviceptr pointer = new CUdeviceptr();
    device.ok(JCudaDriver.cuMemAlloc(pointer, 64)); // that capture is lost already
    assertThat(device.queue(device.stream, "add_scaled", 1, 0, vector(pointer, pointer, 1, 1f)))
        .isEqualTo(CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    assertThat(JCudaDriver.cuStreamEndCapture(device.stream, new CUgraph()))
        .isEqualTo(CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    device.ok(JCudaDriver.cuStreamSynchronize(device.stream));
  }

  @Test
  void capture_refusesToAllocate() {
    begin(device.stream);
    assertThat(JCudaDriver.cuMemAlloc(new CUdeviceptr(), 64))
        .isEqualTo(CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    assertThat(emulator.report()).contains("cuMemAlloc: not allowed while capturing");
    assertThat(JCudaDriver.cuStreamEndCapture(device.stream, new CUgraph()))
        .isEqualTo(CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  }

  @Test
  void capture_letsOtherThreadsAllocate() throws InterruptedException {
    CUdeviceptr x = device.device(ramp(BLOCK));
    device.ok(
        JCudaDriver.cuStreamBeginCapture(
            device.stream, CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    device.ok(device.queue(device.stream, "add_scaled", 1, 0, vector(x, x, BLOCK, 1f)));
    var context = new CUcontext();
    device.ok(JCudaDriver.cuCtxGetCurrent(context));
    int[] code = {-1};
    Thread thread =
        new Thread(
            () -> {
              JCudaDriver.cuCtxSetCurrent(context);
              code[0] = JCudaDriver.cuMemAlloc(new CUdeviceptr(), 64);
            });
    thread.start();
    thread.join();
    assertThat(code[0]).isZero();
    instantiate(device.stream);
  }

  @Test
  void capture_refusesUncapturedEvents() {
    CUevent event = device.event();
    device.ok(JCudaDriver.cuEventRecord(event, device.stream()));
    begin(device.stream);
    assertThat(JCudaDriver.cuStreamWaitEvent(device.stream, event, 0))
        .isEqualTo(CUresult.CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    assertThat(JCudaDriver.cuStreamEndCapture(device.stream, new CUgraph()))
        .isEqualTo(CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  }

  @Test
  void capture_refusesToEndWithOpenWork() {
    CUdeviceptr x = device.device(ramp(BLOCK));
    CUstream side = device.stream();
    CUevent forked = device.event();
    begin(device.stream);
    device.ok(JCudaDriver.cuEventRecord(forked, device.stream));
    device.ok(JCudaDriver.cuStreamWaitEvent(side, forked, 0));
    device.ok(device.queue(side, "add_scaled", 1, 0, vector(x, x, BLOCK, 1f)));
    assertThat(JCudaDriver.cuStreamEndCapture(device.stream, new CUgraph()))
        .isEqualTo(CUresult.CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
    assertThat(emulator.report()).contains("another stream has work");
  }

  /**
   * {@code cuMemSetAccess} to read and write, past JCuda, whose own binding of it passes a
   * description that is filled in wrongly.
   */
  @SuppressWarnings("restricted")
  private static int allowAccess(CUdeviceptr range, long bytes) {
    try (Arena arena = Arena.ofConfined()) {
      MethodHandle call =
          Linker.nativeLinker()
              .downcallHandle(
                  SymbolLookup.libraryLookup("libcuda.so.1", arena).findOrThrow("cuMemSetAccess"),
                  FunctionDescriptor.of(JAVA_INT, JAVA_LONG, JAVA_LONG, ADDRESS, JAVA_LONG));
      MemorySegment description = arena.allocateFrom(JAVA_INT, 1, 0, 3);
      return (int) call.invokeExact(EmulatedDevice.address(range), bytes, description, 1L);
    } catch (Throwable e) {
      throw new AssertionError(e);
    }
  }

  private void begin(CUstream stream) {
    device.ok(
        JCudaDriver.cuStreamBeginCapture(
            stream, CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL));
  }

  private CUgraphExec instantiate(CUstream stream) {
    CUgraph graph = new CUgraph();
    device.ok(JCudaDriver.cuStreamEndCapture(stream, graph));
    CUgraphExec executable = new CUgraphExec();
    device.ok(JCudaDriver.cuGraphInstantiate(executable, graph, 0));
    device.ok(JCudaDriver.cuGraphDestroy(graph));
    return executable;
  }

  private void reopen() {
    try {
      open();
    } catch (UnavailableException e) {
      throw new AssertionError(e);
    }
  }
}
