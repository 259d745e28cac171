package dev.wardrobe.compute.cuda;

import dev.wardrobe.compute.DeviceLostException;
import dev.wardrobe.compute.OutOfMemoryException;
import dev.wardrobe.compute.UnavailableException;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import jcuda.Pointer;
import jcuda.driver.CUcontext;
import jcuda.driver.CUdevice;
import jcuda.driver.CUdevice_attribute;
import jcuda.driver.CUdeviceptr;
import jcuda.driver.CUevent;
import jcuda.driver.CUevent_flags;
import jcuda.driver.CUfunction;
import jcuda.driver.CUfunction_attribute;
import jcuda.driver.CUmodule;
import jcuda.driver.CUresult;
import jcuda.driver.CUstream;
import jcuda.driver.CUstream_flags;
import jcuda.driver.JCudaDriver;
import org.jspecify.annotations.Nullable;

/**
 * One CUDA device: its primary context, our kernels, a stream that computes and one that uploads,
 * and an account of the memory taken. Any thread may take and free memory; one thread computes.
 */
final class Gpu implements AutoCloseable {
  /** Bytes of a piece of an upload. */
  private static final long STAGE = 4 << 20;

  /** Copies that are timed. */
  private static final int COPIES = 9;

  /** The oldest architecture that has bf16 tensor cores and asynchronous copies: Ampere. */
  private static final int OLDEST = 80;

  private static final Pattern DRIVER =
      Pattern.compile("NVRM version:.*?\\s(\\d+\\.\\d+(?:\\.\\d+)?)\\s");

  private final CUdevice device;
  private final CUcontext context;
  private final String name;
  private final long memory;
  private final int driver;
  private final int multiprocessors;
  private final int architecture;
  private final int sharedLimit;
  private final List<CUmodule> modules = new ArrayList<>();
  private final Map<String, CUfunction> kernels = new ConcurrentHashMap<>();
  private final Stream compute;
  private final Stream upload;
  private final Pinned staging;
  private final CUevent[] staged = {new CUevent(), new CUevent()};
  private final Object order = new Object();
  private final Pages pages;
  private final AtomicLong live = new AtomicLong();
  private final AtomicLong workspace = new AtomicLong();

  /** The thread that has the context, of those that had it last. */
  private final ThreadLocal<Boolean> current = ThreadLocal.withInitial(() -> false);

  private final LaunchArguments arguments = new LaunchArguments();
  private volatile @Nullable CudaException broken;
  private boolean closed;

  /** Bytes of device memory, until it is closed. */
  final class Memory implements AutoCloseable {
    private final String what;
    private final long bytes;
    private final boolean counts;
    private final Runnable free;
    private long address;

    private Memory(String what, long address, long bytes, boolean counts, Runnable free) {
      this.what = what;
      this.address = address;
      this.bytes = bytes;
      this.counts = counts;
      this.free = free;
      (counts ? live : workspace).addAndGet(bytes);
    }

    /** Where it begins; aligned to 256 bytes. */
    long address() {
      if (address == 0) {
        throw new IllegalStateException(what + " is closed");
      }
      return address;
    }

    long bytes() {
      return bytes;
    }

    @Override
    public synchronized void close() {
      if (address != 0) {
        address = 0;
        (counts ? live : workspace).addAndGet(-bytes);
        if (usable()) {
          enter();
          free.run();
        }
      }
    }
  }

  private Gpu(CUdevice device, String name, int driver) {
    this.device = device;
    this.name = name;
    this.driver = driver;
    context = new CUcontext();
    check("cuDevicePrimaryCtxRetain", JCudaDriver.cuDevicePrimaryCtxRetain(context, device));
    enter();
    long[] total = {0};
    check("cuDeviceTotalMem", JCudaDriver.cuDeviceTotalMem(total, device));
    memory = total[0];
    multiprocessors = attribute(CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    architecture =
        10 * attribute(CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
            + attribute(CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    sharedLimit =
        attribute(CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
    compute = stream();
    upload = stream();
    staging = new Pinned(2 * STAGE);
    pages =
        new Pages(
            this,
            attribute(CUdevice_attribute.CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED)
                != 0);
    for (CUevent event : staged) {
      check(
          "cuEventCreate", JCudaDriver.cuEventCreate(event, CUevent_flags.CU_EVENT_DISABLE_TIMING));
      check("cuEventRecord", JCudaDriver.cuEventRecord(event, upload));
    }
  }

  /**
   * Opens the first device that CUDA shows.
   *
   * @throws UnavailableException if there is none, or none that is new enough; says why
   */
  static Gpu open() throws UnavailableException {
    Natives.load();
    int code = JCudaDriver.cuInit(0);
    if (code != CUresult.CUDA_SUCCESS) {
      throw new UnavailableException(
          String.valueOf(new CudaException("cuInit", code).getMessage()));
    }
    int[] driver = {0};
    int[] count = {0};
    require("cuDriverGetVersion", JCudaDriver.cuDriverGetVersion(driver));
    require("cuDeviceGetCount", JCudaDriver.cuDeviceGetCount(count));
    if (count[0] == 0) {
      throw new UnavailableException("the CUDA driver shows no device");
    }
    CUdevice device = new CUdevice();
    require("cuDeviceGet", JCudaDriver.cuDeviceGet(device, 0));
    byte[] text = new byte[256];
    require("cuDeviceGetName", JCudaDriver.cuDeviceGetName(text, text.length, device));
    String name = new String(text, StandardCharsets.UTF_8);
    Gpu gpu;
    try {
      gpu = new Gpu(device, name.substring(0, name.indexOf(0)), driver[0]);
    } catch (RuntimeException e) {
      // With the context goes what was made in it.
      JCudaDriver.cuDevicePrimaryCtxRelease(device);
      throw e;
    }
    if (gpu.architecture < OLDEST) {
      gpu.close();
      throw new UnavailableException(
          "%s has compute capability %d.%d; expected at least %d.%d"
              .formatted(
                  gpu.name,
                  gpu.architecture / 10,
                  gpu.architecture % 10,
                  OLDEST / 10,
                  OLDEST % 10));
    }
    return gpu;
  }

  /** As one line: the device's name, its memory, the driver. */
  String describe() {
    return "%s, %.0f GiB, driver %s".formatted(name, memory / 0x1p30, driverVersion());
  }

  private String driverVersion() {
    try {
      Matcher matcher = DRIVER.matcher(Files.readString(Path.of("/proc/driver/nvidia/version")));
      if (matcher.find()) {
        return matcher.group(1);
      }
    } catch (IOException e) {
      // The driver's version is not there to be read; CUDA's says as much about what works.
    }
    return "for CUDA %d.%d".formatted(driver / 1000, driver % 1000 / 10);
  }

  int multiprocessors() {
    return multiprocessors;
  }

  /** 90 is compute capability 9.0. */
  int architecture() {
    return architecture;
  }

  /** Most bytes of shared memory that a block may have. */
  int sharedLimit() {
    return sharedLimit;
  }

  /** Loads kernels from an image: a fatbin, a cubin, or PTX. */
  void load(byte[] image) {
    enter();
    CUmodule module = new CUmodule();
    check("cuModuleLoadData", JCudaDriver.cuModuleLoadData(module, image));
    modules.add(module);
  }

  private CUfunction kernel(String kernel) {
    CUfunction known = kernels.get(kernel);
    if (known != null) {
      return known;
    }
    for (CUmodule module : modules) {
      CUfunction function = new CUfunction();
      int code = JCudaDriver.cuModuleGetFunction(function, module, kernel);
      if (code == CUresult.CUDA_SUCCESS) {
        check(
            "cuFuncSetAttribute",
            JCudaDriver.cuFuncSetAttribute(
                function,
                CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                dynamicShared(function)));
        kernels.put(kernel, function);
        return function;
      }
      if (code != CUresult.CUDA_ERROR_NOT_FOUND) {
        throw new CudaException("cuModuleGetFunction of " + kernel, code);
      }
    }
    throw new IllegalStateException("this build has no kernel " + kernel);
  }

  /** What the limit leaves beside the shared memory that a kernel declares. */
  private int dynamicShared(CUfunction function) {
    int[] fixed = {0};
    check(
        "cuFuncGetAttribute",
        JCudaDriver.cuFuncGetAttribute(
            fixed, CUfunction_attribute.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function));
    return sharedLimit - fixed[0];
  }

  /** The arguments of the next launch, empty; for the thread that computes. */
  LaunchArguments arguments() {
    return arguments.clear();
  }

  /** Launches a kernel with {@link #arguments} on the computing stream. */
  void launch(String kernel, int gridX, int gridY, int gridZ, int threads, int shared) {
    enter();
    check(
        "cuLaunchKernel of " + kernel,
        JCudaDriver.cuLaunchKernel(
            kernel(kernel),
            gridX,
            gridY,
            gridZ,
            threads,
            1,
            1,
            shared,
            compute,
            null,
            arguments.extra()));
  }

  void launch(String kernel, int blocks, int threads) {
    launch(kernel, blocks, 1, 1, threads, 0);
  }

  /** The stream that operations are queued on. */
  CUstream compute() {
    return compute;
  }

  /** The computing stream's handle, for calls that do not go through JCuda. */
  long computeHandle() {
    return compute.handle();
  }

  /** Waits for everything queued on the computing stream. */
  void await() {
    enter();
    synchronized (order) {
      check("cuStreamSynchronize", JCudaDriver.cuStreamSynchronize(compute));
    }
  }

  /**
   * What is held while launches are captured rather than queued: a thread that waited for the
   * stream meanwhile would spoil the graph.
   */
  Object order() {
    return order;
  }

  /**
   * Takes memory; it may hold anything.
   *
   * @throws OutOfMemoryException if the device has not that much
   */
  Memory allocate(String what, long bytes) {
    return allocate(what, bytes, true);
  }

  /** The same for what operations work in, which {@link #live} does not count. */
  Memory workspace(String what, long bytes) {
    return allocate(what, bytes, false);
  }

  private Memory allocate(String what, long bytes, boolean counts) {
    enter();
    CUdeviceptr pointer = new CUdeviceptr();
    int code = JCudaDriver.cuMemAlloc(pointer, Math.max(1, bytes));
    if (code == CUresult.CUDA_ERROR_OUT_OF_MEMORY && pages.trim() > 0) {
      code = JCudaDriver.cuMemAlloc(pointer, Math.max(1, bytes));
    }
    if (code == CUresult.CUDA_ERROR_OUT_OF_MEMORY) {
      throw outOfMemory(what, bytes);
    }
    check("cuMemAlloc", code);
    return new Memory(
        what,
        address(pointer),
        bytes,
        counts,
        () -> check("cuMemFree", JCudaDriver.cuMemFree(pointer)));
  }

  /** Memory that was taken otherwise, and goes where it came from when it is closed. */
  Memory memory(String what, long address, long bytes, Runnable free) {
    return new Memory(what, address, bytes, true, free);
  }

  /** The memory that changes hands between keys and values and adapters. */
  Pages pages() {
    return pages;
  }

  /** Bytes that the device has in all. */
  long totalBytes() {
    return memory;
  }

  /** As an {@link OutOfMemoryException}: what was asked for, and what is left. */
  OutOfMemoryException outOfMemory(String what, long bytes) {
    return new OutOfMemoryException(
        "%s: %d bytes asked of the device, %d of %d left; give --memory-mib less, or free the device"
            .formatted(what, bytes, free(), memory));
  }

  /** Bytes of the device that nobody uses. */
  long free() {
    enter();
    long[] free = {0};
    long[] total = {0};
    check("cuMemGetInfo", JCudaDriver.cuMemGetInfo(free, total));
    return free[0];
  }

  /**
   * How fast the device copies within its memory, in bytes read and written per second: the median
   * of some copies too large for its caches, or of what fits.
   */
  double copyRate() {
    long bytes = Math.min(1L << 30, free() / 4);
    double[] rates = new double[COPIES];
    CUevent begin = new CUevent();
    CUevent end = new CUevent();
    check("cuEventCreate", JCudaDriver.cuEventCreate(begin, CUevent_flags.CU_EVENT_DEFAULT));
    check("cuEventCreate", JCudaDriver.cuEventCreate(end, CUevent_flags.CU_EVENT_DEFAULT));
    try (Memory from = workspace("a copy's source", bytes);
        Memory to = workspace("a copy's target", bytes)) {
      for (int i = 0; i < COPIES; i++) {
        check("cuEventRecord", JCudaDriver.cuEventRecord(begin, compute));
        check(
            "cuMemcpyDtoDAsync",
            JCudaDriver.cuMemcpyDtoDAsync(
                pointer(to.address()), pointer(from.address()), bytes, compute));
        check("cuEventRecord", JCudaDriver.cuEventRecord(end, compute));
        check("cuEventSynchronize", JCudaDriver.cuEventSynchronize(end));
        float[] milliseconds = {0};
        check("cuEventElapsedTime", JCudaDriver.cuEventElapsedTime(milliseconds, begin, end));
        rates[i] = 2e3 * bytes / milliseconds[0];
      }
    } finally {
      JCudaDriver.cuEventDestroy(begin);
      JCudaDriver.cuEventDestroy(end);
    }
    Arrays.sort(rates);
    return rates[COPIES / 2];
  }

  /** Bytes taken and not freed. */
  long live() {
    return live.get();
  }

  /** Bytes that operations work in. */
  long workspaceBytes() {
    return workspace.get();
  }

  /** Counts memory that was taken otherwise. */
  void count(long bytes) {
    live.addAndGet(bytes);
  }

  /** Zeroes memory, and waits until that is done. */
  void clear(Memory region) {
    enter();
    synchronized (upload) {
      check(
          "cuMemsetD8Async",
          JCudaDriver.cuMemsetD8Async(
              pointer(region.address()), (byte) 0, Math.max(1, region.bytes()), upload));
      check("cuStreamSynchronize", JCudaDriver.cuStreamSynchronize(upload));
    }
  }

  /** Queues zeroing {@code bytes} after everything queued on the computing stream. */
  void clearInOrder(long address, long bytes) {
    enter();
    check(
        "cuMemsetD8Async", JCudaDriver.cuMemsetD8Async(pointer(address), (byte) 0, bytes, compute));
  }

  /**
   * Copies to the device, beside what is computed, and waits until it is there: piece by piece
   * through pinned memory, from which the device reads while the next piece is put there.
   */
  void upload(MemorySegment from, long to) {
    enter();
    synchronized (upload) {
      for (long at = 0; at < from.byteSize(); at += STAGE) {
        int stage = (int) (at / STAGE % 2);
        long bytes = Math.min(STAGE, from.byteSize() - at);
        check("cuEventSynchronize", JCudaDriver.cuEventSynchronize(staged[stage]));
        MemorySegment.copy(from, at, staging.segment(), stage * STAGE, bytes);
        check(
            "cuMemcpyHtoDAsync",
            JCudaDriver.cuMemcpyHtoDAsync(
                pointer(to + at), staging.pointer(stage * STAGE), bytes, upload));
        check("cuEventRecord", JCudaDriver.cuEventRecord(staged[stage], upload));
      }
      check("cuStreamSynchronize", JCudaDriver.cuStreamSynchronize(upload));
    }
  }

  /** Queues a copy to the device from pinned memory, which stays as it is until it was made. */
  void uploadInOrder(Pinned from, long offset, long to, long bytes) {
    enter();
    check(
        "cuMemcpyHtoDAsync",
        JCudaDriver.cuMemcpyHtoDAsync(pointer(to), from.pointer(offset), bytes, compute));
  }

  /** Queues a copy from the device to pinned memory. */
  void downloadInOrder(long from, Pinned to, long offset, long bytes) {
    enter();
    check(
        "cuMemcpyDtoHAsync",
        JCudaDriver.cuMemcpyDtoHAsync(to.pointer(offset), pointer(from), bytes, compute));
  }

  /** Host memory that the device reads and writes by itself. */
  final class Pinned implements AutoCloseable {
    private final Pointer pointer = new Pointer();
    private final MemorySegment segment;
    private boolean freed;

    private Pinned(long bytes) {
      enter();
      check("cuMemHostAlloc", JCudaDriver.cuMemHostAlloc(pointer, bytes, 0));
      segment = MemorySegment.ofBuffer(pointer.getByteBuffer(0, bytes));
    }

    MemorySegment segment() {
      return segment;
    }

    Pointer pointer(long offset) {
      return pointer.withByteOffset(offset);
    }

    @Override
    public void close() {
      if (!freed) {
        freed = true;
        if (usable()) {
          enter();
          check("cuMemFreeHost", JCudaDriver.cuMemFreeHost(pointer));
        }
      }
    }
  }

  /** Pinned memory of at most 2 GiB. */
  Pinned pinned(long bytes) {
    return new Pinned(bytes);
  }

  /** Copies from the device after everything queued on the computing stream. */
  void download(long from, MemorySegment to) {
    await();
    downloadBeside(from, to);
  }

  /** Launches a kernel beside what is computed, after what was uploaded; for any thread. */
  void launchBeside(String kernel, int blocks, int threads, LaunchArguments own) {
    enter();
    synchronized (upload) {
      check(
          "cuLaunchKernel of " + kernel,
          JCudaDriver.cuLaunchKernel(
              kernel(kernel), blocks, 1, 1, threads, 1, 1, 0, upload, null, own.extra()));
    }
  }

  /** Copies from the device after everything that was launched beside what is computed. */
  void downloadBeside(long from, MemorySegment to) {
    enter();
    synchronized (upload) {
      for (long at = 0; at < to.byteSize(); at += STAGE) {
        long bytes = Math.min(STAGE, to.byteSize() - at);
        check(
            "cuMemcpyDtoHAsync",
            JCudaDriver.cuMemcpyDtoHAsync(staging.pointer(0), pointer(from + at), bytes, upload));
        check("cuStreamSynchronize", JCudaDriver.cuStreamSynchronize(upload));
        MemorySegment.copy(staging.segment(), 0, to, at, bytes);
      }
    }
  }

  /** Whether calls can still succeed: not closed, and no kernel went wrong. */
  boolean usable() {
    return !closed && broken == null;
  }

  /**
   * Makes the context the calling thread's.
   *
   * @throws DeviceLostException if the device can be used no longer
   */
  void enter() {
    CudaException failure = broken;
    if (failure != null) {
      throw new DeviceLostException(failure);
    }
    if (!current.get()) {
      check("cuCtxSetCurrent", JCudaDriver.cuCtxSetCurrent(context));
      current.set(true);
    }
  }

  private Stream stream() {
    Stream stream = new Stream();
    check(
        "cuStreamCreate",
        JCudaDriver.cuStreamCreate(stream, CUstream_flags.CU_STREAM_NON_BLOCKING));
    return stream;
  }

  private int attribute(int which) {
    int[] value = {0};
    check("cuDeviceGetAttribute", JCudaDriver.cuDeviceGetAttribute(value, which, device));
    return value[0];
  }

  /** The pointer object of a device address. */
  static CUdeviceptr pointer(long address) {
    return new CUdeviceptr().withByteOffset(address);
  }

  /** JCuda keeps addresses to itself but for this. */
  private static final class Address extends CUdeviceptr {
    Address(CUdeviceptr pointer) {
      super(pointer);
    }

    long value() {
      return getNativePointer() + getByteOffset();
    }
  }

  /** JCuda keeps handles to itself, too. */
  private static final class Stream extends CUstream {
    long handle() {
      return getNativePointer();
    }
  }

  private static long address(CUdeviceptr pointer) {
    return new Address(pointer).value();
  }

  /** Throws unless a call went well; remembers what leaves the device unusable. */
  void check(String call, int code) {
    if (code != CUresult.CUDA_SUCCESS) {
      CudaException failure = new CudaException(call, code);
      if (failure.sticky()) {
        broken = failure;
        throw new DeviceLostException(failure);
      }
      throw failure;
    }
  }

  private static void require(String call, int code) {
    if (code != CUresult.CUDA_SUCCESS) {
      throw new CudaException(call, code);
    }
  }

  @Override
  public void close() {
    if (closed) {
      return;
    }
    if (broken == null) {
      enter();
      pages.close();
      staging.close();
      for (CUevent event : staged) {
        JCudaDriver.cuEventDestroy(event);
      }
      for (CUmodule module : modules) {
        JCudaDriver.cuModuleUnload(module);
      }
      JCudaDriver.cuStreamDestroy(compute);
      JCudaDriver.cuStreamDestroy(upload);
    }
    closed = true;
    JCudaDriver.cuDevicePrimaryCtxRelease(device);
  }
}
