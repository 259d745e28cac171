package dev.wardrobe.compute.cpu;

import org.jspecify.annotations.Nullable;

/**
 * Training's operations in machine code, for processors with AVX-512; written when the first one is
 * wanted, since who only serves needs none.
 */
final class TrainingCode implements AutoCloseable {
  final InputGradients inputs;
  final Avx512Products products;

  private TrainingCode(InputGradients inputs, Avx512Products products) {
    this.inputs = inputs;
    this.products = products;
  }

  /** Null where the processor or the system does not take it. */
  static @Nullable TrainingCode load() {
    Avx512Blocks blocks = Avx512Blocks.load();
    InputGradients inputs = blocks == null ? null : InputGradients.load(blocks);
    Avx512Products products = Avx512Products.load();
    return inputs == null || products == null ? null : new TrainingCode(inputs, products);
  }

  /** Bytes that its operations work in. */
  long bytes() {
    return inputs.bytes() + products.bytes();
  }

  @Override
  public void close() {
    inputs.close();
    products.close();
  }
}
