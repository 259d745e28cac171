// What a CUDA source sees when g++ compiles it for the emulator (-x c++ -DWARDROBE_EMULATED): the
// part of the CUDA language and of our own header's vocabulary that the kernels use.
//
// Every CUDA thread is a fiber (emulator.cpp). Plain loads and stores are checked because the
// sources are compiled with -fsanitize=kernel-address, which turns each of them into a call of the
// runtime first; what is declared here reaches the runtime by itself.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __align__(bytes) alignas(bytes)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct uint3 {
  unsigned x, y, z;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) U4 {
  uint32_t x, y, z, w;
};

namespace emulator {

// Where in the source a collective stands. Lanes that meet in a collective must stand at the same.
struct Site {
  const char* file;
  int line;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

struct Block;
struct Fiber;

// The running thread's coordinates. A thread-local with a fixed offset: reading threadIdx costs one
// load, and the compiler leaves thread-locals unchecked. Kept small, since a library loaded late
// gets little room for such variables.
struct Here {
  uint3 thread, block, blockSize, gridSize;
  Block* running;
  Fiber* fiber;
  uintptr_t stack;  // lowest address of the thread's own stack
};
extern __thread Here here __attribute__((tls_model("initial-exec")));

// A kernel as EXPORT registers it.
struct Kernel {
  const char* name;
  int parameters;
  const uint32_t* sizes;       // of the parameters, bytes
  const uint32_t* alignments;  // of the parameters, bytes
  uint32_t maxThreads;         // per block, as KERNEL declares
  void (*call)(void** arguments);
};

template <class... Arguments>
struct Signature {
  static constexpr int count = sizeof...(Arguments);
  static inline const uint32_t sizes[count + 1] = {uint32_t(sizeof(Arguments))..., 0};
  static inline const uint32_t alignments[count + 1] = {uint32_t(alignof(Arguments))..., 0};
};

template <auto Function>
struct Entry;
template <class... Arguments, void (*Function)(Arguments...)>
struct Entry<Function> {
  using Parameters = Signature<std::remove_cv_t<Arguments>...>;
  template <size_t... I>
  static void apply(void** arguments, std::index_sequence<I...>) {
    Function(*static_cast<std::remove_cv_t<Arguments>*>(arguments[I])...);
  }
  static void call(void** arguments) {
    apply(arguments, std::index_sequence_for<Arguments...>{});
  }
};

void* sharedZone(const void* site, size_t size, size_t alignment, const char* name);
void* dynamicShared();
void barrier(Site site);
int barrierCount(bool predicate, Site site);  // of the block's threads, those whose predicate holds
void converge(unsigned mask, Site site);
uint64_t shuffle(unsigned mask, uint64_t value, int sourceLane, Site site);
unsigned ballot(unsigned mask, bool predicate, Site site);
void multiply(float* d, const uint32_t* a, const uint32_t* b, Site site);
void loadMatrix(uint32_t* r, const void* row, bool transposed, Site site);
void copyAsync(void* shared, const void* global, Site site);
void copyCommit();
void copyWait(int pending);
void checkAligned(const void* address, size_t size, bool write);
void yield();
[[noreturn]] void trap(Site site);

inline int lane() {
  return (here.thread.x + here.blockSize.x * (here.thread.y + here.blockSize.y * here.thread.z)) &
         31;
}

template <class To, class From>
inline To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  return __builtin_bit_cast(To, from);
}

}  // namespace emulator

namespace {
// The bounds of the KERNEL before an EXPORT: both count, and EXPORT stands behind its KERNEL.
template <int Count>
struct EmulatorBounds;
}  // namespace

#define KERNEL(threads, minBlocks)                  \
  namespace {                                       \
  template <>                                       \
  struct EmulatorBounds<__COUNTER__> {              \
    static constexpr uint32_t maxThreads = threads; \
  };                                                \
  }                                                 \
  extern "C" void

#define EXPORT(name)                                                                    \
  extern "C" const emulator::Kernel emulator_kernel_##name;                             \
  const emulator::Kernel emulator_kernel_##name = {                                     \
      #name,                                                                            \
      emulator::Entry<&name>::Parameters::count,                                        \
      emulator::Entry<&name>::Parameters::sizes,                                        \
      emulator::Entry<&name>::Parameters::alignments,                                   \
      EmulatorBounds<__COUNTER__ - 1>::maxThreads,                                      \
      &emulator::Entry<&name>::call};

// One zone per declaration and template instantiation: the address of `name##_zone` tells them
// apart.
#define SHARED(Type, name)                                                          \
  static char name##_zone;                                                          \
  Type& name = *static_cast<Type*>(                                                 \
      emulator::sharedZone(&name##_zone, sizeof(Type), alignof(Type), #name))
#define DYNAMIC_SHARED(Type, name) Type* name = static_cast<Type*>(emulator::dynamicShared())

#define threadIdx (emulator::here.thread)
#define blockIdx (emulator::here.block)
#define blockDim (emulator::here.blockSize)
#define gridDim (emulator::here.gridSize)
constexpr int warpSize = 32;

#define EMULATOR_SITE emulator::Site site = emulator::Site::here()

// Barriers and collectives.

inline void __syncthreads(EMULATOR_SITE) { emulator::barrier(site); }
inline int __syncthreads_count(int predicate, EMULATOR_SITE) {
  return emulator::barrierCount(predicate != 0, site);
}
inline int __syncthreads_or(int predicate, EMULATOR_SITE) {
  return emulator::barrierCount(predicate != 0, site) != 0;
}
inline int __syncthreads_and(int predicate, EMULATOR_SITE) {
  return emulator::barrierCount(predicate == 0, site) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, EMULATOR_SITE) {
  emulator::converge(mask, site);
}

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMULATOR_SITE) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t word = 0;
  memcpy(&word, &value, sizeof value);
  int first = emulator::lane() & ~(width - 1);
  word = emulator::shuffle(mask, word, first + (source & (width - 1)), site);
  memcpy(&value, &word, sizeof value);
  return value;
}
// The other shuffles keep the lane's own value where the source would leave its group of `width`.
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int by, int width = 32, EMULATOR_SITE) {
  int self = emulator::lane() & (width - 1);
  int source = self ^ by;
  return __shfl_sync(mask, value, source < width ? source : self, width, site);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, EMULATOR_SITE) {
  int self = emulator::lane() & (width - 1);
  int source = self + int(by);
  return __shfl_sync(mask, value, source < width ? source : self, width, site);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, EMULATOR_SITE) {
  int self = emulator::lane() & (width - 1);
  int source = self - int(by);
  return __shfl_sync(mask, value, source >= 0 ? source : self, width, site);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, EMULATOR_SITE) {
  return emulator::ballot(mask, predicate != 0, site);
}
inline int __any_sync(unsigned mask, int predicate, EMULATOR_SITE) {
  return emulator::ballot(mask, predicate != 0, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, EMULATOR_SITE) {
  return emulator::ballot(mask, predicate == 0, site) == 0;
}

// Tensor cores and the copies that feed them. Fragments are those of mma.sync.m16n8k16 (row.col).

inline void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2], EMULATOR_SITE) {
  emulator::multiply(d, a, b, site);
}
inline void ldmatrix_x4(uint32_t r[4], const void* sharedRow, EMULATOR_SITE) {
  emulator::loadMatrix(r, sharedRow, false, site);
}
inline void ldmatrix_x4_trans(uint32_t r[4], const void* sharedRow, EMULATOR_SITE) {
  emulator::loadMatrix(r, sharedRow, true, site);
}
inline U4 load_stream(const U4* from) {
  emulator::checkAligned(from, sizeof(U4), false);
  return *from;
}
inline void copy_async16(void* shared, const void* global, EMULATOR_SITE) {
  emulator::copyAsync(shared, global, site);
}
inline void copy_async_commit() { emulator::copyCommit(); }
template <int Pending>
inline void copy_async_wait() {
  emulator::copyWait(Pending);
}

// Atomics. Relaxed, as CUDA's are.

template <class T>
inline T emulatorAtomicAdd(T* at, T by) {
  return __atomic_fetch_add(at, by, __ATOMIC_RELAXED);
}
inline int atomicAdd(int* at, int by) { return emulatorAtomicAdd(at, by); }
inline unsigned atomicAdd(unsigned* at, unsigned by) { return emulatorAtomicAdd(at, by); }
inline unsigned long long atomicAdd(unsigned long long* at, unsigned long long by) {
  return emulatorAtomicAdd(at, by);
}
inline uint64_t atomicAdd(uint64_t* at, uint64_t by) { return emulatorAtomicAdd(at, by); }
inline float atomicAdd(float* at, float by) {
  auto* word = reinterpret_cast<uint32_t*>(at);
  uint32_t old = __atomic_load_n(word, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(word, &old,
                                      emulator::bits<uint32_t>(emulator::bits<float>(old) + by),
                                      true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return emulator::bits<float>(old);
}
template <class T>
inline T atomicMax(T* at, std::type_identity_t<T> value) {
  T old = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (old < value &&
         !__atomic_compare_exchange_n(at, &old, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}
template <class T>
inline T atomicMin(T* at, std::type_identity_t<T> value) {
  T old = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (value < old &&
         !__atomic_compare_exchange_n(at, &old, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}
template <class T>
inline T atomicOr(T* at, std::type_identity_t<T> value) {
  return __atomic_fetch_or(at, value, __ATOMIC_RELAXED);
}
template <class T>
inline T atomicAnd(T* at, std::type_identity_t<T> value) {
  return __atomic_fetch_and(at, value, __ATOMIC_RELAXED);
}
template <class T>
inline T atomicExch(T* at, std::type_identity_t<T> value) {
  T old;
  __atomic_exchange(at, &value, &old, __ATOMIC_RELAXED);
  return old;
}
template <class T>
inline T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  __atomic_compare_exchange_n(at, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}

// Arithmetic. The sources are compiled with -ffp-contract=off, so that only what says fma is one.

inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return __builtin_sqrtf(a); }
inline double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return __builtin_sqrt(a); }

inline uint32_t __float_as_uint(float a) { return emulator::bits<uint32_t>(a); }
inline int __float_as_int(float a) { return emulator::bits<int>(a); }
inline float __uint_as_float(uint32_t a) { return emulator::bits<float>(a); }
inline float __int_as_float(int a) { return emulator::bits<float>(a); }
inline long long __double_as_longlong(double a) { return emulator::bits<long long>(a); }
inline double __longlong_as_double(long long a) { return emulator::bits<double>(a); }
// Conversions as the device makes them: saturated, NaN to 0.
inline int __float2int_rn(float a) {
  return a != a ? 0 : a >= 2147483648.0f ? INT32_MAX : a < -2147483648.0f ? INT32_MIN
                                                     : int(__builtin_nearbyintf(a));
}
inline int __float2int_rz(float a) {
  return a != a ? 0 : a >= 2147483648.0f ? INT32_MAX : a < -2147483648.0f ? INT32_MIN : int(a);
}
inline int __float2int_rd(float a) { return __float2int_rz(__builtin_floorf(a)); }
inline float __int2float_rn(int a) { return float(a); }
inline float __uint2float_rn(unsigned a) { return float(a); }

inline uint32_t __funnelshift_l(uint32_t low, uint32_t high, uint32_t by) {
  return uint32_t(((uint64_t(high) << 32 | low) << (by & 31)) >> 32);
}
inline uint32_t __funnelshift_r(uint32_t low, uint32_t high, uint32_t by) {
  return uint32_t((uint64_t(high) << 32 | low) >> (by & 31));
}
inline uint32_t __byte_perm(uint32_t low, uint32_t high, uint32_t selector) {
  uint64_t bytes = uint64_t(high) << 32 | low;
  uint32_t result = 0;
  for (int i = 0; i < 4; i++) {
    unsigned select = selector >> 4 * i;
    uint32_t byte = uint32_t(bytes >> 8 * (select & 7)) & 255;
    if (select & 8) {  // replicate the sign
      byte = byte & 128 ? 255 : 0;
    }
    result |= byte << 8 * i;
  }
  return result;
}
inline int __popc(uint32_t a) { return __builtin_popcount(a); }
inline int __popcll(uint64_t a) { return __builtin_popcountll(a); }
inline int __clz(uint32_t a) { return a == 0 ? 32 : __builtin_clz(a); }
inline int __clzll(uint64_t a) { return a == 0 ? 64 : __builtin_clzll(a); }
inline int __ffs(uint32_t a) { return __builtin_ffs(int(a)); }
inline int __ffsll(uint64_t a) { return __builtin_ffsll((long long)a); }
inline uint32_t __brev(uint32_t a) {
  uint32_t result = 0;
  for (int i = 0; i < 32; i++) {
    result |= (a >> i & 1) << (31 - i);
  }
  return result;
}
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return uint32_t(uint64_t(a) * b >> 32); }
inline uint64_t __umul64hi(uint64_t a, uint64_t b) {
  return uint64_t((unsigned __int128)a * b >> 64);
}

template <class T>
inline T __ldg(const T* from) {
  return *from;
}
template <class T>
inline T min(T a, std::type_identity_t<T> b) {
  return b < a ? b : a;
}
template <class T>
inline T max(T a, std::type_identity_t<T> b) {
  return a < b ? b : a;
}

inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() {}
inline void __nanosleep(unsigned) { emulator::yield(); }
inline void __trap(EMULATOR_SITE) { emulator::trap(site); }
