// Operations on each row by itself.
#include "wardrobe.cuh"

static constexpr int ROW_THREADS = 256;

struct EmbedArgs {
  StepTables step;
  Weights table;  // (vocabulary, width)
  float* out;
  int module;
};

// out = table[token], with the row's adapters: all of a mix in turn. Grid: (width / 256, rows).
KERNEL(256, 1) embed(const EmbedArgs a) {
  int column = blockIdx.x * blockDim.x + threadIdx.x;
  int row = blockIdx.y;
  int width = a.table.cols;
  if (row >= a.step.counts[TOKENS] || column >= width) {
    return;
  }
  int token = a.step.token[row];
  int first = a.step.segmentOf[row];
  const Part* part = part_of(a.step.segments[first], a.module);
  bool replaced = part != nullptr && part->weight != nullptr;
  float y = weight_at(replaced ? *part->weight : a.table, token, column);
  for (int i = first; i < a.step.counts[SEGMENTS]; i++) {
    const Segment& segment = a.step.segments[i];
    if (segment.from != a.step.segments[first].from) {
      break;
    }
    part = part_of(segment, a.module);
    if (part == nullptr) {
      continue;
    }
    if (part->a != nullptr) {
      float sum = 0.f;
      for (int j = 0; j < part->rank; j++) {
        float t = dense_at(part->a, part->aType, static_cast<i64>(j) * a.table.rows + token);
        float b = dense_at(part->b, part->bType, static_cast<i64>(column) * part->rank + j);
        sum = __fmaf_rn(t, b, sum);
      }
      y = __fmaf_rn(__fmul_rn(part->scale, segment.scale), sum, y);
    }
    if (part->gain != nullptr) {
      y = __fmul_rn(y, part->gain[column]);
    }
  }
  a.out[static_cast<i64>(row) * width + column] = y;
}
EXPORT(embed)

// The sum over the lanes of a warp, in all of them: neighbours first, then neighbouring pairs.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int by = 1; by < 32; by *= 2) {
    x = __fadd_rn(x, __shfl_xor_sync(FULL, x, by));
  }
  return x;
}

__device__ __forceinline__ float inverse_root(float squares, int width, float epsilon) {
  float mean = __fadd_rn(__fdiv_rn(squares, static_cast<float>(width)), epsilon);
  return static_cast<float>(__ddiv_rn(1.0, __dsqrt_rn(static_cast<double>(mean))));
}

// The weight that a row's adapter has for a norm, or the base's.
__device__ __forceinline__ const float* norm_weight(const StepTables& step, int row, int module,
                                                    const float* weight) {
  const Part* part = part_of(step.segments[step.segmentOf[row]], module);
  return part == nullptr || part->vector == nullptr ? weight : part->vector;
}

struct NormArgs {
  StepTables step;
  float* residual;
  const float* x;  // or null
  const float* weight;
  float* out;
  int module;
  int width;
  float epsilon;
};

struct NormSums {
  float warps[ROW_THREADS / 32];
};

// residual += x; out = residual / sqrt(mean(residual^2) + epsilon) * weight. A row has a block:
// thread t sums the squares of columns t, t + 256, ... in a chain; then come the tree of each warp
// and the eight warps' sums in order. Grid: rows.
KERNEL(256, 4) rms_norm(const NormArgs a) {
  SHARED(NormSums, sums);
  int row = blockIdx.x;
  if (row >= a.step.counts[TOKENS]) {
    return;
  }
  float* residual = a.residual + static_cast<i64>(row) * a.width;
  float square = 0.f;
  for (int i = threadIdx.x; i < a.width; i += ROW_THREADS) {
    float value = residual[i];
    if (a.x != nullptr) {
      value = __fadd_rn(value, a.x[static_cast<i64>(row) * a.width + i]);
      residual[i] = value;
    }
    square = __fmaf_rn(value, value, square);
  }
  square = warp_sum(square);
  if (threadIdx.x % 32 == 0) {
    sums.warps[threadIdx.x / 32] = square;
  }
  __syncthreads();
  square = 0.f;
  for (int warp = 0; warp < ROW_THREADS / 32; warp++) {
    square = __fadd_rn(square, sums.warps[warp]);
  }
  float inverse = inverse_root(square, a.width, a.epsilon);
  const float* weight = norm_weight(a.step, row, a.module, a.weight);
  float* out = a.out + static_cast<i64>(row) * a.width;
  for (int i = threadIdx.x; i < a.width; i += ROW_THREADS) {
    out[i] = __fmul_rn(weight[i], __fmul_rn(residual[i], inverse));
  }
}
EXPORT(rms_norm)

struct NormHeadsArgs {
  StepTables step;
  float* x;
  const float* weight;
  int module;
  int heads;
  int size;
  float epsilon;
};

// The same of each head by itself, in place: a warp has one, lane l elements l, l + 32, ...
// Grid: (heads / 8, rows).
KERNEL(256, 4) norm_heads(const NormHeadsArgs a) {
  int head = blockIdx.x * (ROW_THREADS / 32) + threadIdx.x / 32;
  int row = blockIdx.y;
  if (row >= a.step.counts[TOKENS] || head >= a.heads) {
    return;
  }
  float* x = a.x + (static_cast<i64>(row) * a.heads + head) * a.size;
  float square = 0.f;
  for (int i = threadIdx.x % 32; i < a.size; i += 32) {
    square = __fmaf_rn(x[i], x[i], square);
  }
  float inverse = inverse_root(warp_sum(square), a.size, a.epsilon);
  const float* weight = norm_weight(a.step, row, a.module, a.weight);
  for (int i = threadIdx.x % 32; i < a.size; i += 32) {
    x[i] = __fmul_rn(weight[i], __fmul_rn(x[i], inverse));
  }
}
EXPORT(norm_heads)

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
