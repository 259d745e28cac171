// What adapters add to projections: for each adapter of a row's mix, in order,
// y += scale * (B·(A·x) + loraBias); then DoRA's gain, then the bias. All in float32; factors are
// widened as they are read.
//
// A row's sums depend on nothing but its own numbers. A·x: 8 warps have 256 columns each in turn, a
// lane 8 neighbours of them, summed in order; then lanes pairwise, then warps in order. B·t: in the
// order of the rank.
//
// Blocks work on up to 4 neighbouring rows that use the same adapters, so that these share what is
// read of a factor: of every 4 rows the first, and each whose adapters are others than those of the
// row before it, has a block that does the work; the other rows' blocks return.
#include "wardrobe.cuh"

static constexpr int MOST_OF_GROUP = 4;
static constexpr int ROWS = 4;

// As in projections.cu.
struct Selection {
  const float* x;
  const U4* packed;
  int counter;
  int from;
  int to;
  int columns;
};

__device__ __forceinline__ int selected(const StepTables& step, const Selection& rows) {
  int end = step.counts[rows.counter];
  return (end < rows.to ? end : rows.to) - rows.from;
}

__device__ __forceinline__ int row_of(const StepTables& step, const Selection& rows, int i) {
  return rows.counter == OUTPUTS ? step.outputs[rows.from + i] : rows.from + i;
}

// How many rows from `first` on are the block's: 0 if another block has it.
__device__ __forceinline__ int rows_of_block(const StepTables& step, const Selection& rows,
                                             int first) {
  int count = selected(step, rows);
  if (first >= count) {
    return 0;
  }
  int segment = step.segmentOf[row_of(step, rows, first)];
  if (first % ROWS != 0 && step.segmentOf[row_of(step, rows, first - 1)] == segment) {
    return 0;
  }
  int end = min(count, (first / ROWS + 1) * ROWS);
  int next = first + 1;
  while (next < end && step.segmentOf[row_of(step, rows, next)] == segment) {
    next++;
  }
  return next - first;
}

// The place-th segment of the mix that begins with a segment, or null.
__device__ __forceinline__ const Segment* segment_of_mix(const StepTables& step, int first,
                                                         int place) {
  if (first + place >= step.counts[SEGMENTS] ||
      step.segments[first + place].from != step.segments[first].from ||
      step.segments[first + place].scale == 0.f) {
    return nullptr;
  }
  return step.segments + first + place;
}

// Eight neighbours from `index` on: 16 bytes or 32 at once where `whole` says that they are there
// and aligned; else up to `end`, and 0 after it.
__device__ __forceinline__ void load8(float values[8], const void* data, int form, i64 index,
                                      int count, bool whole) {
  if (!whole) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
      values[i] = i < count ? dense_at(data, form, index + i) : 0.f;
    }
  } else if (form == F32) {
    const U4* words = reinterpret_cast<const U4*>(static_cast<const float*>(data) + index);
    U4 low = words[0];
    U4 high = words[1];
    values[0] = __uint_as_float(low.x);
    values[1] = __uint_as_float(low.y);
    values[2] = __uint_as_float(low.z);
    values[3] = __uint_as_float(low.w);
    values[4] = __uint_as_float(high.x);
    values[5] = __uint_as_float(high.y);
    values[6] = __uint_as_float(high.z);
    values[7] = __uint_as_float(high.w);
  } else {
    U4 pairs = *reinterpret_cast<const U4*>(static_cast<const u16*>(data) + index);
    const u32 words[4] = {pairs.x, pairs.y, pairs.z, pairs.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      values[2 * i] = form == BF16 ? low_bf16(words[i]) : from_f16(words[i] & 0xffffu);
      values[2 * i + 1] = form == BF16 ? high_bf16(words[i]) : from_f16(words[i] >> 16);
    }
  }
}

struct ShrinkArgs {
  StepTables step;
  Selection rows;
  float* t;  // (selected rows, depth, count, rank)
  int modules[MOST_OF_GROUP];
  int count;
  int depth;
  int rank;
};

static constexpr int SHRINK_RANKS = 4;
static constexpr int SHRINK_WARPS = 8;

struct ShrinkSums {
  float sum[SHRINK_WARPS][SHRINK_RANKS][ROWS];
};

// A·x of up to TOKENS_AT_ONCE rows and SHRINK_RANKS ranks.
template <int TOKENS_AT_ONCE>
__device__ __forceinline__ void shrink_rows(const ShrinkArgs& a, const Part& part, float* t,
                                            i64 stride, int first, int tokens, int firstRank,
                                            ShrinkSums& shared) {
  int columns = a.rows.columns;
  bool whole = columns % 8 == 0;
  int lane = threadIdx.x % 32;
  int warp = threadIdx.x / 32;
  int row[TOKENS_AT_ONCE];
#pragma unroll
  for (int i = 0; i < TOKENS_AT_ONCE; i++) {
    // Beyond the last row it is repeated, and not written.
    row[i] = row_of(a.step, a.rows, first + min(i, tokens - 1));
  }
  float sum[SHRINK_RANKS][TOKENS_AT_ONCE] = {};
  for (int column = (warp * 32 + lane) * 8; column < columns; column += SHRINK_WARPS * 256) {
    float factors[SHRINK_RANKS][8];
#pragma unroll
    for (int r = 0; r < SHRINK_RANKS; r++) {
      i64 rank = min(firstRank + r, part.rank - 1);
      load8(factors[r], part.a, part.aType, rank * columns + column, columns - column, whole);
    }
#pragma unroll
    for (int i = 0; i < TOKENS_AT_ONCE; i++) {
      float values[8];
      load8(values, a.rows.x, F32, static_cast<i64>(row[i]) * columns + column, columns - column,
            whole);
#pragma unroll
      for (int r = 0; r < SHRINK_RANKS; r++) {
#pragma unroll
        for (int k = 0; k < 8; k++) {
          sum[r][i] = __fmaf_rn(factors[r][k], values[k], sum[r][i]);
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < SHRINK_RANKS; r++) {
#pragma unroll
    for (int i = 0; i < TOKENS_AT_ONCE; i++) {
#pragma unroll
      for (int by = 16; by > 0; by /= 2) {
        sum[r][i] = __fadd_rn(sum[r][i], __shfl_xor_sync(FULL, sum[r][i], by));
      }
      if (lane == 0) {
        shared.sum[warp][r][i] = sum[r][i];
      }
    }
  }
  __syncthreads();
  int r = threadIdx.x / ROWS;
  int i = threadIdx.x % ROWS;
  if (r < SHRINK_RANKS && i < tokens && firstRank + r < part.rank) {
    float total = 0.f;
    for (int w = 0; w < SHRINK_WARPS; w++) {
      total = __fadd_rn(total, shared.sum[w][r][i]);
    }
    t[i * stride + firstRank + r] = total;
  }
}

// Grid: ranks / SHRINK_RANKS of all modules, rows, adapters of the deepest mix.
KERNEL(256, 2) shrink(const ShrinkArgs a) {
  SHARED(ShrinkSums, shared);
  int first = blockIdx.y;
  int tokens = rows_of_block(a.step, a.rows, first);
  if (tokens == 0) {
    return;
  }
  int place = blockIdx.z;
  const Segment* segment =
      segment_of_mix(a.step, a.step.segmentOf[row_of(a.step, a.rows, first)], place);
  int ofModule = (a.rank + SHRINK_RANKS - 1) / SHRINK_RANKS;
  int which = blockIdx.x / ofModule;
  int firstRank = blockIdx.x % ofModule * SHRINK_RANKS;
  const Part* part = segment == nullptr ? nullptr : part_of(*segment, a.modules[which]);
  if (part == nullptr || part->a == nullptr || firstRank >= part->rank) {
    return;
  }
  i64 stride = static_cast<i64>(a.depth) * a.count * a.rank;
  float* t = a.t + first * stride + (place * a.count + which) * a.rank;
  if (tokens == 1) {
    shrink_rows<1>(a, *part, t, stride, first, tokens, firstRank, shared);
  } else {
    shrink_rows<ROWS>(a, *part, t, stride, first, tokens, firstRank, shared);
  }
}
EXPORT(shrink)

struct Target {
  const float* bias;  // the base's
  float* out;         // (selected rows, width)
  int width;
  int module;
  int firstBlock;  // of the grid's x
};

struct ExpandArgs {
  StepTables step;
  Selection rows;
  const float* t;
  Target targets[MOST_OF_GROUP];
  int count;
  int depth;
  int rank;
};

static constexpr int EXPAND_THREADS = 128;
static constexpr int EXPAND_RANKS = 64;

struct ExpandShare {
  float t[ROWS][EXPAND_RANKS];
};

template <int TOKENS_AT_ONCE>
__device__ __forceinline__ void expand_rows(const ExpandArgs& a, int which, int first, int tokens,
                                            int segment, ExpandShare& shared) {
  const Target& target = a.targets[which];
  int column = (blockIdx.x - target.firstBlock) * EXPAND_THREADS + threadIdx.x;
  bool inside = column < target.width;
  column = min(column, target.width - 1);
  float* out = target.out + static_cast<i64>(first) * target.width + column;
  i64 stride = static_cast<i64>(a.depth) * a.count * a.rank;
  float y[TOKENS_AT_ONCE];
#pragma unroll
  for (int i = 0; i < TOKENS_AT_ONCE; i++) {
    y[i] = out[static_cast<i64>(min(i, tokens - 1)) * target.width];
  }
  const float* bias = target.bias;
  const float* gain = nullptr;
  bool adds = false;
  for (int place = 0; place < a.depth; place++) {
    const Segment* of = segment_of_mix(a.step, segment, place);
    const Part* part = of == nullptr ? nullptr : part_of(*of, target.module);
    if (part == nullptr || !adds_to_linear(*part)) {
      continue;
    }
    adds = true;
    bias = part->bias != nullptr ? part->bias : bias;
    gain = part->gain;
    if (part->a == nullptr) {
      continue;
    }
    int rank = part->rank;
    bool whole = rank % 8 == 0;
    const float* t = a.t + first * stride + (place * a.count + which) * a.rank;
    float delta[TOKENS_AT_ONCE] = {};
    for (int from = 0; from < rank; from += EXPAND_RANKS) {
      __syncthreads();
      for (int e = threadIdx.x; e < tokens * EXPAND_RANKS; e += EXPAND_THREADS) {
        int r = from + e % EXPAND_RANKS;
        if (r < rank) {
          shared.t[e / EXPAND_RANKS][e % EXPAND_RANKS] = t[e / EXPAND_RANKS * stride + r];
        }
      }
      __syncthreads();
      int end = min(rank - from, EXPAND_RANKS);
      for (int r = 0; r < end; r += 8) {
        float factors[8];
        load8(factors, part->b, part->bType, static_cast<i64>(column) * rank + from + r, end - r,
              whole);
#pragma unroll
        for (int i = 0; i < TOKENS_AT_ONCE; i++) {
          const float* values = shared.t[min(i, tokens - 1)] + r;
#pragma unroll
          for (int k = 0; k < 8; k++) {
            if (r + k < end) {
              delta[i] = __fmaf_rn(factors[k], values[k], delta[i]);
            }
          }
        }
      }
    }
    float scale = __fmul_rn(part->scale, of->scale);
#pragma unroll
    for (int i = 0; i < TOKENS_AT_ONCE; i++) {
      if (part->loraBias != nullptr) {
        delta[i] = __fadd_rn(delta[i], part->loraBias[column]);
      }
      y[i] = __fmaf_rn(scale, delta[i], y[i]);
    }
  }
  if (!adds || !inside) {
    return;
  }
#pragma unroll
  for (int i = 0; i < TOKENS_AT_ONCE; i++) {
    if (i < tokens) {
      float sum = gain == nullptr ? y[i] : __fmul_rn(y[i], gain[column]);
      out[static_cast<i64>(i) * target.width] =
          bias == nullptr ? sum : __fadd_rn(sum, bias[column]);
    }
  }
}

// Grid: columns / EXPAND_THREADS of all modules, rows.
KERNEL(128, 4) expand(const ExpandArgs a) {
  SHARED(ExpandShare, shared);
  int first = blockIdx.y;
  int tokens = rows_of_block(a.step, a.rows, first);
  int segment = tokens == 0 ? 0 : a.step.segmentOf[row_of(a.step, a.rows, first)];
  if (tokens == 0 || a.step.segments[segment].parts == nullptr) {
    return;
  }
  int which = 0;
  while (which + 1 < a.count && static_cast<int>(blockIdx.x) >= a.targets[which + 1].firstBlock) {
    which++;
  }
  if (tokens == 1) {
    expand_rows<1>(a, which, first, tokens, segment, shared);
  } else {
    expand_rows<ROWS>(a, which, first, tokens, segment, shared);
  }
}
EXPORT(expand)

struct NormsArgs {
  Weights weights;
  const void* a;
  const void* b;
  double* squares;
  int rank;
  int aType;
  int bType;
  float scale;
  int embedding;
};

struct NormsShare {
  double sum[256];
};

// The squares that DoRA's norms are the roots of, one for each block: over a row of W + scale·B·A,
// or of an embedding over all tokens of a column. Elements in float32, as the CPU has them.
KERNEL(256, 1) dora_squares(const NormsArgs a) {
  SHARED(NormsShare, shared);
  int out = blockIdx.x;
  const Weights& w = a.weights;
  int length = a.embedding ? w.rows : w.cols;
  double sum = 0;
  for (int k = threadIdx.x; k < length; k += 256) {
    float delta = 0.f;
    for (int j = 0; j < a.rank; j++) {
      float product = __fmul_rn(dense_at(a.b, a.bType, static_cast<i64>(out) * a.rank + j),
                                dense_at(a.a, a.aType, static_cast<i64>(j) * length + k));
      delta = __fadd_rn(delta, product);
    }
    float base = a.embedding ? weight_at(w, k, out) : weight_at(w, out, k);
    double element = __fadd_rn(base, __fmul_rn(a.scale, delta));
    sum = __fma_rn(element, element, sum);
  }
  shared.sum[threadIdx.x] = sum;
  __syncthreads();
  for (int by = 128; by > 0; by /= 2) {
    if (static_cast<int>(threadIdx.x) < by) {
      shared.sum[threadIdx.x] = __dadd_rn(shared.sum[threadIdx.x], shared.sum[threadIdx.x + by]);
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    a.squares[out] = shared.sum[0];
  }
}
EXPORT(dora_squares)
