// Projections y = W·x + bias.
//
// The order of a row's sum, the same in every kernel here and for any number of tokens: the columns
// are cut into blocks of 64, two blocks are a pair, and the pairs into 8 slices. A slice sums its
// blocks in order; the slices' sums are added in order to 0. A block of 4-bit weights is summed by
// four chained mma from 0, and scaled after that; one of bf16 weights by four more mma of the chain
// that is its slice. Which columns an mma takes is said at pack_rows. Matrices that do not fit that,
// and those of float16 and float32, are summed by linear_rows.
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

// The B fragments of a lane for the four mma steps of a block: words 2j and 2j + 1 for step j. Of up
// to 8 tokens they are made from the float32 rows, read a block ahead; of more they are read, from
// packed rows, when they are used.
template <int TOKEN_TILES>
struct Inputs {
  const U4* packed;
  u32 tileStride;

  __device__ __forceinline__ Inputs(const LinearArgs& a, int firstToken, int, int) {
    int lane = threadIdx.x % 32;
    tileStride = a.rows.columns / 32 * 32;
    packed = a.rows.packed + static_cast<i64>(firstToken / 8) * tileStride + lane;
  }

  __device__ __forceinline__ void ahead(int) {}

  __device__ __forceinline__ void turn() {}

  __device__ __forceinline__ void get(u32 b[TOKEN_TILES][8], int block) const {
#pragma unroll
    for (int n = 0; n < TOKEN_TILES; n++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        U4 words = packed[n * tileStride + static_cast<u32>(block * 2 + half) * 32];
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
  const U4* row;  // where the lane's columns of the first half begin
  U4 raw[4];
  U4 words[2];

  __device__ __forceinline__ Inputs(const LinearArgs& a, int firstToken, int count, int block) {
    int lane = threadIdx.x % 32;
    // Tokens beyond the last repeat it, and are not written.
    int token = min(firstToken + lane / 4, count - 1);
    row = reinterpret_cast<const U4*>(
        a.rows.x + static_cast<i64>(row_of(a.step, a.rows, token)) * a.rows.columns + lane % 4 * 8);
    ahead(block);
    turn();
  }

  // Asks for a block.
  __device__ __forceinline__ void ahead(int block) {
    const U4* at = row + block * 16;
    raw[0] = at[0];
    raw[1] = at[1];
    raw[2] = at[8];
    raw[3] = at[9];
  }

  // What was asked for is what is got from now on.
  __device__ __forceinline__ void turn() {
    words[0] = pack8(raw[0], raw[1]);
    words[1] = pack8(raw[2], raw[3]);
  }

  __device__ __forceinline__ void get(u32 b[1][8], int) const {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      b[0][4 * half] = words[half].x;
      b[0][4 * half + 1] = words[half].y;
      b[0][4 * half + 2] = words[half].z;
      b[0][4 * half + 3] = words[half].w;
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

// Ends a slice of a walk.
template <int TOKEN_TILES, int ROW_TILES>
__device__ __forceinline__ void end_slice(float (*sum)[TOKEN_TILES][4],
                                          float (*total)[TOKEN_TILES][4]) {
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

// How many blocks a step of a loop takes, as a type.
template <int N>
struct Count {
  static constexpr int value = N;
};

// 4-bit weights.

// Pairs of codes as pairs of bf16, once for each lane: whatever 32 entries the lanes of a warp ask
// for, each asks its own bank. An entry is 128 bytes.
static constexpr int ENTRY_BYTES = 128;
static constexpr int TABLE_BYTES = 256 * ENTRY_BYTES;

__device__ __forceinline__ void fill_table(u8* table, const float* codebook) {
  // Eight threads write an entry, 16 bytes each. The second code of a thread's entries is the same.
  int first = threadIdx.x / 8;
  u32 second = to_bf16(codebook[first % 16]) << 16;
#pragma unroll
  for (int i = 0; i < 256 * 8 / THREADS; i++) {
    int entry = first + i * (THREADS / 8);
    u32 pair = to_bf16(codebook[entry / 16]) | second;
    *reinterpret_cast<U4*>(table + entry * ENTRY_BYTES + threadIdx.x % 8 * 16) = {pair, pair, pair,
                                                                                 pair};
  }
}

// The entry of the pair that is a word's byte, as the lane has it. One instruction takes the byte
// out, one makes it an address.
template <int BYTE>
__device__ __forceinline__ u32 table_entry(const u8* laneTable, u32 word) {
  return *reinterpret_cast<const u32*>(laneTable +
                                       __byte_perm(word, 0, 0x4440 + BYTE) * ENTRY_BYTES);
}

// The scales of 16 rows and two blocks, each lane one: row lane % 16, block lane / 16.
template <bool NESTED>
struct Scales {
  u32 first;   // the lane's row's scale of block 0, in scales
  u32 before;  // scales of the rows before

  __device__ __forceinline__ Scales(const Weights& w, int tile) {
    u32 row = threadIdx.x % 16;
    u32 ofTile = (w.cols >> w.blockShift) * 16;
    first = tile * ofTile + row;
    before = tile * ofTile + row * (ofTile / 16);
  }

  // Of blocks `block` and block + 1, the latter at most `last`, and of the tile that has its scales
  // so much further on.
  __device__ __forceinline__ void fetch(const Weights& w, u32& code, float& group, int block,
                                        int last, u32 further) const {
    u32 of = static_cast<u32>(min(block + static_cast<int>(threadIdx.x % 32 / 16), last)) >>
             (w.blockShift - 6);
    if (NESTED) {
      code = static_cast<const u8*>(w.absmax)[first + further + of * 16];
      group = w.nested[(before + further + of) >> (31 - __clz(w.nestedSize))];
    } else {
      code = static_cast<const u32*>(w.absmax)[first + further + of * 16];
    }
  }

  __device__ __forceinline__ static float decode(const Weights& w, const float* map, u32 code,
                                                 float group) {
    if (NESTED) {
      return __fadd_rn(__fmul_rn(map[code], group), w.offset);
    }
    return __uint_as_float(code);
  }
};

// One block of 4-bit weights times the tokens: sum += scale * (W·x).
template <int TOKEN_TILES>
__device__ __forceinline__ void multiply_tile(float sum[TOKEN_TILES][4], U4 pairs,
                                              const u32 b[TOKEN_TILES][8], const u8* laneTable,
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
    const u32 w[4] = {table_entry<0>(laneTable, word), table_entry<1>(laneTable, word),
                      table_entry<2>(laneTable, word), table_entry<3>(laneTable, word)};
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

  __device__ __forceinline__ U4* at(u32 stage, int word) const {
    return stages + ((stage & (DEPTH - 1)) * WORDS + word) * 32;
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
  // Pairs on their way: as many as make up for how few blocks fit a multiprocessor.
  constexpr int DEPTH = ROW_TILES == 1 || TOKEN_TILES > 2 ? 4 : 2;
  DYNAMIC_SHARED(u8, memory);
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
  int block = WALK ? 0 : 2 * slice_begin(blocks, warp);
  int end = WALK ? blocks : min(2 * slice_begin(blocks, warp + 1), blocks);

  Ring<2 * ROW_TILES, DEPTH> ring;
  ring.begin(memory + TABLE_BYTES + MAP_BYTES);
  const U4* weights = static_cast<const U4*>(w.data) +
                      static_cast<i64>(min(firstTile, tiles - 1)) * blocks * 32 + lane;
  Scales<NESTED> scales(w, min(firstTile, tiles - 1));
  // What is beyond the last tile repeats it, and is not written.
  u32 tileStride = firstTile + 1 < tiles ? blocks * 32 : 0;
  u32 scaleStride = tileStride >> (w.blockShift - 5);
  auto ask = [&](int first) {
    u32 stage = static_cast<u32>(first) >> 1;
#pragma unroll
    for (int u = 0; u < ROW_TILES; u++) {
#pragma unroll
      for (int k = 0; k < 2; k++) {
        if (first + k < end) {
          copy_async16(ring.at(stage, 2 * u + k),
                       weights + (u * tileStride + static_cast<u32>(first + k) * 32));
        }
      }
    }
    copy_async_commit();
  };
#pragma unroll
  for (int i = 0; i < DEPTH - 1; i++) {
    ask(block + 2 * i);
  }
  fill_table(memory, w.codebook);
  if (NESTED) {
    map[threadIdx.x] = w.map[threadIdx.x];
  }
  __syncthreads();

  const u8* laneTable = memory + lane * 4;
  Inputs<TOKEN_TILES> inputs(a, firstToken, count, min(block, blocks - 1));
  float sum[ROW_TILES][TOKEN_TILES][4] = {};
  float total[ROW_TILES][TOKEN_TILES][4] = {};
  float scale[ROW_TILES];  // read a pair of blocks ahead
  if (block < end) {
#pragma unroll
    for (int u = 0; u < ROW_TILES; u++) {
      u32 code;
      float group;
      scales.fetch(w, code, group, block, blocks - 1, u * scaleStride);
      scale[u] = scales.decode(w, map, code, group);
    }
  }
  auto step = [&](auto blocksOfStep) {
    constexpr int BLOCKS = decltype(blocksOfStep)::value;
    ask(block + 2 * (DEPTH - 1));
    u32 code[ROW_TILES];
    float group[ROW_TILES];
#pragma unroll
    for (int u = 0; u < ROW_TILES; u++) {
      scales.fetch(w, code[u], group[u], min(block + 2, blocks - 1), blocks - 1,
                   u * scaleStride);
    }
    inputs.ahead(min(block + 1, blocks - 1));
    copy_async_wait<DEPTH - 1>();
    u32 stage = static_cast<u32>(block) >> 1;
    // Of many tokens the inputs of two blocks at once would be more than there are registers.
#pragma unroll(TOKEN_TILES > 1 ? 1 : 2)
    for (int k = 0; k < BLOCKS; k++) {
      if (k == 1) {
        inputs.ahead(min(block + 2, blocks - 1));
      }
      u32 b[TOKEN_TILES][8];
      inputs.get(b, block + k);
#pragma unroll
      for (int u = 0; u < ROW_TILES; u++) {
        float upper = __shfl_sync(FULL, scale[u], 16 * k + lane / 4);
        float lower = __shfl_sync(FULL, scale[u], 16 * k + 8 + lane / 4);
        U4 pairs = *ring.at(stage, 2 * u + k);
        multiply_tile<TOKEN_TILES>(sum[u], pairs, b, laneTable, upper, lower);
      }
      inputs.turn();
    }
#pragma unroll
    for (int u = 0; u < ROW_TILES; u++) {
      scale[u] = scales.decode(w, map, code[u], group[u]);
    }
    block += BLOCKS;
  };
  auto sum_to = [&](int sliceEnd) {
#pragma unroll 1
    while (block + 2 <= sliceEnd) {
      step(Count<2>());
    }
    if (block < sliceEnd) {
      step(Count<1>());
    }
  };
  if (WALK) {
#pragma unroll 1
    for (int slice = 1; slice <= SLICES; slice++) {
      sum_to(min(2 * slice_begin(blocks, slice), blocks));
      end_slice<TOKEN_TILES, ROW_TILES>(sum, total);
    }
  } else {
    sum_to(end);
  }
  copy_async_wait<0>();
  // Read again rather than kept in a register all the while.
  count = selected(a.step, a.rows);
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
  Inputs<TOKEN_TILES> inputs(a, firstToken, count, min(block, blocks - 1));
  float sum[ROW_TILES][TOKEN_TILES][4] = {};
  float total[ROW_TILES][TOKEN_TILES][4] = {};
  auto step = [&](auto blocksOfStep) {
    constexpr int BLOCKS = decltype(blocksOfStep)::value;
#pragma unroll
    for (int k = 0; k < BLOCKS; k++) {
      ask(block + DEPTH - 1);
      inputs.ahead(min(block + 1, blocks - 1));
      u32 b[TOKEN_TILES][8];
      inputs.get(b, block);
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
      inputs.turn();
      block++;
    }
  };
  auto sum_to = [&](int sliceEnd) {
#pragma unroll 1
    while (block + 2 <= sliceEnd) {
      step(Count<2>());
    }
    if (block < sliceEnd) {
      step(Count<1>());
    }
  };
  if (WALK) {
#pragma unroll 1
    for (int slice = 1; slice <= SLICES; slice++) {
      sum_to(min(2 * slice_begin(blocks, slice), blocks));
      end_slice<TOKEN_TILES, ROW_TILES>(sum, total);
    }
  } else {
    sum_to(end);
  }
  copy_async_wait<0>();
  // Read again rather than kept in a register all the while.
  count = selected(a.step, a.rows);
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

LINEAR(8x16, 1, 1, false, 2)
LINEAR(8x32, 1, 2, false, 2)
LINEAR(16x32, 2, 2, false, 2)
LINEAR(32x32, 4, 2, false, 1)
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
