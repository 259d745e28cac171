// Kernels that test the emulator: some sound, the others each with one mistake that it must see.
#include "wardrobe.cuh"

struct VectorArgs {
  const float* x;
  float* y;
  int n;
  float factor;
};

// y += factor * x
KERNEL(256, 1) add_scaled(const VectorArgs a) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < a.n) {
    a.y[i] = __fmaf_rn(a.factor, a.x[i], a.y[i]);
  }
}
EXPORT(add_scaled)

struct Reversal {
  float values[256];
};

// Each block of y is that of x reversed, by shared memory.
KERNEL(256, 1) reverse_blocks(const VectorArgs a) {
  SHARED(Reversal, tile);
  int i = blockIdx.x * 256 + threadIdx.x;
  tile.values[threadIdx.x] = a.x[i];
  __syncthreads();
  a.y[i] = tile.values[255 - threadIdx.x];
}
EXPORT(reverse_blocks)

// The same without the barrier.
KERNEL(256, 1) reverse_blocks_without_barrier(const VectorArgs a) {
  SHARED(Reversal, tile);
  int i = blockIdx.x * 256 + threadIdx.x;
  tile.values[threadIdx.x] = a.x[i];
  a.y[i] = tile.values[255 - threadIdx.x];
}
EXPORT(reverse_blocks_without_barrier)

// y[block] = the sum of the block's x, by shuffles.
KERNEL(256, 1) sum_blocks(const VectorArgs a) {
  SHARED(Reversal, tile);
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

KERNEL(256, 1) barrier_in_branch(const VectorArgs a) {
  if (threadIdx.x < 100) {
    __syncthreads();
  }
  a.y[threadIdx.x] = 0.f;
}
EXPORT(barrier_in_branch)

KERNEL(256, 1) shuffle_in_branch(const VectorArgs a) {
  float sum = a.x[threadIdx.x];
  if (threadIdx.x % 32 < 7) {
    sum += __shfl_xor_sync(FULL, sum, 1);
  }
  a.y[threadIdx.x] = sum;
}
EXPORT(shuffle_in_branch)

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
