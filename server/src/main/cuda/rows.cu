// Operations on each row by itself.
#include "wardrobe.cuh"

struct ActivateArgs {
  StepTables step;
  const float* gate;
  const float* up;
  float* out;
  int width;
};

// out = gate / (1 + exp(-gate)) * up. Grid: (width / 256, rows).
KERNEL(256, 1) activate(const ActivateArgs a) {
  int column = blockIdx.x * blockDim.x + threadIdx.x;
  int row = blockIdx.y;
  if (row >= a.step.counts[TOKENS] || column >= a.width) {
    return;
  }
  i64 at = static_cast<i64>(row) * a.width + column;
  float gate = a.gate[at];
  float sigmoid = __fdiv_rn(gate, __fadd_rn(1.f, exp_exact(-gate)));
  a.out[at] = __fmul_rn(sigmoid, a.up[at]);
}
EXPORT(activate)
