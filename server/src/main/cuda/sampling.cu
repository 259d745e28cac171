// Drawing and scoring of tokens: a block takes one draw after the other.
//
// What is added up in floating point is added in the CPU's order: runs of 1,024 numbers, each in 16
// partial sums and then by halves (sum_runs), the runs one after the other in double. So draws and
// log-probabilities have the CPU's bits, and neither the number of threads nor other draws show in
// them. What is added by atomics is integers: counts, and masses in units of a bucket's last place.
#include "wardrobe.cuh"

// One draw, as compute.Draw describes it. `...At` are indices into SampleTable.words.
struct Draw {
  u64 seed;
  int row;
  int score;  // the token to score, or -1 to draw one
  float temperature;
  int topK;
  float topP;
  float minP;
  float repetition;
  float presence;
  float frequency;
  int position;
  int top;     // how many of the most probable tokens; -1: all log-probabilities by id
  int topAt;   // where they go, an index into SampleTable.tops: ids, then log-probabilities
  int flags;   // CHANGED, BIASED
  int biasAt;  // tokens, then what is added to their logits
  int biasCount;
  int heldAt;  // tokens that are not to be drawn
  int heldCount;
  int repeatedAt;  // tokens that the repetition penalty is for, each once
  int repeatedCount;
  int countedAt;  // pairs of a generated token and how often it was
  int countedCount;
  int maskAt;  // bits by token, or -1
};

// Whether tokens are chosen from other numbers than the logits as they are.
static constexpr int CHANGED = 1;
// Whether a bias applies.
static constexpr int BIASED = 2;

// What a launch works on: always at the same place, so that graphs can hold its address. Draws
// follow it.
struct SampleTable {
  int* scratch;      // 4 · vocabulary words for each block
  const int* words;  // what draws have of different length
  int* tops;
  int count;  // draws
  int unused;
};

struct Drawn {
  int token;  // -1: nothing can be drawn from the row
  float logprob;
};

struct SampleArgs {
  const SampleTable* table;
  const float* logits;
  Drawn* drawn;
  int vocabulary;
};

// Numbers whose sum is a float32: the CPU's Kernels.RUN.
static constexpr int RUN = 1024;
static constexpr int MOST_RUNS = 1024;

// Probabilities are told apart by their leading bits, 32 steps an octave: the CPU's buckets.
static constexpr int BUCKET_SHIFT = 18;
static constexpr int BUCKETS = (0x3f800000 >> BUCKET_SHIFT) + 1;

// Of the 18 bits that remain within a bucket, two times nine.
static constexpr int HALF_SHIFT = 9;
static constexpr int HALF_BINS = 1 << HALF_SHIFT;

// Most bins of a step of select.
static constexpr int KEY_BINS = 2048;

struct SampleShared {
  u64 masses[BUCKETS];
  float runs[MOST_RUNS];
  u64 warps[32];
  int above[32];
  int equal[32];
  double number;
  u64 before;
  int place;
};

// Floats as integers of the same order. Zeros are equal; NaN is above all.
__device__ __forceinline__ u32 key_of(float x) {
  u32 bits = x == 0.f ? 0u : __float_as_uint(x);
  u32 key = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return x != x ? 0xffffffffu : key;
}

__device__ __forceinline__ float of_key(u32 key) {
  return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}

static constexpr u32 KEY_OF_INFINITY = 0xff800000u;
static constexpr u32 KEY_OF_MINUS_INFINITY = 0x007fffffu;

// The largest number's key above its index's complement: of equal ones the lowest index is largest.
__device__ __forceinline__ u64 ranked(float x, int index) {
  return static_cast<u64>(key_of(x)) << 32 | ~static_cast<u32>(index);
}

__device__ __forceinline__ u32 key_of_ranked(u64 best) { return static_cast<u32>(best >> 32); }

__device__ __forceinline__ int index_of_ranked(u64 best) {
  return static_cast<int>(~static_cast<u32>(best));
}

__device__ __forceinline__ bool is_finite(u64 best) {
  return key_of_ranked(best) > KEY_OF_MINUS_INFINITY && key_of_ranked(best) < KEY_OF_INFINITY;
}

// The largest of what the block's threads have.
__device__ __forceinline__ u64 largest_of_block(u64 mine, SampleShared& shared) {
  for (int by = 16; by > 0; by /= 2) {
    u64 other = __shfl_xor_sync(FULL, mine, by);
    mine = other > mine ? other : mine;
  }
  if (threadIdx.x % 32 == 0) {
    shared.warps[threadIdx.x / 32] = mine;
  }
  __syncthreads();
  u64 best = shared.warps[0];
  for (int warp = 1; warp < static_cast<int>(blockDim.x / 32); warp++) {
    u64 other = shared.warps[warp];
    best = other > best ? other : best;
  }
  __syncthreads();
  return best;
}

__device__ __forceinline__ u64 largest(const float* x, int count, SampleShared& shared) {
  u64 best = 0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    u64 next = ranked(x[i], i);
    best = next > best ? next : best;
  }
  return largest_of_block(best, shared);
}

// Sums of value(0) to value(count - 1) by runs, into shared.runs; each by half a warp.
template <class Value>
__device__ __forceinline__ void sum_runs(int count, SampleShared& shared, Value value) {
  int lane = threadIdx.x % 32;
  int runs = (count + RUN - 1) / RUN;
  for (int first = threadIdx.x / 32 * 2; first < runs; first += blockDim.x / 16) {
    int run = first + lane / 16;
    int end = min(count, (run + 1) * RUN);
    float sum = 0;
    for (int i = run * RUN + lane % 16; i < end; i += 16) {
      sum = __fadd_rn(sum, value(i));
    }
    for (int by = 8; by > 0; by /= 2) {
      sum = __fadd_rn(sum, __shfl_xor_sync(FULL, sum, by));
    }
    if (lane % 16 == 0 && run < runs) {
      shared.runs[run] = sum;
    }
  }
  __syncthreads();
}

// All of shared.runs; for the first thread.
__device__ __forceinline__ double sum_of_runs(int count, const SampleShared& shared) {
  double sum = 0;
  for (int run = 0; run < (count + RUN - 1) / RUN; run++) {
    sum += shared.runs[run];
  }
  return sum;
}

// The sum of `count` numbers.
__device__ __forceinline__ double total_of(const float* p, int count, SampleShared& shared) {
  sum_runs(count, shared, [&](int i) { return p[i]; });
  if (threadIdx.x == 0) {
    shared.number = sum_of_runs(count, shared);
  }
  __syncthreads();
  return shared.number;
}

// Natural logarithm in the operations and order of the CPU's Elementary.log.
__device__ __forceinline__ double log_exact(double x) {
  i64 bits = __double_as_longlong(x);
  int e = static_cast<int>(bits >> 52) - 1023;
  double m = __longlong_as_double((bits & 0x000fffffffffffffLL) | 0x3ff0000000000000LL);
  if (m >= 1.4142135623730951) {
    m *= 0.5;
    e++;
  }
  double f = (m - 1) / (m + 1);
  double square = f * f;
  double series = 0;
  for (int odd = 21; odd >= 3; odd -= 2) {
    series = (series + 1.0 / odd) * square;
  }
  return e * 0.6931471805599453 + (2 * f + 2 * f * series);
}

__device__ __forceinline__ float logprob(float logit, float largest, double log_sum) {
  return static_cast<float>(static_cast<double>(logit) - largest - log_sum);
}

// Philox4x32-10's number in [0, 1) for a seed and a position, as the CPU's Philox has it.
__device__ __forceinline__ double uniform(u64 seed, int position) {
  u32 k0 = static_cast<u32>(seed);
  u32 k1 = static_cast<u32>(seed >> 32);
  u32 c0 = static_cast<u32>(position);
  u32 c1 = 0;
  u32 c2 = 0;
  u32 c3 = 0;
  for (int round = 0; round < 10; round++) {
    u64 a = static_cast<u64>(0xD2511F53u) * c0;
    u64 b = static_cast<u64>(0xCD9E8D57u) * c2;
    c0 = static_cast<u32>(b >> 32) ^ c1 ^ k0;
    c1 = static_cast<u32>(b);
    c2 = static_cast<u32>(a >> 32) ^ c3 ^ k1;
    c3 = static_cast<u32>(a);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  u64 bits = static_cast<u64>(c0) << 32 | c1;
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

// Descends from the last of the bins (a multiple of 32) to the first at which `reached` holds for
// the sum so far; bins that are empty are passed by. -1 if there is none. `before` gets the sum of
// the bins above it. For one warp.
template <class Number, class Reached>
__device__ __forceinline__ int descend(const Number* bins, int count, Number& before,
                                       Reached reached) {
  int lane = threadIdx.x % 32;
  Number sum = 0;
  for (int from = count - 1; from >= 0; from -= 32) {
    Number mine = bins[from - lane];
    if (__ballot_sync(FULL, mine != 0) == 0) {
      continue;
    }
    Number through = mine;
    for (int by = 1; by < 32; by *= 2) {
      Number other = __shfl_up_sync(FULL, through, by);
      through += lane >= by ? other : 0;
    }
    u32 hits = __ballot_sync(FULL, mine != 0 && reached(sum + through));
    if (hits != 0) {
      int first = __ffs(hits) - 1;
      before = sum + __shfl_sync(FULL, through - mine, first);
      return from - first;
    }
    sum += __shfl_sync(FULL, through, 31);
  }
  return -1;
}

// What belongs to the largest: all above a key, and so many of those equal to it.
struct Border {
  u32 key;
  int equals;
};

// The border of the `wanted` largest of `count` numbers, by the leading 11 bits of their keys, the
// next 11, and the last 10.
static __device__ Border select(const float* x, int count, int wanted, SampleShared& shared) {
  u32* bins = reinterpret_cast<u32*>(shared.masses);
  u32 prefix = 0;
  for (int step = 0; step < 3; step++) {
    int shift = step == 0 ? 21 : step == 1 ? 10 : 0;
    int bits = step == 2 ? 10 : 11;
    for (int i = threadIdx.x; i < KEY_BINS; i += blockDim.x) {
      bins[i] = 0;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
      u32 key = key_of(x[i]);
      if (static_cast<u64>(key) >> (shift + bits) == prefix) {
        atomicAdd(&bins[key >> shift & ((1u << bits) - 1)], 1u);
      }
    }
    __syncthreads();
    if (threadIdx.x < 32) {
      u32 before = 0;
      int bin = descend(bins, 1 << bits, before,
                        [&](u32 sum) { return sum >= static_cast<u32>(wanted); });
      if (threadIdx.x == 0) {
        shared.place = bin;
        shared.before = before;
      }
    }
    __syncthreads();
    prefix = prefix << bits | static_cast<u32>(shared.place);
    wanted -= static_cast<int>(shared.before);
  }
  __syncthreads();
  return {prefix, wanted};
}

static constexpr int BELOW = 0;
static constexpr int EQUAL = 1;
static constexpr int ABOVE = 2;

// Calls write(i, place) for each of `count` indices that is ABOVE, and for the first `equals` that
// are EQUAL, with its place among them in order; gives how many they are. Each warp has a stretch.
template <class Kind, class Write>
__device__ __forceinline__ int compact(int count, int equals, SampleShared& shared, Kind kind,
                                       Write write) {
  int lane = threadIdx.x % 32;
  int warp = threadIdx.x / 32;
  int warps = blockDim.x / 32;
  int stretch = (count + warps * 32 - 1) / (warps * 32) * 32;
  int from = min(count, warp * stretch);
  int to = min(count, from + stretch);
  int above = 0;
  int equal = 0;
  for (int base = from; base < to; base += 32) {
    int what = base + lane < to ? kind(base + lane) : BELOW;
    above += __popc(__ballot_sync(FULL, what == ABOVE));
    equal += __popc(__ballot_sync(FULL, what == EQUAL));
  }
  if (lane == 0) {
    shared.above[warp] = above;
    shared.equal[warp] = equal;
  }
  __syncthreads();
  int allAbove = 0;
  int allEqual = 0;
  for (int other = 0; other < warps; other++) {
    if (other == warp) {
      above = allAbove;
      equal = allEqual;
    }
    allAbove += shared.above[other];
    allEqual += shared.equal[other];
  }
  u32 lower = (1u << lane) - 1;
  for (int base = from; base < to; base += 32) {
    int what = base + lane < to ? kind(base + lane) : BELOW;
    u32 aboves = __ballot_sync(FULL, what == ABOVE);
    u32 equalOnes = __ballot_sync(FULL, what == EQUAL);
    int rank = equal + __popc(equalOnes & lower);
    if (what == ABOVE || (what == EQUAL && rank < equals)) {
      write(base + lane, above + __popc(aboves & lower) + min(rank, equals));
    }
    above += __popc(aboves);
    equal += __popc(equalOnes);
  }
  __syncthreads();
  return allAbove + min(allEqual, equals);
}

// Fills z with the logits as they are chosen from; gives the largest.
static __device__ u64 change(const Draw& draw, const int* words, const float* logits,
                             int vocabulary, bool holds, float* z, SampleShared& shared) {
  int thread = threadIdx.x;
  int threads = blockDim.x;
  for (int i = thread; i < vocabulary; i += threads) {
    z[i] = logits[i];
  }
  __syncthreads();
  for (int i = thread; i < draw.biasCount; i += threads) {
    int token = words[draw.biasAt + i];
    float added = __int_as_float(words[draw.biasAt + draw.biasCount + i]);
    z[token] = __fadd_rn(z[token], added);
  }
  __syncthreads();
  if (holds) {
    for (int i = thread; i < draw.heldCount; i += threads) {
      z[words[draw.heldAt + i]] = of_key(KEY_OF_MINUS_INFINITY);
    }
  }
  __syncthreads();
  for (int i = thread; i < draw.repeatedCount; i += threads) {
    int token = words[draw.repeatedAt + i];
    float logit = z[token];
    z[token] =
        logit < 0 ? __fmul_rn(logit, draw.repetition) : __fdiv_rn(logit, draw.repetition);
  }
  __syncthreads();
  for (int i = thread; i < draw.countedCount; i += threads) {
    int token = words[draw.countedAt + 2 * i];
    float times = static_cast<float>(words[draw.countedAt + 2 * i + 1]);
    float penalty = __fadd_rn(draw.presence, __fmul_rn(draw.frequency, times));
    z[token] = __fsub_rn(z[token], penalty);
  }
  __syncthreads();
  u64 best = 0;
  for (int i = thread; i < vocabulary; i += threads) {
    if (draw.maskAt >= 0 && (static_cast<u32>(words[draw.maskAt + i / 32]) >> i % 32 & 1) == 0) {
      z[i] = of_key(KEY_OF_MINUS_INFINITY);
    }
    u64 next = ranked(z[i], i);
    best = next > best ? next : best;
  }
  return largest_of_block(best, shared);
}

// A positive float32 is this many units of its bucket.
__device__ __forceinline__ u64 units(u32 bits) {
  return bits >> 23 == 0 ? bits : (bits & 0x7fffffu) | 0x800000u;
}

// A unit: what the last bit of a number with such leading bits stands for.
__device__ __forceinline__ double unit(int bucket) {
  int exponent = max(1, bucket >> (23 - BUCKET_SHIFT));
  return __longlong_as_double(static_cast<i64>(exponent - 150 + 1023) << 52);
}

__device__ __forceinline__ int bucket_of(u32 bits) {
  return min(BUCKETS - 1, static_cast<int>(bits >> BUCKET_SHIFT));
}

// The masses of the nine bits at `shift` of those numbers whose bits above are `prefix`.
__device__ __forceinline__ void half_bins(const float* p, int count, float least, u32 prefix,
                                          int shift, SampleShared& shared) {
  for (int i = threadIdx.x; i < HALF_BINS; i += blockDim.x) {
    shared.masses[i] = 0;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    u32 bits = __float_as_uint(p[i]);
    if (p[i] >= least && bits >> (shift + HALF_SHIFT) == prefix) {
      atomicAdd(&shared.masses[bits >> shift & (HALF_BINS - 1)], units(bits));
    }
  }
  __syncthreads();
}

// The border of the fewest largest of `count` numbers, at most 1 each, that add up to `wanted`;
// those below `least` are none of them. First the bucket in which the sum is reached, then within
// it nine bits and nine bits, then how many of those that are equal. Keys are the numbers' bits.
static __device__ Border nucleus(const float* p, int count, float least, double wanted,
                                 SampleShared& shared) {
  for (int i = threadIdx.x; i < BUCKETS; i += blockDim.x) {
    shared.masses[i] = 0;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    u32 bits = __float_as_uint(p[i]);
    if (p[i] >= least) {
      atomicAdd(&shared.masses[bucket_of(bits)], units(bits));
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    double sum = 0;
    int cut = BUCKETS - 1;
    bool found = false;
    while (!found) {
      // Some at a time, so that only the sum waits for the sum before.
      double next[8];
      for (int i = 0; i < 8; i++) {
        next[i] = cut - i < 0 ? 0 : static_cast<double>(shared.masses[cut - i]) * unit(cut - i);
      }
      for (int i = 0; i < 8 && !found; i++) {
        found = cut == 0 || !(sum + next[i] < wanted);
        sum += found ? 0 : next[i];
        cut -= found ? 0 : 1;
      }
    }
    shared.number = sum;
    shared.place = cut;
  }
  __syncthreads();
  int bucket = shared.place;
  double sum = shared.number;
  double one = unit(bucket);
  u32 prefix = static_cast<u32>(bucket);
  u64 above = 0;
  __syncthreads();
  for (int shift = HALF_SHIFT; shift >= 0; shift -= HALF_SHIFT) {
    half_bins(p, count, least, prefix, shift, shared);
    if (threadIdx.x < 32) {
      u64 before = 0;
      int bin = descend(shared.masses, HALF_BINS, before, [&](u64 mass) {
        return sum + static_cast<double>(above + mass) * one >= wanted;
      });
      if (threadIdx.x == 0) {
        shared.place = bin;
        shared.before = before;
      }
    }
    __syncthreads();
    if (shared.place < 0) {
      // Not reached, for roundings: all of the bucket belong to it.
      return {static_cast<u32>(bucket) << BUCKET_SHIFT, count};
    }
    prefix = prefix << HALF_SHIFT | static_cast<u32>(shared.place);
    above += shared.before;
  }
  double before = sum + static_cast<double>(above) * one;
  double each = static_cast<double>(units(prefix)) * one;
  u64 present = shared.masses[shared.place] / units(prefix);
  int equals = static_cast<int>((wanted - before) / each);
  equals = max(1, min(equals, static_cast<int>(present)));
  while (equals > 1 && before + (equals - 1) * each >= wanted) {
    equals--;
  }
  while (equals < static_cast<int>(present) && before + equals * each < wanted) {
    equals++;
  }
  __syncthreads();
  return {prefix, equals};
}

// The first index at which the running sum exceeds `u` of the total: the run in which it does, by
// the runs' sums, and then the place in it.
static __device__ int invert(const float* p, int count, double u, SampleShared& shared) {
  double wanted = u * total_of(p, count, shared);
  if (threadIdx.x == 0) {
    double before = 0;
    double after = 0;
    int from = 0;
    for (int run = 0; run * RUN < count && !(after > wanted); run++) {
      float mass = shared.runs[run];
      if (mass > 0) {
        from = run * RUN;
        before = after;
        after += mass;
      }
    }
    double sum = before;
    int end = min(count, from + RUN);
    int last = from;
    bool found = false;
    for (int base = from; base < end && !found; base += 8) {
      float next[8];
      for (int i = 0; i < 8; i++) {
        next[i] = base + i < end ? p[base + i] : 0;
      }
      for (int i = 0; i < 8 && !found; i++) {
        if (next[i] > 0) {
          last = base + i;
          sum += next[i];
          found = sum > wanted;
        }
      }
    }
    shared.place = last;
  }
  __syncthreads();
  int chosen = shared.place;
  __syncthreads();
  return chosen;
}

// Draws a token, or gives -1 where none is possible.
static __device__ int choose(const Draw& draw, const SampleTable& table, const float* logits,
                             int vocabulary, u64 best, SampleShared& shared) {
  int* scratch = table.scratch + static_cast<i64>(blockIdx.x) * 4 * vocabulary;
  float* changed = reinterpret_cast<float*>(scratch);
  const float* z = logits;
  if ((draw.flags & CHANGED) != 0) {
    best = change(draw, table.words, logits, vocabulary, true, changed, shared);
    if (key_of_ranked(best) == KEY_OF_MINUS_INFINITY && draw.maskAt >= 0 &&
        (draw.flags & BIASED) != 0) {
      // What ends the sequence is all that the mask leaves.
      best = change(draw, table.words, logits, vocabulary, false, changed, shared);
    }
    if (!is_finite(best)) {
      return -1;
    }
    z = changed;
  }
  if (draw.temperature == 0) {
    return index_of_ranked(best);
  }
  // The candidates' probabilities relative to the largest one's, and unless all are: their ids.
  float top = of_key(key_of_ranked(best));
  float* p = reinterpret_cast<float*>(scratch + vocabulary);
  int* ids = nullptr;
  int count = vocabulary;
  float temperature = draw.temperature;
  if (draw.topK > 0 && draw.topK < vocabulary) {
    Border border = select(z, vocabulary, draw.topK, shared);
    int* kept = scratch + 2 * static_cast<i64>(vocabulary);
    count = compact(
        vocabulary, border.equals, shared,
        [&](int i) {
          u32 key = key_of(z[i]);
          return key > border.key ? ABOVE : key == border.key ? EQUAL : BELOW;
        },
        [&](int i, int place) {
          kept[place] = i;
          p[place] = exp_exact(__fdiv_rn(__fsub_rn(z[i], top), temperature));
        });
    ids = kept;
  } else {
    for (int i = threadIdx.x; i < vocabulary; i += blockDim.x) {
      p[i] = exp_exact(__fdiv_rn(__fsub_rn(z[i], top), temperature));
    }
    __syncthreads();
  }
  if (draw.topP < 1 || draw.minP > 0) {
    Border border = {0, 0};
    float least = -1;
    if (draw.topP < 1) {
      double total = total_of(p, count, shared);
      if (ids == nullptr) {
        // What is not above this adds up to half of what the nucleus leaves out, at most.
        least = static_cast<float>(
            static_cast<double>(__fdiv_rn(__fsub_rn(1.f, draw.topP), 2.f)) * total / count);
      }
      border = nucleus(p, count, least, static_cast<double>(draw.topP) * total, shared);
    }
    bool whole = !(draw.topP < 1);
    least = draw.minP > 0 ? (draw.minP > least ? draw.minP : least) : least;
    float* left = changed;
    int* leftIds = scratch + 3 * static_cast<i64>(vocabulary);
    count = compact(
        count, border.equals, shared,
        [&](int i) {
          u32 bits = __float_as_uint(p[i]);
          return !(p[i] >= least)              ? BELOW
                 : whole || bits > border.key ? ABOVE
                 : bits == border.key         ? EQUAL
                                              : BELOW;
        },
        [&](int i, int place) {
          left[place] = p[i];
          leftIds[place] = ids == nullptr ? i : ids[i];
        });
    p = left;
    ids = leftIds;
  }
  if (count == 0) {
    return index_of_ranked(best);
  }
  int chosen = invert(p, count, uniform(draw.seed, draw.position), shared);
  return ids == nullptr ? chosen : ids[chosen];
}

// Writes the `count` most probable tokens, descending, lowest id first among equals, and then
// their log-probabilities.
static __device__ void write_top(const float* logits, int vocabulary, int count, int* scratch,
                                 float largest, double log_sum, int* out, SampleShared& shared) {
  u32* keys = reinterpret_cast<u32*>(scratch);
  int* ids = scratch + vocabulary;
  Border border = {0, vocabulary};
  if (count < vocabulary) {
    border = select(logits, vocabulary, count, shared);
  }
  compact(
      vocabulary, border.equals, shared,
      [&](int i) {
        u32 key = key_of(logits[i]);
        return key > border.key ? ABOVE : key == border.key ? EQUAL : BELOW;
      },
      [&](int i, int place) {
        keys[place] = key_of(logits[i]);
        ids[place] = i;
      });
  // Each one's place is how many come before it: few are asked for.
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    int place = 0;
    for (int other = 0; other < count; other++) {
      place += keys[other] > keys[i] || (keys[other] == keys[i] && other < i) ? 1 : 0;
    }
    out[place] = ids[i];
    out[count + place] = __float_as_int(logprob(logits[ids[i]], largest, log_sum));
  }
  __syncthreads();
}

// Grid: some blocks, of any multiple of 32 threads.
KERNEL(1024, 1) sample(const SampleArgs a) {
  SHARED(SampleShared, shared);
  const SampleTable& table = *a.table;
  const Draw* draws = reinterpret_cast<const Draw*>(a.table + 1);
  int vocabulary = a.vocabulary;
  for (int d = blockIdx.x; d < table.count; d += gridDim.x) {
    const Draw& draw = draws[d];
    const float* logits = a.logits + static_cast<i64>(draw.row) * vocabulary;
    u64 best = largest(logits, vocabulary, shared);
    float top = of_key(key_of_ranked(best));
    int token = -1;
    double log_sum = 0;
    if (is_finite(best)) {
      sum_runs(vocabulary, shared, [&](int i) { return exp_exact(__fsub_rn(logits[i], top)); });
      if (threadIdx.x == 0) {
        shared.number = log_exact(sum_of_runs(vocabulary, shared));
      }
      __syncthreads();
      log_sum = shared.number;
      __syncthreads();
      token = draw.score >= 0 ? draw.score
                              : choose(draw, table, logits, vocabulary, best, shared);
    }
    if (token >= 0 && draw.top != 0) {
      int* out = table.tops + draw.topAt;
      if (draw.top < 0) {
        for (int i = threadIdx.x; i < vocabulary; i += blockDim.x) {
          out[i] = __float_as_int(logprob(logits[i], top, log_sum));
        }
      } else {
        int* scratch = table.scratch + static_cast<i64>(blockIdx.x) * 4 * vocabulary;
        write_top(logits, vocabulary, min(draw.top, vocabulary), scratch, top, log_sum, out,
                  shared);
      }
    }
    if (threadIdx.x == 0) {
      float raw = token < 0 ? 0 : logits[token];
      a.drawn[d] = {token, token < 0 ? 0 : logprob(raw, top, log_sum)};
    }
    __syncthreads();
  }
}
EXPORT(sample)
