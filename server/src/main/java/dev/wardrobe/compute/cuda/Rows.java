package dev.wardrobe.compute.cuda;

import dev.wardrobe.compute.Buffer;

/** Operations on each row by itself: embedding, norms, gated activation. */
final class Rows {
  private static final int THREADS = 256;

  private Rows() {}

  /** {@code out = silu(gate) · up}. */
  static void activate(CudaStep step, Buffer gate, Buffer up, Buffer out) {
    step.tape().add(new Activate(CudaBackend.own(gate), CudaBackend.own(up), CudaBackend.own(out)));
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
