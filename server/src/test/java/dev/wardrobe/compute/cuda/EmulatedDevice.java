package dev.wardrobe.compute.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.compute.UnavailableException;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import jcuda.Pointer;
import jcuda.driver.CUcontext;
import jcuda.driver.CUdevice;
import jcuda.driver.CUdeviceptr;
import jcuda.driver.CUevent;
import jcuda.driver.CUevent_flags;
import jcuda.driver.CUfunction;
import jcuda.driver.CUmodule;
import jcuda.driver.CUresult;
import jcuda.driver.CUstream;
import jcuda.driver.CUstream_flags;
import jcuda.driver.JCudaDriver;

/** A context of the emulator with the kernels of {@code faults.cu}, driven by JCuda alone. */
final class EmulatedDevice implements AutoCloseable {
  static final int BLOCK = 256;

  private static byte[] image;

  final Emulator emulator;
  final CUdevice device = new CUdevice();
  final CUmodule module = new CUmodule();
  final CUstream stream;

  private EmulatedDevice(Emulator emulator) {
    this.emulator = emulator;
    ok(JCudaDriver.cuInit(0));
    ok(JCudaDriver.cuDeviceGet(device, 0));
    CUcontext context = new CUcontext();
    ok(JCudaDriver.cuDevicePrimaryCtxRetain(context, device));
    ok(JCudaDriver.cuCtxSetCurrent(context));
    ok(JCudaDriver.cuModuleLoadData(module, image));
    stream = stream();
  }

  static synchronized EmulatedDevice open() throws UnavailableException {
    Emulator emulator = Emulator.load();
    Natives.load();
    emulator.reset();
    if (image == null) {
      image = emulator.image(Emulator.sources().resolve("faults.cu"));
    }
    return new EmulatedDevice(emulator);
  }

  /** Fails with the emulator's report unless a call went well. */
  void ok(int code) {
    assertThat(code).as(() -> CUresult.stringFor(code) + ": " + emulator.report()).isZero();
  }

  CUstream stream() {
    CUstream created = new CUstream();
    ok(JCudaDriver.cuStreamCreate(created, CUstream_flags.CU_STREAM_NON_BLOCKING));
    return created;
  }

  CUevent event() {
    CUevent event = new CUevent();
    ok(JCudaDriver.cuEventCreate(event, CUevent_flags.CU_EVENT_DISABLE_TIMING));
    return event;
  }

  CUfunction kernel(String name) {
    CUfunction function = new CUfunction();
    ok(JCudaDriver.cuModuleGetFunction(function, module, name));
    return function;
  }

  /** Queues a kernel; the call's code. */
  int queue(CUstream on, String kernel, int blocks, int shared, LaunchArguments arguments) {
    return JCudaDriver.cuLaunchKernel(
        kernel(kernel), blocks, 1, 1, BLOCK, 1, 1, shared, on, null, arguments.extra());
  }

  /** Runs a kernel of {@code VectorArgs} and waits: the code that the wait returns. */
  int run(String kernel, int blocks, CUdeviceptr x, CUdeviceptr y, int n) {
    return run(kernel, blocks, 0, x, y, n);
  }

  int run(String kernel, int blocks, int shared, CUdeviceptr x, CUdeviceptr y, int n) {
    ok(queue(stream, kernel, blocks, shared, vector(x, y, n, 1f)));
    return JCudaDriver.cuStreamSynchronize(stream);
  }

  static LaunchArguments vector(CUdeviceptr x, CUdeviceptr y, int n, float factor) {
    return new LaunchArguments().address(address(x)).address(address(y)).number(n).number(factor);
  }

  CUdeviceptr allocate(long bytes) {
    CUdeviceptr pointer = new CUdeviceptr();
    ok(JCudaDriver.cuMemAlloc(pointer, bytes));
    return pointer;
  }

  CUdeviceptr device(float... values) {
    CUdeviceptr pointer = allocate(4L * values.length);
    ok(JCudaDriver.cuMemcpyHtoD(pointer, Pointer.to(values), 4L * values.length));
    return pointer;
  }

  CUdeviceptr device(short... values) {
    CUdeviceptr pointer = allocate(2L * values.length);
    ok(JCudaDriver.cuMemcpyHtoD(pointer, Pointer.to(values), 2L * values.length));
    return pointer;
  }

  float[] floats(CUdeviceptr from, int n) {
    float[] values = new float[n];
    ok(JCudaDriver.cuMemcpyDtoH(Pointer.to(values), from, 4L * n));
    return values;
  }

  int[] ints(CUdeviceptr from, int n) {
    int[] values = new int[n];
    ok(JCudaDriver.cuMemcpyDtoH(Pointer.to(values), from, 4L * n));
    return values;
  }

  Pointer pinned(int floats) {
    Pointer host = new Pointer();
    ok(JCudaDriver.cuMemHostAlloc(host, 4L * floats, 0));
    return host;
  }

  static FloatBuffer view(Pointer pinned, int floats) {
    return pinned.getByteBuffer(0, 4L * floats).order(ByteOrder.nativeOrder()).asFloatBuffer();
  }

  /** 0, 1, 2, ... */
  static float[] ramp(int n) {
    float[] values = new float[n];
    for (int i = 0; i < n; i++) {
      values[i] = i;
    }
    return values;
  }

  static long address(CUdeviceptr pointer) {
    return new Address(pointer).value();
  }

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

  @Override
  public void close() {
    emulator.reset();
  }
}
