// What a library's matrix products need around them: operands as bf16 rows, and the bias.
#include "wardrobe.cuh"

// The scale of eight neighbouring columns of a tile, decoded as the CPU does.
__device__ __forceinline__ float scale_of_tile(const Weights& w, i64 row, int column) {
  int blocks = w.cols >> w.blockShift;
  int block = column >> w.blockShift;
  i64 at = ((row >> 4) * blocks + block) * 16 + (row & 15);
  if (w.map == nullptr) {
    return static_cast<const float*>(w.absmax)[at];
  }
  // Scales that share a scale are a power of two of a matrix in tiles.
  i64 group = (row * blocks + block) >> (31 - __clz(w.nestedSize));
  float decoded = w.map[static_cast<const u8*>(w.absmax)[at]];
  return __fadd_rn(__fmul_rn(decoded, w.nested[group]), w.offset);
}

struct WidenArgs {
  Weights weights;
  u16* out;  // (rows, columns) in bf16
  int firstRow;
  int rows;
};

// Weights as bf16 of float32(code * absmax), row by row. Eight neighbouring columns for each thread:
// they share a scale. Grid: (rows, columns / 8 / 256).
KERNEL(256, 1) widen_weights(const WidenArgs a) {
  const Weights& w = a.weights;
  int column = (blockIdx.y * blockDim.x + threadIdx.x) * 8;
  if (column >= w.cols) {
    return;
  }
  i64 row = a.firstRow + static_cast<int>(blockIdx.x);
  u16* out = a.out + static_cast<i64>(blockIdx.x) * w.cols + column;
  if (w.form != TILES) {
    for (int i = 0; i < 8 && column + i < w.cols; i++) {
      out[i] = static_cast<u16>(to_bf16(weight_at(w, row, column + i)));
    }
    return;
  }
  float scale = scale_of_tile(w, row, column);
  u32 words[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    u32 pair = tile_pair(w.data, w.cols, row, column + 2 * i);
    words[i] = pack_bf16(__fmul_rn(w.codebook[pair >> 4], scale),
                         __fmul_rn(w.codebook[pair & 15u], scale));
  }
  *reinterpret_cast<U4*>(out) = {words[0], words[1], words[2], words[3]};
}
EXPORT(widen_weights)

struct NarrowArgs {
  const float* x;
  u16* out;            // (count, width) in bf16
  const int* outputs;  // rows to take; null: those from `from` on
  int from;
  int width;
};

// Rows of float32 as bf16, to nearest. Grid: (rows, width / 256).
KERNEL(256, 1) narrow_rows(const NarrowArgs a) {
  int column = blockIdx.y * blockDim.x + threadIdx.x;
  if (column >= a.width) {
    return;
  }
  int i = a.from + static_cast<int>(blockIdx.x);
  i64 row = a.outputs == nullptr ? i : a.outputs[i];
  a.out[static_cast<i64>(blockIdx.x) * a.width + column] =
      static_cast<u16>(to_bf16(a.x[row * a.width + column]));
}
EXPORT(narrow_rows)

struct BiasArgs {
  const float* bias;
  float* out;  // (rows, width)
  int width;
};

// Adds a bias to every row. Grid: (rows, width / 256).
KERNEL(256, 1) add_bias(const BiasArgs a) {
  int column = blockIdx.y * blockDim.x + threadIdx.x;
  if (column >= a.width) {
    return;
  }
  float* y = a.out + static_cast<i64>(blockIdx.x) * a.width + column;
  *y = __fadd_rn(*y, a.bias[column]);
}
EXPORT(add_bias)
