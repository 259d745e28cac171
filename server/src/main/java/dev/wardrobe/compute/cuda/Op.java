package dev.wardrobe.compute.cuda;

/**
 * An operation with its arguments: a value, so that a step that repeats an earlier one's operations
 * is known as such. Whatever differs between the two is in the step's tables, on the device.
 */
interface Op {
  /** Queues its kernels, over grids of the step's size. */
  void launch(Gpu gpu, CudaStep step);
}
