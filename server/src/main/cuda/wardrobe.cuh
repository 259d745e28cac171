// What every kernel is written in: names for the device's instructions, the step's tables, and the
// arithmetic whose bits are part of the product. The same sources are compiled by nvcc, by NVRTC at
// run time (so nothing is included here), and by g++ for the emulator that tests them.
//
// A kernel takes one struct by value: pointers first, then 4-byte numbers. Java packs it in that
// order (see LaunchArguments). Products and sums are contracted only where __fmaf_rn says so: the
// compilers are told not to, because a row's bits must not depend on which kernel computed it.
#pragma once

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using i64 = long long;
using u64 = unsigned long long;

#ifdef WARDROBE_EMULATED
#include "emulator.h"
#else

#define KERNEL(threads, minBlocks) extern "C" __global__ void __launch_bounds__(threads, minBlocks)
#define EXPORT(name)
#define SHARED(Type, name) __shared__ Type name
#define DYNAMIC_SHARED(Type, name)                                         \
  extern __shared__ __align__(128) unsigned char dynamic_shared_memory[];  \
  Type* name = reinterpret_cast<Type*>(dynamic_shared_memory)

struct __align__(16) U4 {
  u32 x, y, z, w;
};

// 16 bytes that are read once: weights pass by the L1 cache.
__device__ __forceinline__ U4 load_stream(const U4* p) {
  U4 v;
  asm volatile("ld.global.L1::no_allocate.L2::256B.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

// D += A·B of one warp: A 16 x 16 by rows, B 16 x 8 by columns, bf16; D 16 x 8 float32. Lane l, with
// g = l / 4 and t = l % 4, holds of A the pairs (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8);
// of B the pairs (2t, g), (2t + 8, g); of D (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
__device__ __forceinline__ void mma_bf16(float d[4], const u32 a[4], const u32 b[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ u32 shared_address(const void* p) {
  return static_cast<u32>(__cvta_generic_to_shared(p));
}

// Four 8 x 8 matrices of 16-bit elements from shared memory; lane l gives the address of row l % 8
// of matrix l / 8.
__device__ __forceinline__ void ldmatrix_x4(u32 r[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row)));
}

__device__ __forceinline__ void ldmatrix_x4_trans(u32 r[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row)));
}

// 16 bytes from global to shared memory, there once the thread has waited for the copy's group.
__device__ __forceinline__ void copy_async16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)),
               "l"(global)
               : "memory");
}

__device__ __forceinline__ void copy_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most N of the thread's latest groups are under way.
template <int N>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

#endif  // WARDROBE_EMULATED

static constexpr u32 FULL = 0xffffffffu;

// bf16 is the upper half of float32. A pair is in one word, the first in its lower half.

__device__ __forceinline__ float low_bf16(u32 pair) { return __uint_as_float(pair << 16); }

__device__ __forceinline__ float high_bf16(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

// To nearest, ties to even; NaN stays NaN.
__device__ __forceinline__ u32 to_bf16(float x) {
  u32 bits = __float_as_uint(x);
  u32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return (bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : rounded;
}

// One instruction on a device; it has one NaN.
__device__ __forceinline__ u32 pack_bf16(float first, float second) {
#ifdef WARDROBE_EMULATED
  return to_bf16(first) | (to_bf16(second) << 16);
#else
  u32 pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
#endif
}

// IEEE half to float32, exactly.
__device__ __forceinline__ float from_f16(u32 h) {
  u32 sign = (h & 0x8000u) << 16;
  u32 magnitude = h & 0x7fffu;
  if (magnitude >= 0x7c00u) {
    return __uint_as_float(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
  }
  // Bits of a half, placed at those of a float, are 2^112 too small; subnormals too.
  float value = __fmul_rn(__uint_as_float(magnitude << 13), 0x1p112f);
  return __uint_as_float(__float_as_uint(value) | sign);
}

// e to the x in the operations, constants and order of the CPU's Elementary.exp: the same bits.
__device__ __forceinline__ float exp_exact(float x) {
  float c = x < -104.f ? -104.f : x;
  c = c > 89.f ? 89.f : c;
  float shifted = __fmaf_rn(c, 0x1.715476p0f, 12582912.f);
  float n = __fsub_rn(shifted, 12582912.f);
  float r = __fmaf_rn(n, -0x1.63p-1f, c);
  r = __fmaf_rn(n, 0x1.bd0106p-13f, r);
  float p = __fmaf_rn(0x1.6a23dp-10f, r, 0x1.123a2p-7f);
  p = __fmaf_rn(p, r, 0x1.5558f2p-5f);
  p = __fmaf_rn(p, r, 0x1.555492p-3f);
  p = __fmaf_rn(p, r, 0x1.fffffcp-2f);
  p = __fadd_rn(__fmaf_rn(p, __fmul_rn(r, r), r), 1.f);
  int power = static_cast<int>(__float_as_uint(shifted)) - 0x4b400000;
  int half = power >> 1;
  float first = __uint_as_float(static_cast<u32>(half + 127) << 23);
  float second = __uint_as_float(static_cast<u32>(power - half + 127) << 23);
  return __fmul_rn(__fmul_rn(p, first), second);
}

// A resident matrix (rows, cols). Dense ones lie by rows. 4-bit ones hold pairs of codes, of two
// neighbours the first in the upper half of a byte: in the order of the source, or by tiles, see
// tile_pair. A scale is shared by 2^blockShift neighbours; it is a float32, or, where there is a
// map, a code: map[code] * nested[its index / nestedSize] + offset, each step rounded.
struct Weights {
  const void* data;
  const void* absmax;
  const float* nested;
  const float* map;       // 256
  const float* codebook;  // 16
  int form;
  int rows;
  int cols;
  int blockShift;
  int nestedSize;
  float offset;
};

// Forms; the dense ones are also the types of an adapter's factors.
static constexpr int F32 = 0;
static constexpr int BF16 = 1;
static constexpr int F16 = 2;
static constexpr int TILES = 3;   // 4-bit, by tiles
static constexpr int STORED = 4;  // 4-bit, in the order of the source

// An element of a dense array.
__device__ __forceinline__ float dense_at(const void* data, int form, i64 index) {
  if (form == F32) {
    return static_cast<const float*>(data)[index];
  }
  u32 half = static_cast<const u16*>(data)[index];
  return form == BF16 ? low_bf16(half) : from_f16(half);
}

// The pair of neighbours at an even column of a 4-bit matrix that lies by tiles of 16 rows and 64
// columns, 512 bytes each. Lane 4g + t has 16 bytes of a tile: for each half h of the columns and
// each step s of two a word with four pairs, row g and row g + 8 at column 32h + 8t + 4s, then both
// at 2 more.
__device__ __forceinline__ u32 tile_pair(const void* data, int cols, i64 row, int column) {
  i64 tile = (row >> 4) * (cols >> 6) + (column >> 6);
  int lane = static_cast<int>(row & 7) * 4 + ((column >> 3) & 3);
  int word = ((column >> 5) & 1) * 2 + ((column >> 2) & 1);
  int pair = (column & 2) + (static_cast<int>(row >> 3) & 1);
  return static_cast<const u8*>(data)[((tile * 32 + lane) * 4 + word) * 4 + pair];
}

// One element, decoded as the CPU does.
__device__ __forceinline__ float weight_at(const Weights& w, i64 row, int column) {
  if (w.form <= F16) {
    return dense_at(w.data, w.form, row * w.cols + column);
  }
  i64 index = row * w.cols + column;
  i64 block = index >> w.blockShift;
  i64 scaleAt = block;
  u32 pair;
  if (w.form == TILES) {
    pair = tile_pair(w.data, w.cols, row, column & ~1);
    int blocks = w.cols >> w.blockShift;
    scaleAt = ((row >> 4) * blocks + (column >> w.blockShift)) * 16 + (row & 15);
  } else {
    pair = static_cast<const u8*>(w.data)[index >> 1];
  }
  float scale;
  if (w.map == nullptr) {
    scale = static_cast<const float*>(w.absmax)[scaleAt];
  } else {
    float decoded = w.map[static_cast<const u8*>(w.absmax)[scaleAt]];
    scale = __fadd_rn(__fmul_rn(decoded, w.nested[block / w.nestedSize]), w.offset);
  }
  u32 code = (w.form == TILES ? column & 1 : index & 1) == 0 ? pair >> 4 : pair & 15u;
  return __fmul_rn(w.codebook[code], scale);
}

// One adapter's delta of one module, resident: y = gain * (W·x + scale·(B·(A·x) + loraBias)) + bias.
// Null pointers where it has none. The types of the factors are those of Weights.form.
struct Part {
  const void* a;          // (rank, in), by rows
  const void* b;          // (out, rank), by rows
  const float* gain;      // (out)
  const float* loraBias;  // (out)
  const float* bias;      // (out): replaces the base's
  const float* vector;    // (width): replaces a norm's weight
  const Weights* weight;  // (out, in): replaces the base's
  int rank;
  float scale;
  int aType;
  int bType;
};

// Rows `from` to `to` (exclusive) use an adapter at a scale. Those of a mix have the same rows and
// follow each other.
struct Segment {
  const Part* parts;  // by module number; null: the base alone
  int modules;        // how many parts there are
  int from;
  int to;
  float scale;
};

// Neighbouring tokens of one sequence.
struct Run {
  int from;      // first row
  int to;        // one past the last
  int position;  // of the first row's token in its sequence
  int blocks;    // where its block table begins in StepTables.blocks
};

// A step's tables, at the same addresses in every step: a graph that was captured once is replayed
// over other contents. Grids may be larger than a step; what is beyond the counts does nothing.
struct StepTables {
  const int* counts;    // tokens, runs, segments, outputs
  const int* token;     // by row
  const int* position;  // by row: in its sequence
  const int* runOf;     // by row
  const int* segmentOf;  // by row: the first of its segments, of which a mix has several
  const Run* runs;
  const int* blocks;  // block tables, one after the other
  const Segment* segments;
  const int* outputs;  // rows whose logits are wanted
};

static constexpr int TOKENS = 0;
static constexpr int RUNS = 1;
static constexpr int SEGMENTS = 2;
static constexpr int OUTPUTS = 3;

// Tokens of a KV block.
static constexpr int BLOCK_TOKENS = 16;

// The part of a segment for a module, or null.
__device__ __forceinline__ const Part* part_of(const Segment& segment, int module) {
  return segment.parts == nullptr || module >= segment.modules ? nullptr : segment.parts + module;
}

// Whether there is something to be added to a linear module's product.
__device__ __forceinline__ bool adds_to_linear(const Part& part) {
  return part.a != nullptr || part.bias != nullptr;
}
