// Kernels that test the emulator: sound ones, and others with one mistake each that it must see.
#include "wardrobe.cuh"

struct VectorArgs {
  const float* x;
  float* y;
  int n;
  float factor;
};

struct Tile {
  float values[256];
};

struct Vectors {
  U4 values[64];
};

__device__ const float kTable[5] = {1.f, 2.f, 3.f, 4.f, 5.f};

// Sound kernels

// y += factor * x
KERNEL(256, 1) add_scaled(const VectorArgs a) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < a.n) {
    a.y[i] = __fmaf_rn(a.factor, a.x[i], a.y[i]);
  }
}
EXPORT(add_scaled)

// Each block's part of y is that of x reversed.
KERNEL(256, 1) reverse_blocks(const VectorArgs a) {
  SHARED(Tile, tile);
  int i = blockIdx.x * 256 + threadIdx.x;
  tile.values[threadIdx.x] = a.x[i];
  __syncthreads();
  a.y[i] = tile.values[255 - threadIdx.x];
}
EXPORT(reverse_blocks)

// y[block] = the sum of the block's x.
KERNEL(256, 1) sum_blocks(const VectorArgs a) {
  SHARED(Tile, tile);
  float sum = a.x[blockIdx.x * 256 + threadIdx.x];
  for (int by = 16; by > 0; by >>= 1) {
    sum += __shfl_xor_sync(FULL, sum, by);
  }
  if (threadIdx.x % 32 == 0) {
    tile.values[threadIdx.x / 32] = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    float total = 0.f;
    for (int warp = 0; warp < 8; warp++) {
      total += tile.values[warp];
    }
    a.y[blockIdx.x] = total;
  }
}
EXPORT(sum_blocks)

struct ProductArgs {
  const u16* a;  // (16, 16) bf16
  const u16* b;  // (8, 16): by columns
  float* d;      // (16, 8)
  int transposed;
};

struct Factors {
  alignas(16) u16 a[16][16];
};

// D = A·B of one warp, A through ldmatrix; with `transposed`, A is there by columns.
KERNEL(32, 1) product(const ProductArgs p) {
  SHARED(Factors, factors);
  int lane = threadIdx.x;
  for (int i = lane; i < 256; i += 32) {
    factors.a[i / 16][i % 16] = p.a[i];
  }
  __syncwarp();
  // Matrices 0 to 3: rows 0 and 8, then the same of columns 8; by columns, each is its transpose.
  int matrix = lane / 8;
  int row = lane % 8 + (p.transposed ? matrix / 2 * 8 : matrix % 2 * 8);
  int column = p.transposed ? matrix % 2 * 8 : matrix / 2 * 8;
  u32 a[4];
  if (p.transposed) {
    ldmatrix_x4_trans(a, &factors.a[row][column]);
  } else {
    ldmatrix_x4(a, &factors.a[row][column]);
  }
  int g = lane / 4;
  int t = lane % 4 * 2;
  const u32* pairs = reinterpret_cast<const u32*>(p.b + 16 * g);
  u32 b[2] = {pairs[t / 2], pairs[t / 2 + 4]};
  float d[4] = {0.f, 0.f, 0.f, 0.f};
  mma_bf16(d, a, b);
  p.d[8 * g + t] = d[0];
  p.d[8 * g + t + 1] = d[1];
  p.d[8 * (g + 8) + t] = d[2];
  p.d[8 * (g + 8) + t + 1] = d[3];
}
EXPORT(product)

struct WordsArgs {
  u32* words;  // 32 for each operation
  u32* counters;
};

// One collective after the other, and atomics, for a reference on the host.
KERNEL(64, 1) collectives(const WordsArgs a) {
  u32 lane = threadIdx.x % 32;
  u32 mine = threadIdx.x * 3 + 1;
  u32 results[] = {
      __shfl_sync(FULL, mine, 5),
      __shfl_sync(FULL, mine, 9, 8),
      __shfl_xor_sync(FULL, mine, 3),
      __shfl_down_sync(FULL, mine, 4),
      __shfl_up_sync(FULL, mine, 2, 16),
      __ballot_sync(FULL, lane % 3 == 0),
      u32(__any_sync(FULL, lane == 40)),
      u32(__all_sync(FULL, lane < 32)),
      u32(__syncthreads_count(threadIdx.x < 40)),
      u32(__syncthreads_or(threadIdx.x == 63)),
      u32(__syncthreads_and(threadIdx.x != 63)),
  };
  if (threadIdx.x < 32) {
    for (int i = 0; i < 11; i++) {
      a.words[32 * i + lane] = results[i];
    }
  }
  atomicAdd(&a.counters[0], 1u);
  atomicMax(&a.counters[1], mine);
  atomicOr(&a.counters[2], 1u << lane);
  atomicAdd(reinterpret_cast<float*>(&a.counters[3]), 0.5f);
}
EXPORT(collectives)

// y = x by way of dynamic shared memory and asynchronous copies.
template <int Missing>
__device__ __forceinline__ void copy_through(const VectorArgs& a) {
  DYNAMIC_SHARED(float, stage);
  int at = 4 * threadIdx.x;
  copy_async16(stage + at, a.x + 1024 * blockIdx.x + at);
  copy_async_commit();
  copy_async_wait<Missing>();
  __syncthreads();
  for (int i = threadIdx.x; i < 1024; i += 256) {
    a.y[1024 * blockIdx.x + i] = stage[i];
  }
}

KERNEL(256, 1) copy_asynchronously(const VectorArgs a) { copy_through<0>(a); }
EXPORT(copy_asynchronously)

KERNEL(256, 1) constant_lookup(const VectorArgs a) {
  a.y[threadIdx.x] = kTable[threadIdx.x % a.n];
}
EXPORT(constant_lookup)

// Mistakes

KERNEL(256, 1) no_copy_wait(const VectorArgs a) { copy_through<1>(a); }
EXPORT(no_copy_wait)

KERNEL(256, 1) no_barrier(const VectorArgs a) {
  SHARED(Tile, tile);
  int i = blockIdx.x * 256 + threadIdx.x;
  tile.values[threadIdx.x] = a.x[i];
  a.y[i] = tile.values[255 - threadIdx.x];
}
EXPORT(no_barrier)

// Lanes read what their neighbours write, within a warp.
KERNEL(256, 1) no_syncwarp(const VectorArgs a) {
  SHARED(Tile, tile);
  tile.values[threadIdx.x] = a.x[threadIdx.x];
  a.y[threadIdx.x] = tile.values[threadIdx.x ^ 1];
}
EXPORT(no_syncwarp)

KERNEL(256, 1) half_written(const VectorArgs a) {
  if (threadIdx.x % 2 == 0) {
    a.y[threadIdx.x] = a.x[threadIdx.x];
  }
}
EXPORT(half_written)

KERNEL(256, 1) barrier_in_branch(const VectorArgs a) {
  if (threadIdx.x < 100) {
    __syncthreads();
  }
  a.y[threadIdx.x] = 0.f;
}
EXPORT(barrier_in_branch)

KERNEL(256, 1) two_barriers(const VectorArgs a) {
  if (threadIdx.x < 128) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  a.y[threadIdx.x] = 0.f;
}
EXPORT(two_barriers)

KERNEL(256, 1) shuffle_in_branch(const VectorArgs a) {
  float sum = a.x[threadIdx.x];
  if (threadIdx.x % 32 < 7) {
    sum += __shfl_xor_sync(FULL, sum, 1);
  }
  a.y[threadIdx.x] = sum;
}
EXPORT(shuffle_in_branch)

KERNEL(256, 1) shuffle_against_barrier(const VectorArgs a) {
  float sum = a.x[threadIdx.x];
  if (threadIdx.x % 32 < 7) {
    sum += __shfl_xor_sync(FULL, sum, 1);
  }
  __syncthreads();
  a.y[threadIdx.x] = sum;
}
EXPORT(shuffle_against_barrier)

KERNEL(256, 1) two_collectives(const VectorArgs a) {
  float sum = a.x[threadIdx.x];
  if (threadIdx.x % 2 == 0) {
    sum += __shfl_xor_sync(FULL, sum, 1);
  } else {
    sum += float(__ballot_sync(FULL, 1));
  }
  a.y[threadIdx.x] = sum;
}
EXPORT(two_collectives)

KERNEL(256, 1) shuffle_with_partial_mask(const VectorArgs a) {
  a.y[threadIdx.x] = __shfl_xor_sync(0xffffu, a.x[threadIdx.x], 1);
}
EXPORT(shuffle_with_partial_mask)

KERNEL(256, 1) reads_past_end(const VectorArgs a) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  a.y[i % a.n] = a.x[i];
}
EXPORT(reads_past_end)

KERNEL(256, 1) writes_past_end(const VectorArgs a) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  a.y[i] = 1.f;
}
EXPORT(writes_past_end)

KERNEL(256, 1) reads_before_start(const VectorArgs a) {
  a.y[threadIdx.x] = a.x[static_cast<int>(threadIdx.x) - 1];
}
EXPORT(reads_before_start)

KERNEL(256, 1) reads_past_shared(const VectorArgs a) {
  SHARED(Tile, tile);
  tile.values[threadIdx.x] = 1.f;
  __syncthreads();
  a.y[threadIdx.x] = tile.values[threadIdx.x + a.n];
}
EXPORT(reads_past_shared)

KERNEL(256, 1) writes_past_dynamic_shared(const VectorArgs a) {
  DYNAMIC_SHARED(float, stage);
  stage[threadIdx.x + a.n] = 1.f;
  a.y[threadIdx.x] = stage[threadIdx.x + a.n];
}
EXPORT(writes_past_dynamic_shared)

KERNEL(256, 1) unaligned_vector(const VectorArgs a) {
  U4 v = load_stream(reinterpret_cast<const U4*>(a.x + a.n));
  a.y[threadIdx.x] = low_bf16(v.x);
}
EXPORT(unaligned_vector)

// The address of one thread's variable, read by another.
KERNEL(256, 1) foreign_local(const VectorArgs a) {
  SHARED(Vectors, shared);
  volatile float own = a.x[threadIdx.x];
  if (threadIdx.x == 3) {
    *reinterpret_cast<volatile float**>(&shared.values[0]) = const_cast<volatile float*>(&own);
  }
  __syncthreads();
  a.y[threadIdx.x] = **reinterpret_cast<volatile float**>(&shared.values[0]) + own;
}
EXPORT(foreign_local)

KERNEL(256, 1) too_much_shared(const VectorArgs a) {
  struct Large {
    float values[48 << 8];
  };
  SHARED(Large, large);
  SHARED(Tile, tile);
  large.values[threadIdx.x] = tile.values[threadIdx.x] = 0.f;
  a.y[threadIdx.x] = large.values[threadIdx.x];
}
EXPORT(too_much_shared)
