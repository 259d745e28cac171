// Rotary embedding, and attention over the paged cache of keys and values.
#include "wardrobe.cuh"

// The cache: block b begins at cache + b * blockBytes, where `cache` is already at the layer's first
// head; each head has its keys, (16 positions, size), and then its values, the same.

struct RopeArgs {
  StepTables step;
  float* q;
  const float* k;
  const float* v;
  const float* cos;  // (positions, size / 2)
  const float* sin;
  u8* cache;
  int blockBytes;
  int f32;  // whether the cache holds float32; bf16 otherwise
  int queries;
  int keyValues;
  int size;
};

__device__ __forceinline__ void store_element(const RopeArgs& a, u8* head, int at, float x) {
  if (a.f32) {
    reinterpret_cast<float*>(head)[at] = x;
  } else {
    reinterpret_cast<u16*>(head)[at] = static_cast<u16>(to_bf16(x));
  }
}

// Rotates q in place, and k on its way to the cache; v goes there as it is. A thread has elements i
// and i + size / 2 of a head. Grid: ((queries + 2 * keyValues) * size / 2 / 256, rows).
KERNEL(256, 1) rope(const RopeArgs a) {
  int half = a.size / 2;
  int item = blockIdx.x * blockDim.x + threadIdx.x;
  int row = blockIdx.y;
  if (row >= a.step.counts[TOKENS] || item >= (a.queries + 2 * a.keyValues) * half) {
    return;
  }
  int head = item / half;
  int i = item % half;
  int position = a.step.position[row];
  int kvHead = (head - a.queries) % a.keyValues;
  bool isValue = head >= a.queries + a.keyValues;
  bool isQuery = head < a.queries;
  const float* x = isQuery   ? a.q + (static_cast<i64>(row) * a.queries + head) * a.size
                   : isValue ? a.v + (static_cast<i64>(row) * a.keyValues + kvHead) * a.size
                             : a.k + (static_cast<i64>(row) * a.keyValues + kvHead) * a.size;
  float first = x[i];
  float second = x[i + half];
  if (!isValue) {
    float cos = a.cos[static_cast<i64>(position) * half + i];
    float sin = a.sin[static_cast<i64>(position) * half + i];
    float rotated = __fsub_rn(__fmul_rn(first, cos), __fmul_rn(second, sin));
    second = __fadd_rn(__fmul_rn(second, cos), __fmul_rn(first, sin));
    first = rotated;
  }
  if (isQuery) {
    float* to = a.q + (static_cast<i64>(row) * a.queries + head) * a.size;
    to[i] = first;
    to[i + half] = second;
    return;
  }
  int block = a.step.blocks[a.step.runs[a.step.runOf[row]].blocks + position / BLOCK_TOKENS];
  i64 halfHead = static_cast<i64>(BLOCK_TOKENS) * a.size * (a.f32 ? 4 : 2);
  u8* to = a.cache + static_cast<i64>(block) * a.blockBytes + (2 * kvHead + isValue) * halfHead;
  int at = position % BLOCK_TOKENS * a.size;
  store_element(a, to, at + i, first);
  store_element(a, to, at + i + half, second);
}
EXPORT(rope)

/*
 * Attention. A block has a tile of up to 16 * TILES pairs of a token and a query head, all of one KV
 * head and one run: the heads of the first token, then those of the next. They are the rows of the
 * tensor cores' products. It walks the keys in blocks of 64 from the sequence's start:
 *
 *   s[p] = (q·k[p]) * scale;  m' = max(m, max s);  f = exp(m - m')
 *   w[p] = bf16(exp(s[p] - m')), or 0 where the row does not see p
 *   z = fma(z, f, Σ w);  o = o * f + Σ w[p] * v[p]
 *
 * with q, k, v in bf16 and all else in float32. m, z and o begin anew at each chunk of 256 positions
 * of the sequence, and chunks are joined in ascending order, by `join` below: either by the block
 * itself, which then walks all of them ("whole"), or by another kernel, where each chunk has a block
 * of its own ("split"). So a row's bits are the same both ways. They do not depend on the tile
 * either: keys that only its other rows see have weight 0, and leave m, z and o as they are.
 *
 * That holds as long as what is weighed 0 is finite. What no row of the tile sees is read as zero.
 * If an output of a tile is not finite, the tile is walked once more, carefully: products are taken
 * with the values that are finite, and each row gets those that are not and that it sees one by one.
 *
 * The four warps divide a block of keys by 16 for the scores, and the elements of a head by 16 for
 * the sum of values; weights go through shared memory in between. Rows of shared memory are 16 bytes
 * longer than their contents, an odd number of 16-byte units: the eight rows that ldmatrix reads at
 * once, at the same column, are then in different banks, as are the rows of a copy.
 */

struct AttendArgs {
  StepTables step;
  const float* q;
  float* out;
  const u8* cache;
  float* sums;    // split: (rows, chunks, queries, size), o of each chunk; null: whole
  float* states;  // split: (rows, chunks, queries, 2), m and z of each chunk
  int blockBytes;
  int f32;
  int queries;
  int keyValues;
  int size;
  float scale;
  int window;
  int fromRow;  // the tiles that begin in these rows
  int toRow;
  int span;      // rows among which each block looks for the beginnings of tiles
  int leastRun;  // only runs of so many tokens
  int mostRun;
  int chunks;
};

static constexpr int CHUNK = 256;
static constexpr int KEYS = 64;
static constexpr int WARPS = 4;
static constexpr int ATTEND_THREADS = 32 * WARPS;
static constexpr int PADDING = 8;
static constexpr float LOWEST = -0x1.fffffep127f;

// The shared memory of a block, for heads of up to D elements. Attention.java knows its size.
template <int D, int TILES, int STAGES>
struct AttendSpace {
  u16 keys[STAGES][KEYS][D + PADDING];
  u16 values[STAGES][KEYS][D + PADDING];
  u16 queries[16 * TILES][D + PADDING];
  u16 weights[16 * TILES][KEYS + PADDING];
  float largest[WARPS][16 * TILES];
  float sums[WARPS][16 * TILES];
};

// Rows of a run that begin at `row`, with the heads [head, head + heads): row i of the tile is head
// i % heads of token i / heads.
struct QueryTile {
  int row;
  int tokens;
  int position;  // of the first token
  int head;
  int heads;
  int kvHead;
  int begin;  // the positions that any row sees
  int end;
  const int* blocks;

  __device__ __forceinline__ bool has(int i) const { return i < tokens * heads; }

  __device__ __forceinline__ int position_of(int i) const {
    return has(i) ? position + i / heads : -1;
  }
};

__device__ __forceinline__ int first_seen(int position, int window) {
  return window == 0 ? 0 : max(0, position + 1 - window);
}

__device__ __forceinline__ bool sees(int query, int position, int window) {
  return position <= query && (window == 0 || position > query - window);
}

// Joins the state of a chunk to that of the chunks before it: factors of what was summed.
__device__ __forceinline__ void join(float& max, float& sum, float m, float z, float& before,
                                     float& here) {
  float larger = m > max ? m : max;
  before = exp_exact(__fsub_rn(max, larger));
  here = exp_exact(__fsub_rn(m, larger));
  max = larger;
  sum = __fmaf_rn(z, here, __fmul_rn(sum, before));
}

__device__ __forceinline__ float joined(float sums, float o, float before, float here) {
  return __fmaf_rn(o, here, __fmul_rn(sums, before));
}

__device__ __forceinline__ bool is_finite(float x) {
  return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u;
}

// A pair of bf16 with zeros for what is not finite.
__device__ __forceinline__ u32 finite_pair(u32 pair) {
  u32 kept = (pair & 0x7f80u) == 0x7f80u ? pair & 0xffff0000u : pair;
  return (pair & 0x7f800000u) == 0x7f800000u ? kept & 0xffffu : kept;
}

template <int D, int TILES, int STAGES>
__device__ __forceinline__ void load_queries(const AttendArgs& a, const QueryTile& tile,
                                             AttendSpace<D, TILES, STAGES>& space) {
#pragma unroll 2
  for (int at = threadIdx.x; at < 16 * TILES * (D / 2); at += ATTEND_THREADS) {
    int i = at / (D / 2);
    int d = at % (D / 2) * 2;
    u32 pair = 0;
    if (tile.has(i) && d < a.size) {
      i64 row = tile.row + i / tile.heads;
      int head = tile.head + i % tile.heads;
      float2 x = *reinterpret_cast<const float2*>(a.q + (row * a.queries + head) * a.size + d);
      pair = pack_bf16(x.x, x.y);
    }
    *reinterpret_cast<u32*>(&space.queries[i][d]) = pair;
  }
}

// Begins to bring the keys and values of positions from `first` on; zeros for what nobody sees.
template <int D, int TILES, int STAGES>
__device__ __forceinline__ void load_keys(const AttendArgs& a, const QueryTile& tile, int first,
                                          AttendSpace<D, TILES, STAGES>& space, int stage) {
  i64 half = static_cast<i64>(BLOCK_TOKENS) * a.size;
  if (!a.f32 && a.size % 8 == 0) {
    const u8* head = a.cache + tile.kvHead * half * 4;
#pragma unroll 4
    for (int at = threadIdx.x; at < KEYS * (D / 8); at += ATTEND_THREADS) {
      int key = at / (D / 8);
      int d = at % (D / 8) * 8;
      int position = first + key;
      void* k = &space.keys[stage][key][d];
      void* v = &space.values[stage][key][d];
      if (position >= tile.begin && position < tile.end && d < a.size) {
        i64 block = tile.blocks[position / BLOCK_TOKENS];
        const u8* from = head + block * a.blockBytes + (position % BLOCK_TOKENS * a.size + d) * 2;
        copy_async16(k, from);
        copy_async16(v, from + half * 2);
      } else {
        *static_cast<U4*>(k) = U4{0, 0, 0, 0};
        *static_cast<U4*>(v) = U4{0, 0, 0, 0};
      }
    }
  } else {
    // Rows that are not of whole 16 bytes, or must be rounded first: by pairs, through registers.
    int bytes = a.f32 ? 4 : 2;
    const u8* head = a.cache + tile.kvHead * half * 2 * bytes;
#pragma unroll 2
    for (int at = threadIdx.x; at < KEYS * (D / 2); at += ATTEND_THREADS) {
      int key = at / (D / 2);
      int d = at % (D / 2) * 2;
      int position = first + key;
      u32 k = 0;
      u32 v = 0;
      if (position >= tile.begin && position < tile.end && d < a.size) {
        i64 block = tile.blocks[position / BLOCK_TOKENS];
        const u8* from =
            head + block * a.blockBytes + (position % BLOCK_TOKENS * a.size + d) * bytes;
        if (a.f32) {
          float2 x = *reinterpret_cast<const float2*>(from);
          float2 y = *reinterpret_cast<const float2*>(from + half * 4);
          k = pack_bf16(x.x, x.y);
          v = pack_bf16(y.x, y.y);
        } else {
          k = *reinterpret_cast<const u32*>(from);
          v = *reinterpret_cast<const u32*>(from + half * 2);
        }
      }
      *reinterpret_cast<u32*>(&space.keys[stage][key][d]) = k;
      *reinterpret_cast<u32*>(&space.values[stage][key][d]) = v;
    }
  }
  copy_async_commit();
}

// What a thread has of the tile's rows: lane 4g + t those with g and g + 8 of each 16. Of their
// sums it has elements 16 * (warp + 4u) + 8n + 2t and the next, as o[tile][u][n], first of row g.
template <int D, int TILES>
struct RowSums {
  static constexpr int UNITS = (D + 63) / 64;
  float m[TILES][2];
  float z[TILES][2];
  float o[TILES][UNITS][2][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < TILES; i++) {
      m[i][0] = m[i][1] = LOWEST;
      z[i][0] = z[i][1] = 0.f;
#pragma unroll
      for (int u = 0; u < UNITS; u++) {
#pragma unroll
        for (int e = 0; e < 8; e++) {
          o[i][u][e / 4][e % 4] = 0.f;
        }
      }
    }
  }
};

// Scores of the warp's 16 keys for all rows, as fragments: s[tile][n] of keys 8n + 2t and the next.
template <int D, int TILES, int STAGES>
__device__ __forceinline__ void score(const AttendSpace<D, TILES, STAGES>& space, int stage,
                                      float s[TILES][2][4]) {
  int lane = threadIdx.x % 32;
  int warp = threadIdx.x / 32;
#pragma unroll
  for (int i = 0; i < TILES; i++) {
#pragma unroll
    for (int e = 0; e < 8; e++) {
      s[i][e / 4][e % 4] = 0.f;
    }
  }
  const u16* key = &space.keys[stage][warp * 16 + lane % 8 + lane / 16 * 8][lane / 8 % 2 * 8];
  const u16* query = &space.queries[lane % 16][lane / 16 * 8];
#pragma unroll 4
  for (int d = 0; d < D; d += 16) {
    u32 k[4];
    ldmatrix_x4(k, key + d);
#pragma unroll
    for (int i = 0; i < TILES; i++) {
      u32 q[4];
      ldmatrix_x4(q, query + i * 16 * (D + PADDING) + d);
      mma_bf16(s[i][0], q, k);
      mma_bf16(s[i][1], q, k + 2);
    }
  }
}

// Scales the scores, and writes down the largest of each row that the warp has seen.
template <int D, int TILES, int STAGES>
__device__ __forceinline__ void find_largest(const AttendArgs& a, const int position[TILES][2],
                                             int first, bool edge, float s[TILES][2][4],
                                             AttendSpace<D, TILES, STAGES>& space) {
  int lane = threadIdx.x % 32;
  int warp = threadIdx.x / 32;
#pragma unroll
  for (int i = 0; i < TILES; i++) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float largest = LOWEST;
#pragma unroll
      for (int e = 0; e < 4; e++) {
        float x = __fmul_rn(s[i][e / 2][2 * h + e % 2], a.scale);
        s[i][e / 2][2 * h + e % 2] = x;
        int key = first + warp * 16 + e / 2 * 8 + lane % 4 * 2 + e % 2;
        // What is no number is not the largest: it shows in the sums.
        largest = x > largest && (!edge || sees(position[i][h], key, a.window)) ? x : largest;
      }
#pragma unroll
      for (int by = 1; by < 4; by *= 2) {
        float other = __shfl_xor_sync(FULL, largest, by);
        largest = other > largest ? other : largest;
      }
      if (lane % 4 == 0) {
        space.largest[warp][i * 16 + h * 8 + lane / 4] = largest;
      }
    }
  }
}

// Weighs the warp's keys by what is the largest of each row now; f is what that makes of its sums.
template <int D, int TILES, int STAGES>
__device__ __forceinline__ void weigh(const AttendArgs& a, const int position[TILES][2], int first,
                                      bool edge, const float s[TILES][2][4],
                                      RowSums<D, TILES>& rows, float f[TILES][2],
                                      AttendSpace<D, TILES, STAGES>& space) {
  int lane = threadIdx.x % 32;
  int warp = threadIdx.x / 32;
#pragma unroll
  for (int i = 0; i < TILES; i++) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      int row = i * 16 + h * 8 + lane / 4;
      float m = rows.m[i][h];
#pragma unroll
      for (int w = 0; w < WARPS; w++) {
        float other = space.largest[w][row];
        m = other > m ? other : m;
      }
      f[i][h] = exp_exact(__fsub_rn(rows.m[i][h], m));
      rows.m[i][h] = m;
      float sum = 0.f;
#pragma unroll
      for (int n = 0; n < 2; n++) {
        int key = warp * 16 + n * 8 + lane % 4 * 2;
        float w[2];
#pragma unroll
        for (int e = 0; e < 2; e++) {
          w[e] = exp_exact(__fsub_rn(s[i][n][2 * h + e], m));
          w[e] = edge && !sees(position[i][h], first + key + e, a.window) ? 0.f : w[e];
        }
        // The sum is that of the weights as they will be multiplied.
        u32 pair = pack_bf16(w[0], w[1]);
        *reinterpret_cast<u32*>(&space.weights[row][key]) = pair;
        sum = __fadd_rn(sum, __fadd_rn(low_bf16(pair), high_bf16(pair)));
      }
      sum = __fadd_rn(sum, __shfl_xor_sync(FULL, sum, 1));
      sum = __fadd_rn(sum, __shfl_xor_sync(FULL, sum, 2));
      if (lane % 4 == 0) {
        space.sums[warp][row] = sum;
      }
    }
  }
}

// Adds to each row's sums what it sees of the values that are not finite.
template <int D, int TILES, int STAGES>
__device__ void add_unbounded(const AttendArgs& a, const int position[TILES][2], int first,
                              const AttendSpace<D, TILES, STAGES>& space, int stage,
                              RowSums<D, TILES>& rows) {
  int lane = threadIdx.x % 32;
  int warp = threadIdx.x / 32;
#pragma unroll
  for (int u = 0; u < RowSums<D, TILES>::UNITS; u++) {
    if ((warp + WARPS * u) * 16 < D) {
#pragma unroll
      for (int n = 0; n < 2; n++) {
        int d = (warp + WARPS * u) * 16 + n * 8 + lane % 4 * 2;
#pragma unroll 1
        for (int key = 0; key < KEYS; key++) {
          u32 pair = *reinterpret_cast<const u32*>(&space.values[stage][key][d]);
          float v[2] = {low_bf16(pair), high_bf16(pair)};
#pragma unroll
          for (int i = 0; i < TILES; i++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
              if (!is_finite(v[e % 2]) && sees(position[i][e / 2], first + key, a.window)) {
                float w = low_bf16(space.weights[i * 16 + e / 2 * 8 + lane / 4][key]);
                rows.o[i][u][n][e] = __fmaf_rn(w, v[e % 2], rows.o[i][u][n][e]);
              }
            }
          }
        }
      }
    }
  }
}

// Adds a block of values by their weights.
template <int D, int TILES, int STAGES>
__device__ __forceinline__ void add_values(const AttendSpace<D, TILES, STAGES>& space, int stage,
                                           const float f[TILES][2], bool careful,
                                           RowSums<D, TILES>& rows) {
  constexpr int UNITS = RowSums<D, TILES>::UNITS;
  int lane = threadIdx.x % 32;
  int warp = threadIdx.x / 32;
#pragma unroll
  for (int i = 0; i < TILES; i++) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      int row = i * 16 + h * 8 + lane / 4;
      float sum = __fadd_rn(__fadd_rn(space.sums[0][row], space.sums[1][row]),
                            __fadd_rn(space.sums[2][row], space.sums[3][row]));
      rows.z[i][h] = __fmaf_rn(rows.z[i][h], f[i][h], sum);
    }
#pragma unroll
    for (int u = 0; u < UNITS; u++) {
#pragma unroll
      for (int e = 0; e < 8; e++) {
        rows.o[i][u][e / 4][e % 4] = __fmul_rn(rows.o[i][u][e / 4][e % 4], f[i][e % 4 / 2]);
      }
    }
  }
  const u16* weight = &space.weights[lane % 16][lane / 16 * 8];
#pragma unroll 2
  for (int key = 0; key < KEYS; key += 16) {
    u32 w[TILES][4];
#pragma unroll
    for (int i = 0; i < TILES; i++) {
      ldmatrix_x4(w[i], weight + i * 16 * (KEYS + PADDING) + key);
    }
#pragma unroll
    for (int u = 0; u < UNITS; u++) {
      int d = (warp + WARPS * u) * 16;
      if (d < D) {
        u32 v[4];
        ldmatrix_x4_trans(v, &space.values[stage][key + lane % 16][d + lane / 16 * 8]);
        if (careful) {
#pragma unroll
          for (int e = 0; e < 4; e++) {
            v[e] = finite_pair(v[e]);
          }
        }
#pragma unroll
        for (int i = 0; i < TILES; i++) {
          mma_bf16(rows.o[i][u][0], w[i], v);
          mma_bf16(rows.o[i][u][1], w[i], v + 2);
        }
      }
    }
  }
}

// The sums over the chunks before this one. Those of values are in `out` meanwhile.
template <int TILES>
struct Joined {
  float max[TILES][2];
  float sum[TILES][2];
};

// Ends a chunk: writes its state for the kernel that joins them, or joins it to those before it,
// and after a row's last one writes its output. Whether all that was written is finite.
template <int D, int TILES>
__device__ __forceinline__ bool end_chunk(const AttendArgs& a, const QueryTile& tile, int chunk,
                                          const int position[TILES][2],
                                          const RowSums<D, TILES>& rows, Joined<TILES>& before) {
  int lane = threadIdx.x % 32;
  int warp = threadIdx.x / 32;
  bool allFinite = true;
#pragma unroll
  for (int i = 0; i < TILES; i++) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      int at = i * 16 + h * 8 + lane / 4;
      int firstChunk = first_seen(position[i][h], a.window) / CHUNK;
      int lastChunk = position[i][h] / CHUNK;
      if (position[i][h] < 0 || chunk < firstChunk || chunk > lastChunk) {
        continue;
      }
      i64 row = tile.row + at / tile.heads;
      int head = tile.head + at % tile.heads;
      float* to = a.out + (row * a.queries + head) * a.size;
      float fromBefore = 0.f;
      float fromHere = 1.f;
      float inverse = 1.f;
      bool joins = false;
      if (a.sums != nullptr) {
        i64 state = ((row - a.fromRow) * a.chunks + chunk) * a.queries + head;
        to = a.sums + state * a.size;
        if (warp == 0 && lane % 4 == 0) {
          a.states[2 * state] = rows.m[i][h];
          a.states[2 * state + 1] = rows.z[i][h];
        }
      } else {
        joins = chunk > firstChunk;
        if (joins) {
          join(before.max[i][h], before.sum[i][h], rows.m[i][h], rows.z[i][h], fromBefore,
               fromHere);
        } else {
          before.max[i][h] = rows.m[i][h];
          before.sum[i][h] = rows.z[i][h];
        }
        if (chunk == lastChunk) {
          inverse = __fdiv_rn(1.f, before.sum[i][h]);
        }
      }
#pragma unroll
      for (int u = 0; u < RowSums<D, TILES>::UNITS; u++) {
#pragma unroll
        for (int n = 0; n < 2; n++) {
          int d = (warp + WARPS * u) * 16 + n * 8 + lane % 4 * 2;
          if (d < a.size) {
            // A sum of nothing but zeros may have got either sign: that of keys that others see.
            float2 o;
            o.x = __fadd_rn(rows.o[i][u][n][2 * h], 0.f);
            o.y = __fadd_rn(rows.o[i][u][n][2 * h + 1], 0.f);
            float2* place = reinterpret_cast<float2*>(to + d);
            if (joins) {
              float2 sums = *place;
              o.x = joined(sums.x, o.x, fromBefore, fromHere);
              o.y = joined(sums.y, o.y, fromBefore, fromHere);
            }
            if (a.sums == nullptr && chunk == lastChunk) {
              o.x = __fmul_rn(o.x, inverse);
              o.y = __fmul_rn(o.y, inverse);
            }
            allFinite = allFinite && is_finite(o.x) && is_finite(o.y);
            *place = o;
          }
        }
      }
    }
  }
  return allFinite;
}

// Walks the keys of chunks `firstChunk` to `lastChunk`. Whether what was written is finite.
template <int D, int TILES, int STAGES>
__device__ __forceinline__ bool walk(const AttendArgs& a, const QueryTile& tile, int firstChunk,
                                     int lastChunk, const int position[TILES][2], bool careful,
                                     AttendSpace<D, TILES, STAGES>& space) {
  int from = max(tile.begin / KEYS * KEYS, firstChunk * CHUNK);
  int to = min(tile.end, (lastChunk + 1) * CHUNK);
  bool allFinite = true;
  RowSums<D, TILES> rows;
  Joined<TILES> before = {};
  rows.clear();
  load_keys(a, tile, from, space, 0);
  int stage = 0;
  for (int first = from; first < to; first += KEYS) {
    copy_async_wait<0>();
    __syncthreads();
    if (STAGES == 2 && first + KEYS < to) {
      load_keys(a, tile, first + KEYS, space, stage ^ 1);
    }
    // Whether some row does not see some key.
    bool edge = first + KEYS - 1 > tile.position ||
                first < first_seen(tile.position + tile.tokens - 1, a.window);
    float s[TILES][2][4];
    float f[TILES][2];
    score<D, TILES, STAGES>(space, stage, s);
    find_largest<D, TILES, STAGES>(a, position, first, edge, s, space);
    __syncthreads();
    weigh<D, TILES, STAGES>(a, position, first, edge, s, rows, f, space);
    __syncthreads();
    add_values<D, TILES, STAGES>(space, stage, f, careful, rows);
    if (careful) {
      add_unbounded<D, TILES, STAGES>(a, position, first, space, stage, rows);
    }
    if ((first + KEYS) % CHUNK == 0 || first + KEYS >= to) {
      bool ended = end_chunk<D, TILES>(a, tile, first / CHUNK, position, rows, before);
      allFinite = allFinite && ended;
      rows.clear();
    }
    if (STAGES == 2) {
      stage ^= 1;
    } else if (first + KEYS < to) {
      __syncthreads();
      load_keys(a, tile, first + KEYS, space, stage);
    }
  }
  return allFinite;
}

// Grid: (KV heads * the tiles that a token's heads need, span rows each, chunks if they are split).
template <int D, int TILES, int STAGES>
__device__ __forceinline__ void attend(const AttendArgs& a) {
  using Space = AttendSpace<D, TILES, STAGES>;
  DYNAMIC_SHARED(Space, space);
  int group = a.queries / a.keyValues;
  int heads = min(group, 16 * TILES);
  int tokens = 16 * TILES / heads;
  int parts = (group + heads - 1) / heads;
  QueryTile tile;
  tile.kvHead = blockIdx.x / parts;
  int part = blockIdx.x % parts;
  tile.head = tile.kvHead * group + part * heads;
  tile.heads = min(heads, group - part * heads);
  int row = a.fromRow + blockIdx.y * a.span;
  int end = min(min(row + a.span, a.toRow), a.step.counts[TOKENS]);
  while (row < end) {
    Run run = a.step.runs[a.step.runOf[row]];
    int length = run.to - run.from;
    // The first tile of the run that begins at this row or after it.
    tile.row = run.from + (row - run.from + tokens - 1) / tokens * tokens;
    if (length < a.leastRun || length > a.mostRun || tile.row >= run.to) {
      row = run.to;
      continue;
    }
    if (tile.row >= end) {
      return;
    }
    row = tile.row + 1;
    tile.tokens = min(tokens, run.to - tile.row);
    tile.position = run.position + tile.row - run.from;
    tile.begin = first_seen(tile.position, a.window);
    tile.end = tile.position + tile.tokens;
    tile.blocks = a.step.blocks + run.blocks;
    int firstChunk = tile.begin / CHUNK;
    int lastChunk = (tile.end - 1) / CHUNK;
    if (a.sums != nullptr) {
      int chunk = blockIdx.z;
      if (chunk < firstChunk || chunk > lastChunk) {
        continue;
      }
      firstChunk = lastChunk = chunk;
    }
    int position[TILES][2];
#pragma unroll
    for (int i = 0; i < 2 * TILES; i++) {
      position[i / 2][i % 2] = tile.position_of(i * 8 + threadIdx.x % 32 / 4);
    }
    __syncthreads();
    load_queries(a, tile, *space);
    bool careful = false;
    while (true) {
      bool allFinite =
          walk<D, TILES, STAGES>(a, tile, firstChunk, lastChunk, position, careful, *space);
      if (__syncthreads_and(allFinite) || careful) {
        break;
      }
      careful = true;
    }
  }
}

// For the tiles of short runs, of 16 rows, and of long ones.
KERNEL(128, 2) attend_short_32(const AttendArgs a) { attend<32, 1, 2>(a); }
EXPORT(attend_short_32)
KERNEL(128, 2) attend_short_64(const AttendArgs a) { attend<64, 1, 2>(a); }
EXPORT(attend_short_64)
KERNEL(128, 2) attend_short_80(const AttendArgs a) { attend<80, 1, 2>(a); }
EXPORT(attend_short_80)
KERNEL(128, 2) attend_short_96(const AttendArgs a) { attend<96, 1, 2>(a); }
EXPORT(attend_short_96)
KERNEL(128, 2) attend_short_128(const AttendArgs a) { attend<128, 1, 2>(a); }
EXPORT(attend_short_128)
KERNEL(128, 2) attend_short_256(const AttendArgs a) { attend<256, 1, 1>(a); }
EXPORT(attend_short_256)
KERNEL(128, 2) attend_long_32(const AttendArgs a) { attend<32, 4, 2>(a); }
EXPORT(attend_long_32)
KERNEL(128, 2) attend_long_64(const AttendArgs a) { attend<64, 4, 2>(a); }
EXPORT(attend_long_64)
KERNEL(128, 2) attend_long_80(const AttendArgs a) { attend<80, 4, 2>(a); }
EXPORT(attend_long_80)
KERNEL(128, 2) attend_long_96(const AttendArgs a) { attend<96, 4, 2>(a); }
EXPORT(attend_long_96)
KERNEL(128, 2) attend_long_128(const AttendArgs a) { attend<128, 4, 2>(a); }
EXPORT(attend_long_128)
KERNEL(128, 2) attend_long_256(const AttendArgs a) { attend<256, 2, 1>(a); }
EXPORT(attend_long_256)

struct JoinArgs {
  StepTables step;
  const float* sums;
  const float* states;
  float* out;
  int queries;
  int size;
  int window;
  int fromRow;
  int toRow;
  int tileTokens;
  int mostRun;
  int chunks;
};

// Joins the chunks of rows whose tiles begin in the given ones. Grid: (queries, rows).
KERNEL(128, 4) join_chunks(const JoinArgs a) {
  int head = blockIdx.x;
  i64 row = a.fromRow + blockIdx.y;
  if (row >= a.step.counts[TOKENS]) {
    return;
  }
  Run run = a.step.runs[a.step.runOf[row]];
  i64 tile = row - (row - run.from) % a.tileTokens;
  if (run.to - run.from > a.mostRun || tile < a.fromRow || tile >= a.toRow) {
    return;
  }
  int position = a.step.position[row];
  int firstChunk = first_seen(position, a.window) / CHUNK;
  int lastChunk = position / CHUNK;
  i64 first = (row - a.fromRow) * a.chunks * a.queries + head;
  for (int d = threadIdx.x; d < a.size; d += blockDim.x) {
    i64 state = first + static_cast<i64>(firstChunk) * a.queries;
    float max = a.states[2 * state];
    float sum = a.states[2 * state + 1];
    float sums = a.sums[state * a.size + d];
    for (int chunk = firstChunk + 1; chunk <= lastChunk; chunk++) {
      state += a.queries;
      float before;
      float here;
      join(max, sum, a.states[2 * state], a.states[2 * state + 1], before, here);
      sums = joined(sums, a.sums[state * a.size + d], before, here);
    }
    float inverse = __fdiv_rn(1.f, sum);
    a.out[(row * a.queries + head) * a.size + d] = __fmul_rn(sums, inverse);
  }
}
EXPORT(join_chunks)
