package dev.wardrobe.compute.cuda;

import jcuda.driver.CUresult;

/**
 * A CUDA call that failed: which one, with what code, and what can be done about it. Errors of a
 * kernel are found by a later call, and leave the context unusable.
 */
public final class CudaException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  private final int code;

  CudaException(String call, int code) {
    super("%s failed: %s (%d): %s".formatted(call, CUresult.stringFor(code), code, advice(code)));
    this.code = code;
  }

  /** Whether no further call in this process can succeed. */
  boolean sticky() {
    return switch (code) {
      case CUresult.CUDA_ERROR_DEINITIALIZED,
          CUresult.CUDA_ERROR_DEVICE_UNAVAILABLE,
          CUresult.CUDA_ERROR_ECC_UNCORRECTABLE,
          CUresult.CUDA_ERROR_NVLINK_UNCORRECTABLE,
          CUresult.CUDA_ERROR_CONTEXT_IS_DESTROYED,
          CUresult.CUDA_ERROR_UNKNOWN,
          CUresult.CUDA_ERROR_ILLEGAL_ADDRESS,
          CUresult.CUDA_ERROR_LAUNCH_TIMEOUT,
          CUresult.CUDA_ERROR_ASSERT,
          CUresult.CUDA_ERROR_HARDWARE_STACK_ERROR,
          CUresult.CUDA_ERROR_ILLEGAL_INSTRUCTION,
          CUresult.CUDA_ERROR_MISALIGNED_ADDRESS,
          CUresult.CUDA_ERROR_INVALID_ADDRESS_SPACE,
          CUresult.CUDA_ERROR_INVALID_PC,
          CUresult.CUDA_ERROR_LAUNCH_FAILED ->
          true;
      default -> false;
    };
  }

  private static String advice(int code) {
    return switch (code) {
      case CUresult.CUDA_ERROR_OUT_OF_MEMORY ->
          "the device has not that much free memory; lower --memory-mib or --max-batch, or stop"
              + " what else uses the device (nvidia-smi lists it)";
      case CUresult.CUDA_ERROR_NO_DEVICE -> "no CUDA device is visible (CUDA_VISIBLE_DEVICES?)";
      case CUresult.CUDA_ERROR_NO_BINARY_FOR_GPU, CUresult.CUDA_ERROR_INVALID_IMAGE ->
          "the kernels of this build are not for this device; build with nvcc, or install NVRTC so"
              + " that they are compiled when the server starts";
      case CUresult.CUDA_ERROR_UNSUPPORTED_PTX_VERSION ->
          "the driver is older than the compiler of the kernels; update the driver";
      case CUresult.CUDA_ERROR_SYSTEM_DRIVER_MISMATCH,
          CUresult.CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE ->
          "driver and libraries are of different versions; restart the machine or reinstall the"
              + " driver";
      case CUresult.CUDA_ERROR_ECC_UNCORRECTABLE ->
          "the device's memory is defective; see dmesg and nvidia-smi -q -d ECC, then reset it";
      case CUresult.CUDA_ERROR_ILLEGAL_ADDRESS,
          CUresult.CUDA_ERROR_MISALIGNED_ADDRESS,
          CUresult.CUDA_ERROR_LAUNCH_FAILED,
          CUresult.CUDA_ERROR_ILLEGAL_INSTRUCTION ->
          "a kernel went wrong, and this process can use the device no longer; restart the server,"
              + " and report it: it is an error of ours";
      default ->
          "restart the server; if it happens again, --backend cpu goes on without the device";
    };
  }
}
