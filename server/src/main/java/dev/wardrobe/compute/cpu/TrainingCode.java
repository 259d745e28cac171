package dev.wardrobe.compute.cpu;

import org.jspecify.annotations.Nullable;

/**
 * Training's operations in machine code, for processors with AVX-512; written when the first one is
 * wanted, since who only serves needs none.
 */
final class TrainingCode implements AutoCloseable {
  final InputGradients inputs;
  final Avx512Products products;
  final Avx512Attention attention;
  final Avx512Rows rows;

  private TrainingCode(
      InputGradients inputs, Avx512Products products, Avx512Attention attention, Avx512Rows rows) {
    this.inputs = inputs;
    this.products = products;
    this.attention = attention;
    this.rows = rows;
  }

  /** Null where the processor or the system does not take it. */
  static @Nullable TrainingCode load() {
    Avx512Blocks blocks = Avx512Blocks.load();
    if (blocks == null) {
      return null;
    }
    InputGradients inputs = InputGradients.load(blocks);
    Avx512Products products = Avx512Products.load();
    Avx512Attention attention = Avx512Attention.load(blocks);
    Avx512Rows rows = Avx512Rows.load();
    return inputs == null || products == null || attention == null || rows == null
        ? null
        : new TrainingCode(inputs, products, attention, rows);
  }

  /** Bytes that its operations work in. */
  long bytes() {
    return inputs.bytes() + products.bytes() + attention.bytes();
  }

  @Override
  public void close() {
    inputs.close();
    products.close();
    attention.close();
  }
}
