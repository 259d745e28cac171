package dev.wardrobe.compute.cuda;

import dev.wardrobe.compute.Lora;

/** An adapter's deltas by module, in device memory. */
final class CudaLora implements Lora {
  private final Gpu.Memory memory;
  private final long partsAddress;
  private final int modules;
  private final int largestRank;
  private final boolean additive;
  private final boolean replacesWeights;

  CudaLora(
      Gpu.Memory memory,
      long partsAddress,
      int modules,
      int largestRank,
      boolean additive,
      boolean replacesWeights) {
    this.memory = memory;
    this.partsAddress = partsAddress;
    this.modules = modules;
    this.largestRank = largestRank;
    this.additive = additive;
    this.replacesWeights = replacesWeights;
  }

  /** Where its table of parts is (Part in wardrobe.cuh), by module number. */
  long partsAddress() {
    return partsAddress;
  }

  /** Length of the table. */
  int modules() {
    return modules;
  }

  /** The largest rank of its factors; 0 if it has none. */
  int largestRank() {
    return largestRank;
  }

  /** Whether a module's weight is another one than the base's, norms apart. */
  boolean replacesWeights() {
    return replacesWeights;
  }

  @Override
  public long bytes() {
    return memory.bytes();
  }

  @Override
  public boolean additive() {
    return additive;
  }

  @Override
  public void close() {
    memory.close();
  }
}
