package dev.wardrobe.compute.cuda;

import org.jspecify.annotations.Nullable;

/** Operations on each row by itself: embedding, norms, gated activation (rows.cu). */
final class Rows {
  private static final int THREADS = 256;

  private Rows() {}

  /** {@code out = table[token]}. */
  static void embed(CudaStep step, int module, CudaMatrix table, CudaBuffer out) {
    step.tape().add(new Embed(module, table.weights(), out));
  }

  private record Embed(int module, Weights table, CudaBuffer out) implements Op {
    @Override
    public void launch(Gpu gpu, CudaStep step) {
      LaunchArguments arguments = gpu.arguments();
      step.addTo(arguments);
      table.addTo(arguments);
      arguments.address(out.address()).number(module);
      gpu.launch("embed", Math.ceilDiv(table.cols(), THREADS), step.rows(), 1, THREADS, 0);
    }
  }

  /** {@code residual += x}, then {@code out} is its norm. */
  static void norm(
      CudaStep step,
      int module,
      CudaBuffer residual,
      @Nullable CudaBuffer x,
      CudaBuffer weight,
      float epsilon,
      CudaBuffer out) {
    step.tape().add(new Norm(module, residual, x, weight, epsilon, out));
  }

  private record Norm(
      int module,
      CudaBuffer residual,
      @Nullable CudaBuffer x,
      CudaBuffer weight,
      float epsilon,
      CudaBuffer out)
      implements Op {
    @Override
    public void launch(Gpu gpu, CudaStep step) {
      LaunchArguments arguments = gpu.arguments();
      step.addTo(arguments);
      arguments
          .address(residual.address())
          .address(x == null ? 0 : x.address())
          .address(weight.address())
          .address(out.address())
          .number(module)
          .number(residual.width())
          .number(epsilon);
      gpu.launch("rms_norm", step.rows(), THREADS);
    }
  }

  /** Each head of {@code x} becomes its norm. */
  static void normHeads(
      CudaStep step, int module, CudaBuffer x, int size, CudaBuffer weight, float epsilon) {
    step.tape().add(new NormHeads(module, x, size, weight, epsilon));
  }

  private record NormHeads(int module, CudaBuffer x, int size, CudaBuffer weight, float epsilon)
      implements Op {
    @Override
    public void launch(Gpu gpu, CudaStep step) {
      int heads = x.width() / size;
      LaunchArguments arguments = gpu.arguments();
      step.addTo(arguments);
      arguments
          .address(x.address())
          .address(weight.address())
          .number(module)
          .number(heads)
          .number(size)
          .number(epsilon);
      gpu.launch("norm_heads", Math.ceilDiv(heads, THREADS / 32), step.rows(), 1, THREADS, 0);
    }
  }

  /** {@code out = silu(gate) · up}. */
  static void activate(CudaStep step, CudaBuffer gate, CudaBuffer up, CudaBuffer out) {
    step.tape().add(new Activate(gate, up, out));
  }

  private record Activate(CudaBuffer gate, CudaBuffer up, CudaBuffer out) implements Op {
    @Override
    public void launch(Gpu gpu, CudaStep step) {
      LaunchArguments arguments = gpu.arguments();
      step.addTo(arguments);
      arguments
          .address(gate.address())
          .address(up.address())
          .address(out.address())
          .number(gate.width());
      gpu.launch("activate", Math.ceilDiv(gate.width(), THREADS), step.rows(), 1, THREADS, 0);
    }
  }
}
