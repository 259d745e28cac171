// Projections y = W·x + bias.
//
// The order of a row's sum, the same in every kernel here and for any number of tokens: the columns
// are cut into blocks of 64, two blocks are a pair, and the pairs into 8 slices. A slice sums its
// blocks in order; the slices' sums are added in order to 0. A block of 4-bit weights is summed by
// four chained mma from 0, and scaled after that; one of bf16 weights by four more mma of the chain
// that is its slice. Which columns an mma takes is
// said at pack_rows. Matrices that do not fit that, and those of float16 and float32, are summed by linear_rows.
#include "wardrobe.cuh"

static constexpr int SLICES = 8;
static constexpr int WARPS = 8;
static constexpr int THREADS = 32 * WARPS;

// Matrices that read the same rows are a group, computed by one launch.
static constexpr int MOST_OF_GROUP = 4;

// Which rows: `from` on, as many as a counter of the step leaves below `to`. With COUNTER outputs
// they are positions in the table of outputs, which says the rows.
struct Selection {
  const float* x;  // (tokens, columns)
  const U4* packed;  // the same as bf16, selected and in the order of fragments
  int counter;
  int from;
  int to;
  int columns;
};

struct Projection {
  Weights weights;
  const float* bias;
  float* out;  // (selected rows, weights.rows)
  int module;
  int firstBlock;  // of the grid's y
};

struct LinearArgs {
  StepTables step;
  Selection rows;
  Projection projections[MOST_OF_GROUP];
  int count;
};

__device__ __forceinline__ int selected(const StepTables& step, const Selection& rows) {
  int end = step.counts[rows.counter];
  return (end < rows.to ? end : rows.to) - rows.from;
}

__device__ __forceinline__ int row_of(const StepTables& step, const Selection& rows, int i) {
  return rows.counter == OUTPUTS ? step.outputs[rows.from + i] : rows.from + i;
}

// Whether an adapter of the row adds something of its own to a module's product. The kernels that
// add it also add the bias.
__device__ __forceinline__ bool adapted(const StepTables& step, int row, int module) {
  int first = step.segmentOf[row];
  int from = step.segments[first].from;
  for (int s = first; s < step.counts[SEGMENTS] && step.segments[s].from == from; s++) {
    const Part* part = part_of(step.segments[s], module);
    if (step.segments[s].scale != 0.f && part != nullptr && adds_to_linear(*part)) {
      return true;
    }
  }
  return false;
}

// Rows as B fragments.

struct PackArgs {
  StepTables step;
  Selection rows;
  U4* packed;
};

// Two pairs of neighbours from eight float32 columns: b0 and b1 of two mma steps.
__device__ __forceinline__ U4 pack8(U4 low, U4 high) {
  return {pack_bf16(__uint_as_float(low.x), __uint_as_float(low.y)),
          pack_bf16(__uint_as_float(low.z), __uint_as_float(low.w)),
          pack_bf16(__uint_as_float(high.x), __uint_as_float(high.y)),
          pack_bf16(__uint_as_float(high.z), __uint_as_float(high.w))};
}

// Lane 4g + t of a warp gives the mma step s of half h of a block the columns 32h + 8t + 4s on: two
// as b0, two as b1. So what it needs of a half is 8 neighbours of the row of token g, and of bf16
// weights 16 bytes as they lie. Packed rows: for each 8 tokens, for each half of a block, 32 times
// 16 bytes by lane. Rows of no token are 0, up to a multiple of 32.
KERNEL(256, 1) pack_rows(const PackArgs a) {
  int count = selected(a.step, a.rows);
  int halves = a.rows.columns / 32;
  int at = blockIdx.x * blockDim.x + threadIdx.x;
  int tile = blockIdx.y;
  if (tile * 8 >= (count + 31) / 32 * 32 || at >= halves * 32) {
    return;
  }
  int token = tile * 8 + (at % 32) / 4;
  U4 packed = {0, 0, 0, 0};
  if (token < count) {
    const float* row = a.rows.x +
                       static_cast<i64>(row_of(a.step, a.rows, token)) * a.rows.columns +
                       at / 32 * 32 + at % 4 * 8;
    packed = pack8(reinterpret_cast<const U4*>(row)[0], reinterpret_cast<const U4*>(row)[1]);
  }
  a.packed[(static_cast<i64>(tile) * halves) * 32 + at] = packed;
}
EXPORT(pack_rows)

// The B fragments of a lane for a block's four mma steps: words 2j and 2j + 1 for step j. Up to 8
// tokens are taken from their float32 rows, more from packed ones.
template <int TOKEN_TILES>
struct Inputs {
  const U4* packed;
  i64 tileStride;

  __device__ __forceinline__ void begin(const LinearArgs& a, int firstToken, int) {
    int lane = threadIdx.x % 32;
    tileStride = static_cast<i64>(a.rows.columns) / 32 * 32;
    packed = a.rows.packed + firstToken / 8 * tileStride + lane;
  }

  __device__ __forceinline__ void load(u32 b[TOKEN_TILES][8], int block) const {
#pragma unroll
    for (int n = 0; n < TOKEN_TILES; n++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        U4 words = packed[n * tileStride + (block * 2 + half) * 32];
        b[n][4 * half] = words.x;
        b[n][4 * half + 1] = words.y;
        b[n][4 * half + 2] = words.z;
        b[n][4 * half + 3] = words.w;
      }
    }
  }
};

template <>
struct Inputs<1> {
  const U4* row;  // where the lane's columns of the first half begin; null for no token

  __device__ __forceinline__ void begin(const LinearArgs& a, int firstToken, int count) {
    int lane = threadIdx.x % 32;
    int token = firstToken + lane / 4;
    row = nullptr;
    if (token < count) {
      row = reinterpret_cast<const U4*>(
          a.rows.x + static_cast<i64>(row_of(a.step, a.rows, token)) * a.rows.columns +
          lane % 4 * 8);
    }
  }

  __device__ __forceinline__ void fetch(U4 raw[4], int block) const {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      raw[i] = {0, 0, 0, 0};
      if (row != nullptr) {
        raw[i] = row[block * 16 + i / 2 * 8 + i % 2];
      }
    }
  }

  __device__ __forceinline__ static void convert(u32 b[1][8], const U4 raw[4]) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      U4 words = pack8(raw[2 * half], raw[2 * half + 1]);
      b[0][4 * half] = words.x;
      b[0][4 * half + 1] = words.y;
      b[0][4 * half + 2] = words.z;
      b[0][4 * half + 3] = words.w;
    }
  }
};

// The first pair of blocks of a slice, or the end of the slice before.
__device__ __forceinline__ int slice_begin(int blocks, int slice) {
  return (blocks + 1) / 2 * slice / SLICES;
}

__device__ __forceinline__ const Projection& projection_of_block(const LinearArgs& a) {
  int i = 0;
  while (i + 1 < a.count && static_cast<int>(blockIdx.y) >= a.projections[i + 1].firstBlock) {
    i++;
  }
  return a.projections[i];
}

// Writes one sum, or adds the base's bias to it first.
__device__ __forceinline__ void write_sum(const LinearArgs& a, const Projection& p, int token,
                                          int row, float sum) {
  if (p.bias != nullptr && !adapted(a.step, row_of(a.step, a.rows, token), p.module)) {
    sum = __fadd_rn(sum, p.bias[row]);
  }
  p.out[static_cast<i64>(token) * p.weights.rows + row] = sum;
}

// Adds the slices that the block's warps have summed, in order, and writes them. `sums` is shared
// memory for WARPS * ROW_TILES * TOKEN_TILES * 128 floats.
template <int TOKEN_TILES, int ROW_TILES>
__device__ __forceinline__ void add_slices(const LinearArgs& a, const Projection& p,
                                           const float (*sum)[TOKEN_TILES][4], float* sums,
                                           int firstRow, int firstToken, int count) {
  constexpr int OF_WARP = ROW_TILES * TOKEN_TILES * 128;
  int lane = threadIdx.x % 32;
  __syncthreads();
  float* own = sums + threadIdx.x / 32 * OF_WARP + lane;
#pragma unroll
  for (int u = 0; u < ROW_TILES; u++) {
#pragma unroll
    for (int n = 0; n < TOKEN_TILES; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        own[((u * TOKEN_TILES + n) * 4 + i) * 32] = sum[u][n][i];
      }
    }
  }
  __syncthreads();
  for (int e = threadIdx.x; e < OF_WARP; e += THREADS) {
    float total = 0.f;
#pragma unroll
    for (int slice = 0; slice < SLICES; slice++) {
      total = __fadd_rn(total, sums[slice * OF_WARP + e]);
    }
    int i = e / 32 % 4;
    int n = e / 128 % TOKEN_TILES;
    int u = e / 128 / TOKEN_TILES;
    int row = firstRow + u * 16 + lane / 4 + i / 2 * 8;
    int token = firstToken + n * 8 + lane % 4 * 2 + i % 2;
    if (row < p.weights.rows && token < count) {
      write_sum(a, p, token, row, total);
    }
  }
}

template <int TOKEN_TILES, int ROW_TILES>
__device__ __forceinline__ void write_totals(const LinearArgs& a, const Projection& p,
                                             const float (*total)[TOKEN_TILES][4], int firstRow,
                                             int firstToken, int count) {
  int lane = threadIdx.x % 32;
#pragma unroll
  for (int u = 0; u < ROW_TILES; u++) {
#pragma unroll
    for (int n = 0; n < TOKEN_TILES; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        int row = firstRow + u * 16 + lane / 4 + i / 2 * 8;
        int token = firstToken + n * 8 + lane % 4 * 2 + i % 2;
        if (row < p.weights.rows && token < count) {
          write_sum(a, p, token, row, total[u][n][i]);
        }
      }
    }
  }
}

// Where a slice ends with this pair of blocks, adds its sum to the total. Slices may be empty.
template <int TOKEN_TILES, int ROW_TILES>
__device__ __forceinline__ int end_slice(int slice, int pair, int blocks,
                                         float (*sum)[TOKEN_TILES][4],
                                         float (*total)[TOKEN_TILES][4]) {
  while (slice < SLICES && slice_begin(blocks, slice + 1) <= pair) {
    slice++;
  }
  if (slice_begin(blocks, slice + 1) == pair + 1) {
#pragma unroll
    for (int u = 0; u < ROW_TILES; u++) {
#pragma unroll
      for (int n = 0; n < TOKEN_TILES; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          total[u][n][i] = __fadd_rn(total[u][n][i], sum[u][n][i]);
          sum[u][n][i] = 0.f;
        }
      }
    }
  }
  return slice;
}

// 4-bit weights.

// Pairs of codes as pairs of bf16, once for each lane: whatever 32 entries the lanes of a warp ask
// for, each asks its own bank. An entry is 128 bytes, hence the rotation of the packed words.
static constexpr int TABLE_BYTES = 256 * 32 * 4;

__device__ __forceinline__ void fill_table(u32* table, const float* codebook) {
  // Eight threads write an entry, 16 bytes each. The second code of a thread's entries is the same.
  int first = threadIdx.x / 8;
  u32 second = to_bf16(codebook[first % 16]) << 16;
#pragma unroll
  for (int i = 0; i < 256 * 8 / THREADS; i++) {
    int entry = first + i * (THREADS / 8);
    u32 pair = to_bf16(codebook[entry / 16]) | second;
    reinterpret_cast<U4*>(table)[entry * 8 + threadIdx.x % 8] = {pair, pair, pair, pair};
  }
}

// The entry of the pair in bits 7 to 14, as the lane has it.
__device__ __forceinline__ u32 table_entry(const u32* table, u32 bits) {
  u32 offset = (bits & 0x7f80u) | (threadIdx.x % 32 * 4);
  return *reinterpret_cast<const u32*>(reinterpret_cast<const char*>(table) + offset);
}

// The scales of 16 rows and two blocks, each lane one: row lane % 16, block lane / 16.
template <bool NESTED>
struct Scales {
  const u8* scale;   // of the lane's row in block 0
  const float* map;  // in shared memory
  const float* nested;
  u32 before;  // scales of the rows before
  int shift;   // from blocks of 64 to those of a scale
  int nestedShift;
  int last;  // block
  float offset;

  __device__ __forceinline__ void begin(const Weights& w, const float* sharedMap, int tile) {
    int lane = threadIdx.x % 32;
    int ofRow = w.cols >> w.blockShift;
    // Rows that only fill the last tile up have scales, but none of their own to decode them by.
    int row = min(tile * 16 + lane % 16, w.rows - 1);
    before = static_cast<u32>(row) * static_cast<u32>(ofRow);
    i64 first = static_cast<i64>(tile) * ofRow * 16 + lane % 16;
    scale = static_cast<const u8*>(w.absmax) + first * (NESTED ? 1 : 4);
    shift = w.blockShift - 6;
    last = (w.cols >> 6) - 1;
    if (NESTED) {
      map = sharedMap;
      nested = w.nested;
      nestedShift = 31 - __clz(w.nestedSize);
      offset = w.offset;
    }
  }

  __device__ __forceinline__ void fetch(u32& code, float& group, int pair) const {
    u32 block = static_cast<u32>(min(2 * pair + static_cast<int>(threadIdx.x % 32 / 16), last))
                >> shift;
    if (NESTED) {
      code = scale[block * 16];
      group = nested[(before + block) >> nestedShift];
    } else {
      code = *reinterpret_cast<const u32*>(scale + static_cast<i64>(block) * 64);
    }
  }

  __device__ __forceinline__ float decode(u32 code, float group) const {
    if (NESTED) {
      return __fadd_rn(__fmul_rn(map[code], group), offset);
    }
    return __uint_as_float(code);
  }
};

// One block of 4-bit weights times the tokens: sum += scale * (W·x).
template <int TOKEN_TILES>
__device__ __forceinline__ void multiply_tile(float sum[TOKEN_TILES][4], U4 pairs,
                                              const u32 b[TOKEN_TILES][8], const u32* table,
                                              float upperScale, float lowerScale) {
  float d[TOKEN_TILES][4];
#pragma unroll
  for (int n = 0; n < TOKEN_TILES; n++) {
    d[n][0] = d[n][1] = d[n][2] = d[n][3] = 0.f;
  }
  const u32 words[4] = {pairs.x, pairs.y, pairs.z, pairs.w};
#pragma unroll
  for (int j = 0; j < 4; j++) {
    u32 word = words[j];
    const u32 w[4] = {table_entry(table, word), table_entry(table, word >> 8),
                      table_entry(table, word >> 16),
                      table_entry(table, __funnelshift_l(word, word, 8))};
#pragma unroll
    for (int n = 0; n < TOKEN_TILES; n++) {
      mma_bf16(d[n], w, b[n] + 2 * j);
    }
  }
#pragma unroll
  for (int n = 0; n < TOKEN_TILES; n++) {
    sum[n][0] = __fmaf_rn(d[n][0], upperScale, sum[n][0]);
    sum[n][1] = __fmaf_rn(d[n][1], upperScale, sum[n][1]);
    sum[n][2] = __fmaf_rn(d[n][2], lowerScale, sum[n][2]);
    sum[n][3] = __fmaf_rn(d[n][3], lowerScale, sum[n][3]);
  }
}

// Weights of a warp on their way: a ring of stages in shared memory. A lane reads what it has copied
// itself, so that nobody waits for anybody else.
template <int WORDS, int DEPTH>
struct Ring {
  U4* stages;  // the lane's place in the first

  __device__ __forceinline__ U4* at(int stage, int word) const {
    return stages + ((stage % DEPTH) * WORDS + word) * 32;
  }

  static constexpr int BYTES = WARPS * DEPTH * WORDS * 512;

  __device__ __forceinline__ void begin(u8* memory) {
    stages = reinterpret_cast<U4*>(memory) + threadIdx.x / 32 * (DEPTH * WORDS * 32) +
             threadIdx.x % 32;
  }
};

// Shared memory of linear_tiles, in this order: the table of pairs, which the sums of the slices
// take the place of, the map of scales, the rings.
static constexpr int MAP_BYTES = 256 * 4;

// WALK false: a block sums ROW_TILES tiles of rows, each warp a slice. WALK true: each warp has
// ROW_TILES tiles of its own, and sums one slice after the other.
template <bool NESTED, int TOKEN_TILES, int ROW_TILES, bool WALK>
__device__ __forceinline__ void linear_tiles(const LinearArgs& a) {
  constexpr int DEPTH = ROW_TILES == 1 ? 4 : 2;
  DYNAMIC_SHARED(u8, memory);
  u32* table = reinterpret_cast<u32*>(memory);
  float* map = reinterpret_cast<float*>(memory + TABLE_BYTES);
  int count = selected(a.step, a.rows);
  int firstToken = blockIdx.x * TOKEN_TILES * 8;
  if (firstToken >= count) {
    return;
  }
  const Projection& p = projection_of_block(a);
  const Weights& w = p.weights;
  int warp = threadIdx.x / 32;
  int lane = threadIdx.x % 32;
  int blocks = w.cols / 64;
  int tiles = (w.rows + 15) / 16;
  int firstTile = (blockIdx.y - p.firstBlock) * ROW_TILES * (WALK ? WARPS : 1) +
                  (WALK ? warp * ROW_TILES : 0);
  int pair = WALK ? 0 : slice_begin(blocks, warp);
  int end = WALK ? (blocks + 1) / 2 : slice_begin(blocks, warp + 1);

  Ring<2 * ROW_TILES, DEPTH> ring;
  ring.begin(memory + TABLE_BYTES + MAP_BYTES);
  const U4* weights[ROW_TILES];
  Scales<NESTED> scales[ROW_TILES];
#pragma unroll
  for (int u = 0; u < ROW_TILES; u++) {
    // What is beyond the last tile repeats it, and is not written.
    int tile = min(firstTile + u, tiles - 1);
    weights[u] = static_cast<const U4*>(w.data) + static_cast<i64>(tile) * blocks * 32 + lane;
    scales[u].begin(w, map, tile);
  }
  auto ask = [&](int which) {
    if (which < end) {
#pragma unroll
      for (int u = 0; u < ROW_TILES; u++) {
        copy_async16(ring.at(which, 2 * u), weights[u] + static_cast<i64>(which) * 64);
        if (2 * which + 1 < blocks) {
          copy_async16(ring.at(which, 2 * u + 1), weights[u] + static_cast<i64>(which) * 64 + 32);
        }
      }
    }
    copy_async_commit();
  };
#pragma unroll
  for (int i = 0; i < DEPTH - 1; i++) {
    ask(pair + i);
  }
  fill_table(table, w.codebook);
  if (NESTED) {
    map[threadIdx.x] = w.map[threadIdx.x];
  }
  __syncthreads();

  Inputs<TOKEN_TILES> inputs;
  inputs.begin(a, firstToken, count);
  float sum[ROW_TILES][TOKEN_TILES][4] = {};
  float total[ROW_TILES][TOKEN_TILES][4] = {};
  float scale[ROW_TILES];
  u32 few[2][1][8];  // the inputs of up to 8 tokens, a pair ahead
  if (pair < end) {
#pragma unroll
    for (int u = 0; u < ROW_TILES; u++) {
      u32 code;
      float group;
      scales[u].fetch(code, group, pair);
      scale[u] = scales[u].decode(code, group);
    }
    if constexpr (TOKEN_TILES == 1) {
#pragma unroll
      for (int k = 0; k < 2; k++) {
        U4 raw[4];
        inputs.fetch(raw, min(2 * pair + k, blocks - 1));
        inputs.convert(few[k], raw);
      }
    }
  }
  int slice = 0;
  for (; pair < end; pair++) {
    ask(pair + DEPTH - 1);
    int next = min(pair + 1, end - 1);
    u32 code[ROW_TILES];
    float group[ROW_TILES];
#pragma unroll
    for (int u = 0; u < ROW_TILES; u++) {
      scales[u].fetch(code[u], group[u], next);
    }
    U4 raw[2][4];
    if constexpr (TOKEN_TILES == 1) {
      inputs.fetch(raw[0], 2 * next);
      inputs.fetch(raw[1], min(2 * next + 1, blocks - 1));
    }
    copy_async_wait<DEPTH - 1>();
#pragma unroll
    for (int k = 0; k < 2; k++) {
      if (k == 1 && 2 * pair + 1 == blocks) {
        break;
      }
      u32 many[TOKEN_TILES][8];
      if constexpr (TOKEN_TILES > 1) {
        inputs.load(many, 2 * pair + k);
      }
#pragma unroll
      for (int u = 0; u < ROW_TILES; u++) {
        float upper = __shfl_sync(FULL, scale[u], 16 * k + lane / 4);
        float lower = __shfl_sync(FULL, scale[u], 16 * k + 8 + lane / 4);
        if constexpr (TOKEN_TILES == 1) {
          multiply_tile<1>(sum[u], *ring.at(pair, 2 * u + k), few[k], table, upper, lower);
        } else {
          multiply_tile<TOKEN_TILES>(sum[u], *ring.at(pair, 2 * u + k), many, table, upper, lower);
        }
      }
    }
#pragma unroll
    for (int u = 0; u < ROW_TILES; u++) {
      scale[u] = scales[u].decode(code[u], group[u]);
    }
    if constexpr (TOKEN_TILES == 1) {
      inputs.convert(few[0], raw[0]);
      inputs.convert(few[1], raw[1]);
    }
    if (WALK) {
      slice = end_slice<TOKEN_TILES, ROW_TILES>(slice, pair, blocks, sum, total);
    }
  }
  copy_async_wait<0>();
  if (WALK) {
    write_totals<TOKEN_TILES, ROW_TILES>(a, p, total, firstTile * 16, firstToken, count);
  } else {
    add_slices<TOKEN_TILES, ROW_TILES>(a, p, sum, reinterpret_cast<float*>(memory),
                                       firstTile * 16, firstToken, count);
  }
}

// bf16 weights. Lane 4g + t has of rows g and g + 8 the 16 bytes of each half of a block that are
// its A fragments' pairs; rows beyond the last repeat it, and are not written.
template <int TOKEN_TILES, int ROW_TILES, bool WALK>
__device__ __forceinline__ void linear_dense(const LinearArgs& a) {
  constexpr int DEPTH = ROW_TILES == 1 ? 4 : 2;
  DYNAMIC_SHARED(u8, memory);
  int count = selected(a.step, a.rows);
  int firstToken = blockIdx.x * TOKEN_TILES * 8;
  if (firstToken >= count) {
    return;
  }
  const Projection& p = projection_of_block(a);
  const Weights& w = p.weights;
  int warp = threadIdx.x / 32;
  int lane = threadIdx.x % 32;
  int blocks = w.cols / 64;
  int firstTile = (blockIdx.y - p.firstBlock) * ROW_TILES * (WALK ? WARPS : 1) +
                  (WALK ? warp * ROW_TILES : 0);
  int block = WALK ? 0 : 2 * slice_begin(blocks, warp);
  int end = WALK ? blocks : min(2 * slice_begin(blocks, warp + 1), blocks);

  Ring<4 * ROW_TILES, DEPTH> ring;
  ring.begin(memory);
  const U4* weights[2 * ROW_TILES];
#pragma unroll
  for (int u = 0; u < 2 * ROW_TILES; u++) {
    i64 row = min(firstTile * 16 + u * 8 + lane / 4, w.rows - 1);
    weights[u] = reinterpret_cast<const U4*>(static_cast<const u16*>(w.data) + row * w.cols) +
                 lane % 4;
  }
  auto ask = [&](int which) {
    if (which < end) {
#pragma unroll
      for (int u = 0; u < 2 * ROW_TILES; u++) {
        copy_async16(ring.at(which, 2 * u), weights[u] + which * 8);
        copy_async16(ring.at(which, 2 * u + 1), weights[u] + which * 8 + 4);
      }
    }
    copy_async_commit();
  };
#pragma unroll
  for (int i = 0; i < DEPTH - 1; i++) {
    ask(block + i);
  }
  Inputs<TOKEN_TILES> inputs;
  inputs.begin(a, firstToken, count);
  float sum[ROW_TILES][TOKEN_TILES][4] = {};
  float total[ROW_TILES][TOKEN_TILES][4] = {};
  u32 b[TOKEN_TILES][8];
  if (block < end) {
    if constexpr (TOKEN_TILES == 1) {
      U4 raw[4];
      inputs.fetch(raw, block);
      inputs.convert(b, raw);
    }
  }
  int slice = 0;
  for (; block < end; block++) {
    ask(block + DEPTH - 1);
    U4 raw[4];
    if constexpr (TOKEN_TILES == 1) {
      inputs.fetch(raw, min(block + 1, end - 1));
    } else {
      inputs.load(b, block);
    }
    copy_async_wait<DEPTH - 1>();
#pragma unroll
    for (int u = 0; u < ROW_TILES; u++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        U4 upper = *ring.at(block, 4 * u + half);
        U4 lower = *ring.at(block, 4 * u + 2 + half);
        const u32 first[4] = {upper.x, lower.x, upper.y, lower.y};
        const u32 second[4] = {upper.z, lower.z, upper.w, lower.w};
#pragma unroll
        for (int n = 0; n < TOKEN_TILES; n++) {
          mma_bf16(sum[u][n], first, b[n] + 4 * half);
        }
#pragma unroll
        for (int n = 0; n < TOKEN_TILES; n++) {
          mma_bf16(sum[u][n], second, b[n] + 4 * half + 2);
        }
      }
    }
    if constexpr (TOKEN_TILES == 1) {
      inputs.convert(b, raw);
    }
    if (WALK && (block % 2 == 1 || block + 1 == blocks)) {
      slice = end_slice<TOKEN_TILES, ROW_TILES>(slice, block / 2, blocks, sum, total);
    }
  }
  copy_async_wait<0>();
  if (WALK) {
    write_totals<TOKEN_TILES, ROW_TILES>(a, p, total, firstTile * 16, firstToken, count);
  } else {
    add_slices<TOKEN_TILES, ROW_TILES>(a, p, sum, reinterpret_cast<float*>(memory),
                                       firstTile * 16, firstToken, count);
  }
}

// Tokens, then how many tiles of rows a block or, in a walk, a warp has.
#define LINEAR(tokens, tokenTiles, rowTiles, walk, minBlocks)                                    \
  KERNEL(256, minBlocks) nested_##tokens(const LinearArgs a) {                                   \
    linear_tiles<true, tokenTiles, rowTiles, walk>(a);                                           \
  }                                                                                              \
  EXPORT(nested_##tokens)                                                                        \
  KERNEL(256, minBlocks) plain_##tokens(const LinearArgs a) {                                    \
    linear_tiles<false, tokenTiles, rowTiles, walk>(a);                                          \
  }                                                                                              \
  EXPORT(plain_##tokens)                                                                         \
  KERNEL(256, minBlocks) dense_##tokens(const LinearArgs a) {                                    \
    linear_dense<tokenTiles, rowTiles, walk>(a);                                                 \
  }                                                                                              \
  EXPORT(dense_##tokens)

LINEAR(8x16, 1, 1, false, 3)
LINEAR(8x32, 1, 2, false, 2)
LINEAR(16x32, 2, 2, false, 2)
LINEAR(32x32, 4, 2, false, 2)
LINEAR(32x256, 4, 2, true, 1)

// Any matrix, in float32: a warp sums a row for up to 8 tokens. A lane has 8 neighbouring columns of
// every 256, in order; then lanes are added pairwise. Grid: tokens / 8, rows / 8 of all matrices.
KERNEL(256, 2) linear_rows(const LinearArgs a) {
  int count = selected(a.step, a.rows);
  int firstToken = blockIdx.x * 8;
  const Projection& p = projection_of_block(a);
  const Weights& w = p.weights;
  int row = (blockIdx.y - p.firstBlock) * WARPS + threadIdx.x / 32;
  if (firstToken >= count || row >= w.rows) {
    return;
  }
  int lane = threadIdx.x % 32;
  const float* x[8];
  float sum[8];
#pragma unroll
  for (int i = 0; i < 8; i++) {
    // Tokens beyond the last repeat it, and are not written.
    int token = min(firstToken + i, count - 1);
    x[i] = a.rows.x + static_cast<i64>(row_of(a.step, a.rows, token)) * a.rows.columns;
    sum[i] = 0.f;
  }
  for (int first = lane * 8; first < w.cols; first += 256) {
    int last = min(first + 8, w.cols);
    for (int k = first; k < last; k++) {
      float weight = weight_at(w, row, k);
#pragma unroll
      for (int i = 0; i < 8; i++) {
        sum[i] = __fmaf_rn(weight, x[i][k], sum[i]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 8; i++) {
    for (int by = 16; by > 0; by /= 2) {
      sum[i] = __fadd_rn(sum[i], __shfl_xor_sync(FULL, sum[i], by));
    }
    if (lane == 0 && firstToken + i < count) {
      write_sum(a, p, firstToken + i, row, sum[i]);
    }
  }
}
EXPORT(linear_rows)
