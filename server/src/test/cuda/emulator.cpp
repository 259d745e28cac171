// The emulator's runtime: runs kernels that were compiled against emulator.h.
//
// A CUDA thread is a fiber; the fibers of a block run on one thread of the machine, so a block
// needs no locks. A fiber runs until it reaches a collective or a barrier and then gives way to the
// next lane of its warp. The last lane to reach a collective computes it for the whole warp and
// goes on, which makes a collective cost one switch a lane. The order of the warps and of the
// blocks comes from the launch's seed.
//
// Every load and store of a kernel calls one of the __asan_ functions below first. An access that
// is not allowed never happens: the fiber reports it and leaves its block for good.

#ifndef __x86_64__
#error "The emulator switches fibers in x86-64 assembly; write emulator_switch for this machine."
#endif

#include "runtime.h"

#include <dlfcn.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>

// Saves the callee-saved registers on the stack and the stack pointer in *from, then takes up `to`.
extern "C" void emulator_switch(void** from, void* to);
asm(R"(
  .text
  .globl emulator_switch
  .hidden emulator_switch
  .type emulator_switch, @function
emulator_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
  .size emulator_switch, . - emulator_switch
)");

namespace emulator {

__thread Here here;

// ---------------------------------------------------------------------------------------------
// Device memory

namespace memory {
namespace {

constexpr size_t kArena = size_t(1) << 40;  // most of it never touched
constexpr size_t kGuard = 4096;  // at least this much between two ranges

struct Range {
  size_t size;
  const char* kind;
  bool live;
};

struct Arena {
  uintptr_t base;
  uint8_t* shadow;  // zero, so nothing may be touched
  uintptr_t next;
  std::map<uintptr_t, size_t> free;    // ranges given back, for when `next` has reached the end
  std::map<uintptr_t, Range> ranges;  // by name(), live and past
  std::map<uintptr_t, size_t> reservations;

  Arena() {
    base = map(kArena);
    shadow = reinterpret_cast<uint8_t*>(map(kArena / 8));
    next = base + kGuard;
  }

  static uintptr_t map(size_t size) {
    void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
      perror("emulator: cannot reserve address space for the device's memory");
      abort();
    }
    return reinterpret_cast<uintptr_t>(at);
  }
};

Arena& arena() {
  static auto* instance = new Arena;
  return *instance;
}

// Copies for the checks, which must be fast.
uintptr_t arenaBase;
uint8_t* arenaShadow;

uintptr_t roundUp(uintptr_t value, size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

struct Start {
  Start() {
    arenaBase = arena().base;
    arenaShadow = arena().shadow;
  }
} start;

void fillShadow(uint8_t* shadow, size_t size) {
  memset(shadow, 8, size / 8);
  if (size % 8 != 0) {
    shadow[size / 8] = uint8_t(size % 8);
  }
}

}  // namespace

uintptr_t reserve(size_t size, size_t alignment) {
  Arena& a = arena();
  uintptr_t at = roundUp(a.next, alignment);
  size_t whole = roundUp(size, kGuard) + kGuard;
  if (whole < size) {
    return 0;
  }
  // Addresses are taken anew as long as there are any, so that a stale pointer meets nothing.
  if (at + whole <= a.base + kArena && at + whole > at) {
    a.next = at + whole;
    return at;
  }
  for (auto& [start, length] : a.free) {
    at = roundUp(start, alignment);
    if (at + whole <= start + length) {
      size_t before = at - start;
      size_t after = start + length - (at + whole);
      a.free.erase(start);
      if (before > 0) {
        a.free[at - before] = before;
      }
      if (after > 0) {
        a.free[at + whole] = after;
      }
      return at;
    }
  }
  return 0;
}

void release(uintptr_t address, size_t size) {
  size_t whole = roundUp(size, kGuard) + kGuard;
  madvise(reinterpret_cast<void*>(address), roundUp(size, kGuard), MADV_DONTNEED);
  auto& free = arena().free;
  auto range = free.emplace(address, whole).first;
  auto after = std::next(range);
  if (after != free.end() && address + whole == after->first) {
    range->second += after->second;
    free.erase(after);
  }
  if (range != free.begin()) {
    auto before = std::prev(range);
    if (before->first + before->second == address) {
      before->second += range->second;
      free.erase(range);
    }
  }
}

void allow(uintptr_t address, size_t size) {
  fillShadow(arenaShadow + ((address - arenaBase) >> 3), size);
}

void forbid(uintptr_t address, size_t size) {
  memset(arenaShadow + ((address - arenaBase) >> 3), 0, (size + 7) / 8);
}

bool contains(uintptr_t address) { return address - arenaBase < kArena; }

bool allowed(uintptr_t address, size_t size) {
  if (!contains(address) || size > kArena || !contains(address + size)) {
    return false;
  }
  const uint8_t* shadow = arenaShadow + ((address - arenaBase) >> 3);
  size_t first = address & 7;
  size_t end = first + size;  // counted from the granule's start
  for (; end > 8; end -= 8) {
    if (*shadow++ != 8) {
      return false;
    }
  }
  return end <= *shadow;
}

void poison(uintptr_t address, size_t size) {
  memset(reinterpret_cast<void*>(address), kPoison, size);
}

void name(uintptr_t address, size_t size, const char* kind) {
  auto& ranges = arena().ranges;
  // What lay here before is no longer what an address here means.
  auto at = ranges.lower_bound(address);
  while (at != ranges.end() && at->first < address + size && !at->second.live) {
    at = ranges.erase(at);
  }
  ranges[address] = {size, kind, true};
}

void unname(uintptr_t address) {
  auto at = arena().ranges.find(address);
  if (at != arena().ranges.end()) {
    at->second.live = false;
  }
}

void nameReservation(uintptr_t address, size_t size) { arena().reservations[address] = size; }

void unnameReservation(uintptr_t address) { arena().reservations.erase(address); }

std::string describe(uintptr_t address) {
  char text[256];
  if (!contains(address)) {
    return address < 65536 ? "a null pointer, or nearly one"
                           : "no device memory: the host's, or a wild pointer";
  }
  const auto& reservations = arena().reservations;
  auto reservation = reservations.upper_bound(address);
  if (reservation != reservations.begin()) {
    --reservation;
    if (address < reservation->first + reservation->second) {
      snprintf(text, sizeof text,
               "%zu bytes into a reservation of %zu bytes, where nothing is mapped for access",
               size_t(address - reservation->first), reservation->second);
      return text;
    }
  }
  const auto& ranges = arena().ranges;
  auto after = ranges.upper_bound(address);
  const Range* range = nullptr;
  const char* where = nullptr;
  uintptr_t distance = ~uintptr_t(0);
  if (after != ranges.begin()) {
    auto before = std::prev(after);
    range = &before->second;
    uintptr_t end = before->first + range->size;
    if (address < end) {
      where = "inside";
      distance = address - before->first;
    } else {
      where = "past the end of";
      distance = address - end;
    }
  }
  if (after != ranges.end() && (range == nullptr || after->first - address < distance) &&
      (where == nullptr || where[0] != 'i')) {
    range = &after->second;
    where = "before";
    distance = after->first - address;
  }
  if (range == nullptr) {
    return "no device memory was ever allocated";
  }
  snprintf(text, sizeof text, "%zu bytes %s %s %s of %zu bytes", size_t(distance), where,
           range->live ? "an" : "a freed", range->kind, range->size);
  return text;
}

}  // namespace memory

// ---------------------------------------------------------------------------------------------
// A block and its fibers

namespace {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kMaxThreads = 1024;
constexpr size_t kStack = 32 << 10;
constexpr size_t kStackGuard = 4096;  // below each stack, not to be touched
constexpr size_t kStackStride = kStack + kStackGuard;
// Stacks begin at different lines of their page: in the same they would share a few of the cache's
// sets.
constexpr size_t kStackColours = 16;
constexpr size_t kSharedArena = kSharedLimit + (128 << 10);  // with the zones' guards
constexpr size_t kZoneGuard = 128;

enum class Collective : uint8_t { converge, shuffle, ballot, multiply, loadMatrix, loadTransposed };

const char* name(Collective kind) {
  switch (kind) {
    case Collective::converge:
      return "__syncwarp";
    case Collective::shuffle:
      return "a shuffle";
    case Collective::ballot:
      return "a vote";
    case Collective::multiply:
      return "mma_bf16";
    default:
      return "ldmatrix";
  }
}

struct AsyncCopy {
  void* to;
  const void* from;
  int group;
};

}  // namespace

struct Fiber {
  void* stackPointer;
  uintptr_t stack;
  uint3 thread;
  uint8_t warp, lane;
  int group;  // of asynchronous copies, the one that is open
  std::vector<AsyncCopy> copies;
};

namespace {

// What a lane brings to a collective.
struct Operand {
  union {
    uint64_t value;
    const void* row;
    const uint32_t* a;
  };
  union {
    int source;
    const uint32_t* b;
  };
  union {
    uint32_t* result;
    float* d;
  };
};

struct Warp {
  uint32_t all;        // the lanes there are
  uint32_t ready;      // those that can run
  uint32_t waiting;    // those in the collective below
  uint32_t atBarrier;  // those in the block's barrier
  uint32_t exited;
  Collective kind;
  Site site;
  unsigned ballot;
  Operand operands[32];
  uint64_t values[32];  // what a shuffle returns to each lane
};

struct Zone {
  const void* site;
  uintptr_t address;
  size_t size;
  const char* name;
};

// The state of a launch that its workers share.
struct Run {
  const Launch& launch;
  const uint64_t seed;
  std::atomic<uint64_t> next{0};
  uint64_t blocks = 0;
  uint64_t step = 1, offset = 0;  // block i of the order is (i * step + offset) mod blocks
  std::atomic<bool> failed{false};
  std::mutex lock;
  int code = 0;  // of the first failure, and the rest about it
  std::string who, what;
  Site site{nullptr, 0};
  const void* instruction = nullptr;

  Run(const Launch& launch, uint64_t seed) : launch(launch), seed(seed) {}
};

}  // namespace

struct Block {
  Run* run;
  void* mainStack;
  Random random;
  unsigned threads, warpCount;
  unsigned runnable;  // warps with a lane that can run
  unsigned arrived;   // threads in the barrier
  unsigned exited;
  unsigned patience;  // collectives until another warp's turn
  int predicates, barrierResult;
  Site barrierSite;
  uintptr_t shared;
  uint8_t* sharedShadow;
  size_t sharedUsed = 0;
  uintptr_t dynamicShared;
  std::vector<Zone> zones;
  uintptr_t globalStart, globalEnd;  // the module variable that was touched last
  Warp warps[kMaxThreads / 32];
  Fiber fibers[kMaxThreads];

  Block() {
    shared = memory::Arena::map(kSharedArena);
    sharedShadow = reinterpret_cast<uint8_t*>(memory::Arena::map(kSharedArena / 8));
    uintptr_t stacks = memory::Arena::map(kMaxThreads * kStackStride);
    for (int i = 0; i < kMaxThreads; i++) {
      uintptr_t guard = stacks + i * kStackStride;
      mprotect(reinterpret_cast<void*>(guard), kStackGuard, PROT_NONE);
      fibers[i].stack = guard + kStackGuard;
    }
  }

  bool execute(uint64_t index);
  void start(Fiber& fiber);
  void give();
  Fiber& pick();
  void resume(Fiber& to);
  [[noreturn]] void exit();
  // Reports what the running thread did and leaves the block for good. Where: a site, or an address
  // in the kernel's code, or neither.
  [[noreturn]] void fail(int code, Site site, const char* format, ...)
      __attribute__((format(printf, 4, 5)));
  [[noreturn]] void failAt(int code, Site site, const void* instruction, const char* format,
                           va_list arguments);
  [[noreturn]] void stuck();
  template <class Bring>
  Warp& arrive(Collective kind, unsigned mask, Site site, Bring bring);
  [[gnu::noinline]] void compute(Warp& warp);
  [[noreturn, gnu::noinline]] void partial(Collective kind, unsigned mask, Site site);
  [[noreturn, gnu::noinline]] void elsewhere(Collective kind, Site site);
  void multiply(Warp& warp);
  void loadMatrix(Warp& warp, bool transposed);
  int barrier(bool predicate, Site site);
  uintptr_t zone(const void* site, size_t size, size_t alignment, const char* name);
  bool inShared(uintptr_t address, size_t size) const;
  std::string describe(uintptr_t address) const;
};

namespace {

// The variables of the loaded modules, by address, as the compiler registers them.
struct Global {
  size_t size;
  const char* name;
};
std::mutex globalsLock;
std::map<uintptr_t, Global>& globals() {
  static auto* instance = new std::map<uintptr_t, Global>;
  return *instance;
}

void enterKernel() {
  const Launch& launch = here.running->run->launch;
  launch.kernel->call(
      reinterpret_cast<void**>(const_cast<char*>(launch.arguments.data())));
  here.running->exit();
}

}  // namespace

void Block::start(Fiber& fiber) {
  // As if enterKernel had been called from nowhere: it finds the stack as the ABI wants it.
  size_t colour = size_t(&fiber - fibers) % kStackColours * 64;
  auto* top = reinterpret_cast<void**>(fiber.stack + kStack - colour);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&enterKernel);
  for (int i = 0; i < 6; i++) {
    *--top = nullptr;
  }
  fiber.stackPointer = top;
  fiber.group = 0;
  fiber.copies.clear();
}

// Runs one block; false when it failed.
bool Block::execute(uint64_t index) {
  const Launch& launch = run->launch;
  const dim3& size = launch.block;
  random.state = run->seed ^ (index + 1) * 0xd1342543de82ef95u;
  threads = size.x * size.y * size.z;
  warpCount = (threads + 31) / 32;
  memset(sharedShadow, 0, (sharedUsed + 7) / 8 + 1);
  sharedUsed = 0;
  zones.clear();
  globalStart = globalEnd = 0;
  dynamicShared = 0;
  arrived = exited = 0;
  patience = 1 + unsigned(random.below(32));
  predicates = 0;
  unsigned i = 0;
  uint3 thread{};
  for (thread.z = 0; thread.z < size.z; thread.z++) {
    for (thread.y = 0; thread.y < size.y; thread.y++) {
      for (thread.x = 0; thread.x < size.x; thread.x++, i++) {
        Fiber& fiber = fibers[i];
        fiber.thread = thread;
        fiber.warp = uint8_t(i / 32);
        fiber.lane = uint8_t(i % 32);
        start(fiber);
      }
    }
  }
  for (unsigned w = 0; w < warpCount; w++) {
    unsigned lanes = threads - 32 * w;
    Warp& warp = warps[w];
    warp.all = warp.ready = lanes >= 32 ? kAllLanes : (1u << lanes) - 1;
    warp.waiting = warp.atBarrier = warp.exited = 0;
  }
  runnable = warpCount == 32 ? kAllLanes : (1u << warpCount) - 1;

  here.block.x = unsigned(index % launch.grid.x);
  here.block.y = unsigned(index / launch.grid.x % launch.grid.y);
  here.block.z = unsigned(index / (uint64_t(launch.grid.x) * launch.grid.y));
  here.blockSize = {size.x, size.y, size.z};
  here.gridSize = {launch.grid.x, launch.grid.y, launch.grid.z};
  here.running = this;
  Fiber& first = pick();
  here.fiber = &first;
  here.thread = first.thread;
  here.stack = first.stack;
  emulator_switch(&mainStack, first.stackPointer);
  here.fiber = nullptr;
  here.running = nullptr;
  here.stack = 0;
  return exited == threads;
}

// A random lane of a random warp that can run.
Fiber& Block::pick() {
  uint64_t bits = random.next();
  unsigned turn = unsigned(bits) & 31;
  unsigned turned = runnable >> turn | (turn == 0 ? 0 : runnable << (32 - turn));
  unsigned w = (unsigned(__builtin_ctz(turned)) + turn) & 31;
  turn = unsigned(bits >> 5) & 31;
  unsigned ready = warps[w].ready;
  turned = ready >> turn | (turn == 0 ? 0 : ready << (32 - turn));
  return fibers[32 * w + ((unsigned(__builtin_ctz(turned)) + turn) & 31)];
}

inline void Block::resume(Fiber& to) {
  Fiber* from = here.fiber;
  if (&to == from) {
    return;
  }
  here.fiber = &to;
  here.thread = to.thread;
  here.stack = to.stack;
  emulator_switch(&from->stackPointer, to.stackPointer);
}

// The running fiber, which is not ready, gives way: to the next lane of its warp that is, or else
// to another warp.
inline void Block::give() {
  Fiber& fiber = *here.fiber;
  Warp& warp = warps[fiber.warp];
  if (warp.ready != 0) {
    uint32_t later = warp.ready & ~((2u << fiber.lane) - 1);
    uint32_t from = later != 0 ? later : warp.ready;
    resume(fibers[32 * fiber.warp + __builtin_ctz(from)]);
    return;
  }
  runnable &= ~(1u << fiber.warp);
  if (warp.waiting != 0 || runnable == 0) {
    stuck();
  }
  resume(pick());
}

void Block::exit() {
  Fiber& fiber = *here.fiber;
  Warp& warp = warps[fiber.warp];
  uint32_t self = 1u << fiber.lane;
  warp.ready &= ~self;
  warp.exited |= self;
  if (++exited == threads) {
    emulator_switch(&fiber.stackPointer, mainStack);
  }
  give();
  __builtin_unreachable();
}

void Block::fail(int code, Site site, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  failAt(code, site, nullptr, format, arguments);
}

void Block::failAt(int code, Site site, const void* instruction, const char* format,
                   va_list arguments) {
  char what[640];
  vsnprintf(what, sizeof what, format, arguments);
  char who[256];
  const uint3& b = here.block;
  const uint3& t = here.thread;
  snprintf(who, sizeof who, "kernel %s, block (%u, %u, %u), thread (%u, %u, %u)",
           run->launch.kernel->name, b.x, b.y, b.z, t.x, t.y, t.z);
  {
    std::lock_guard<std::mutex> guard(run->lock);
    if (run->code == 0) {
      run->code = code;
      run->who = who;
      run->what = what;
      run->site = site;
      run->instruction = instruction;
    }
  }
  run->failed = true;
  void* abandoned;
  emulator_switch(&abandoned, mainStack);
  __builtin_unreachable();
}

namespace {

[[noreturn, gnu::format(printf, 3, 4)]] void failAccess(int code, const void* instruction,
                                                        const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  here.running->failAt(code, {nullptr, 0}, instruction, format, arguments);
}

const char* fileName(const char* path) {
  const char* slash = strrchr(path, '/');
  return slash == nullptr ? path : slash + 1;
}

// Source lines of an instruction, the innermost first, as binutils' addr2line knows them; empty if
// it does not.
std::string sourceOf(const void* instruction) {
  Dl_info info;
  if (dladdr(instruction, &info) == 0 || info.dli_fname == nullptr) {
    return "";
  }
  std::string file = info.dli_fname;
  const std::string self = "/proc/self/";  // which would be addr2line
  if (file.compare(0, self.size(), self) == 0) {
    std::string process = std::to_string(getpid());
    file.replace(0, self.size(), std::string("/proc/").append(process).append("/"));
  }
  // The call returns to `instruction`: the byte before is the call's own.
  size_t offset = reinterpret_cast<uintptr_t>(instruction) -
                  reinterpret_cast<uintptr_t>(info.dli_fbase) - 1;
  char command[512];
  snprintf(command, sizeof command, "addr2line -i -e '%s' 0x%zx 2>/dev/null", file.c_str(), offset);
  FILE* output = popen(command, "r");
  if (output == nullptr) {
    return "";
  }
  std::string lines;
  char line[512];
  while (fgets(line, sizeof line, output) != nullptr) {
    if (line[0] == '?' || strstr(line, ":?") != nullptr) {
      continue;
    }
    line[strcspn(line, " \n")] = 0;  // without "(discriminator 2)"
    lines += lines.empty() ? "" : ", called from ";
    lines += fileName(line);
  }
  pclose(output);
  return lines;
}

std::string message(const Run& run) {
  std::string where;
  if (run.site.file != nullptr) {
    where.append(fileName(run.site.file)).append(":").append(std::to_string(run.site.line));
  } else if (run.instruction != nullptr) {
    where = sourceOf(run.instruction);
  }
  std::string text = run.who;
  if (!where.empty()) {
    text.append(" (").append(where).append(")");
  }
  return text.append(": ").append(run.what);
}

}  // namespace

// Nothing can go on: says where the threads stand.
void Block::stuck() {
  Warp& warp = warps[here.fiber->warp];
  if (warp.waiting != 0) {
    int lane = __builtin_ctz(warp.waiting);
    const char* others = warp.atBarrier != 0 ? "at __syncthreads" : "past the kernel's end";
    here.thread = fibers[32 * here.fiber->warp + lane].thread;
    fail(kLaunchFailed, warp.site,
         "%s in divergent code: reached by lanes %08x of the warp alone, while %08x are %s",
         name(warp.kind), warp.waiting, warp.all & ~warp.waiting, others);
  }
  for (unsigned i = 0; i < threads; i++) {
    if (warps[i / 32].atBarrier >> i % 32 & 1) {
      here.thread = fibers[i].thread;
      break;
    }
  }
  fail(kLaunchFailed, barrierSite,
       "__syncthreads in divergent code: reached by %u of the block's %u threads, while %u have "
       "left the kernel",
       arrived, threads, exited);
}

void Block::partial(Collective kind, unsigned mask, Site site) {
  fail(kLaunchFailed, site, "%s by a part of a warp: mask %08x, lanes there are %08x", name(kind),
       mask, warps[here.fiber->warp].all);
}

void Block::elsewhere(Collective kind, Site site) {
  const Warp& warp = warps[here.fiber->warp];
  fail(kLaunchFailed, site, "%s in divergent code: lanes %08x of the warp are at %s (%s:%d)",
       name(kind), warp.waiting, name(warp.kind), fileName(warp.site.file), warp.site.line);
}

// The running lane joins a collective of its warp, with what it brings; returns when every lane has
// and the result is there.
template <class Bring>
inline Warp& Block::arrive(Collective kind, unsigned mask, Site site, Bring bring) {
  Fiber& fiber = *here.fiber;
  Warp& warp = warps[fiber.warp];
  uint32_t self = 1u << fiber.lane;
  if (warp.waiting == 0) {
    warp.kind = kind;
    warp.site = site;
    if (mask != kAllLanes || warp.all != kAllLanes) {
      partial(kind, mask, site);
    }
  } else if (warp.kind != kind || warp.site.line != site.line) {
    elsewhere(kind, site);
  }
  bring(warp.operands[fiber.lane]);
  warp.waiting |= self;
  warp.ready &= ~self;
  if (warp.waiting != kAllLanes) {
    give();
    return warp;
  }
  compute(warp);
  warp.waiting = 0;
  warp.ready = kAllLanes;
  if (--patience == 0) {  // now and then another warp goes first
    patience = 1 + unsigned(random.below(32));
    resume(pick());
  }
  return warp;
}

void Block::compute(Warp& warp) {
  switch (warp.kind) {
    case Collective::converge:
      break;
    case Collective::shuffle:
      for (int lane = 0; lane < 32; lane++) {
        warp.values[lane] = warp.operands[warp.operands[lane].source & 31].value;
      }
      break;
    case Collective::ballot:
      warp.ballot = 0;
      for (int lane = 0; lane < 32; lane++) {
        warp.ballot |= uint32_t(warp.operands[lane].value) << lane;
      }
      break;
    case Collective::multiply:
      multiply(warp);
      break;
    case Collective::loadMatrix:
      loadMatrix(warp, false);
      break;
    case Collective::loadTransposed:
      loadMatrix(warp, true);
      break;
  }
}

namespace {
float low(uint32_t pair) { return bits<float>(pair << 16); }
float high(uint32_t pair) { return bits<float>(pair & 0xffff0000u); }
typedef float Row __attribute__((vector_size(32)));
}  // namespace

// mma.sync.m16n8k16.row.col.f32.bf16.bf16.f32. Lane 4g + t holds of A the pairs at rows g and g + 8
// and columns 2t and 2t + 8, of B the pairs of rows 2t and 2t + 8 in column g, and of D rows g and
// g + 8 in columns 2t and 2t + 1. Products of bf16 are exact in float32; sums go by ascending k.
void Block::multiply(Warp& warp) {
  alignas(32) float a[16][16];
  alignas(32) float b[16][8];
  alignas(32) float d[16][8];
  for (int lane = 0; lane < 32; lane++) {
    int g = lane / 4;
    int t = lane % 4 * 2;
    const Operand& operand = warp.operands[lane];
    for (int half = 0; half < 2; half++) {
      int k = t + 8 * half;
      a[g][k] = low(operand.a[2 * half]);
      a[g][k + 1] = high(operand.a[2 * half]);
      a[g + 8][k] = low(operand.a[2 * half + 1]);
      a[g + 8][k + 1] = high(operand.a[2 * half + 1]);
      b[k][g] = low(operand.b[half]);
      b[k + 1][g] = high(operand.b[half]);
      d[g + 8 * half][t] = operand.d[2 * half];
      d[g + 8 * half][t + 1] = operand.d[2 * half + 1];
    }
  }
  for (int row = 0; row < 16; row += 8) {
    Row sums[8];
    for (int i = 0; i < 8; i++) {
      memcpy(&sums[i], d[row + i], sizeof(Row));
    }
    for (int k = 0; k < 16; k++) {
      Row column;
      memcpy(&column, b[k], sizeof column);
      for (int i = 0; i < 8; i++) {
        sums[i] += a[row + i][k] * column;
      }
    }
    for (int i = 0; i < 8; i++) {
      memcpy(d[row + i], &sums[i], sizeof(Row));
    }
  }
  for (int lane = 0; lane < 32; lane++) {
    int g = lane / 4;
    int t = lane % 4 * 2;
    float* to = warp.operands[lane].d;
    to[0] = d[g][t];
    to[1] = d[g][t + 1];
    to[2] = d[g + 8][t];
    to[3] = d[g + 8][t + 1];
  }
}

// ldmatrix.sync.aligned.m8n8.x4.b16: lane 8m + i has the address of row i of matrix m; lane 4g + t
// receives the pair at row g and column 2t of each, or with .trans the transposed matrix's.
void Block::loadMatrix(Warp& warp, bool transposed) {
  for (int lane = 0; lane < 32; lane++) {
    auto address = reinterpret_cast<uintptr_t>(warp.operands[lane].row);
    if (!inShared(address, 16) || address % 16 != 0) {
      here.thread = fibers[32 * here.fiber->warp + lane].thread;
      fail(address % 16 != 0 ? kMisalignedAddress : kIllegalAddress, warp.site,
           "ldmatrix reads 16 bytes at %p, which must be 16 aligned bytes of the block's shared "
           "memory: %s",
           warp.operands[lane].row, describe(address).c_str());
    }
  }
  for (int m = 0; m < 4; m++) {
    uint16_t rows[8][8];
    for (int i = 0; i < 8; i++) {
      memcpy(rows[i], warp.operands[8 * m + i].row, 16);
    }
    for (int lane = 0; lane < 32; lane++) {
      int g = lane / 4;
      int t = lane % 4 * 2;
      warp.operands[lane].result[m] = transposed ? rows[t][g] | uint32_t(rows[t + 1][g]) << 16
                                                 : rows[g][t] | uint32_t(rows[g][t + 1]) << 16;
    }
  }
}

int Block::barrier(bool predicate, Site site) {
  Fiber& fiber = *here.fiber;
  Warp& warp = warps[fiber.warp];
  if (arrived == 0) {
    barrierSite = site;
  } else if (barrierSite.line != site.line) {
    fail(kLaunchFailed, site,
         "__syncthreads in divergent code: %u threads of the block wait at another one (%s:%d)",
         arrived, fileName(barrierSite.file), barrierSite.line);
  }
  predicates += predicate ? 1 : 0;
  warp.ready &= ~(1u << fiber.lane);
  warp.atBarrier |= 1u << fiber.lane;
  if (++arrived < threads) {
    give();
    return barrierResult;
  }
  arrived = 0;
  barrierResult = predicates;
  predicates = 0;
  for (unsigned w = 0; w < warpCount; w++) {
    warps[w].ready = warps[w].all;
    warps[w].atBarrier = 0;
  }
  runnable = warpCount == 32 ? kAllLanes : (1u << warpCount) - 1;
  resume(pick());
  return barrierResult;
}

// Finds or makes the zone of a SHARED or DYNAMIC_SHARED declaration in this block.
uintptr_t Block::zone(const void* site, size_t size, size_t alignment, const char* name) {
  size_t fixed = 0;
  for (const Zone& zone : zones) {
    if (zone.site == site) {
      return zone.address;
    }
    if (zone.site != this) {
      fixed += zone.size;
    }
  }
  const Launch& launch = run->launch;
  if (site != this && fixed + size > kStaticSharedLimit) {
    fail(kLaunchFailed, {nullptr, 0},
         "%zu bytes of static shared memory with '%s'; a kernel may have %zu", fixed + size, name,
         kStaticSharedLimit);
  }
  if (site != this && fixed + size + launch.dynamicShared > kSharedLimit) {
    fail(kLaunchFailed, {nullptr, 0},
         "%zu bytes of static and %zu of dynamic shared memory; a block may have %zu",
         fixed + size, launch.dynamicShared, kSharedLimit);
  }
  // Aligned as declared and no better, so that code which relies on more is seen.
  if (alignment < 8) {
    alignment = 8;
  }
  uintptr_t at = shared + memory::roundUp(sharedUsed, kZoneGuard) + kZoneGuard;
  if (alignment < kZoneGuard) {
    at += alignment;
  }
  if (at + size + kZoneGuard > shared + kSharedArena) {
    fail(kLaunchFailed, {nullptr, 0}, "too many zones of shared memory with '%s'", name);
  }
  sharedUsed = at + size - shared;
  memset(reinterpret_cast<void*>(at), memory::kPoison, size);
  memory::fillShadow(sharedShadow + (at - shared) / 8, size);
  zones.push_back({site, at, size, name});
  return at;
}

bool Block::inShared(uintptr_t address, size_t size) const {
  if (address - shared >= kSharedArena || size > kSharedArena) {
    return false;
  }
  for (const Zone& zone : zones) {
    if (address >= zone.address && address + size <= zone.address + zone.size) {
      return true;
    }
  }
  return false;
}

std::string Block::describe(uintptr_t address) const {
  if (address - shared < kSharedArena) {
    const Zone* nearest = nullptr;
    size_t best = ~size_t(0);
    for (const Zone& zone : zones) {
      size_t distance = address < zone.address ? zone.address - address
                        : address >= zone.address + zone.size
                            ? address - (zone.address + zone.size)
                            : 0;
      if (distance < best) {
        best = distance;
        nearest = &zone;
      }
    }
    if (nearest == nullptr) {
      return "shared memory of which the block has none";
    }
    char text[256];
    bool inside = address >= nearest->address && address < nearest->address + nearest->size;
    snprintf(text, sizeof text, "%zu bytes %s the shared memory '%s' of %zu bytes",
             inside ? address - nearest->address : best,
             inside                       ? "inside"
             : address < nearest->address ? "before"
                                          : "past the end of",
             nearest->name, nearest->size);
    return text;
  }
  uintptr_t stacks = fibers[0].stack;
  if (address - stacks < kMaxThreads * kStackStride) {
    return "another thread's local memory";
  }
  std::lock_guard<std::mutex> guard(globalsLock);
  auto after = globals().upper_bound(address);
  if (after != globals().begin()) {
    auto before = std::prev(after);
    uintptr_t end = before->first + before->second.size;
    if (address >= end && address - end < 4096) {
      char text[256];
      snprintf(text, sizeof text,
               "%zu bytes past the end of the module's variable '%s' of %zu bytes",
               size_t(address - end), before->second.name, before->second.size);
      return text;
    }
  }
  return memory::describe(address);
}

// ---------------------------------------------------------------------------------------------
// What emulator.h declares

void* sharedZone(const void* site, size_t size, size_t alignment, const char* name) {
  return reinterpret_cast<void*>(here.running->zone(site, size, alignment, name));
}

void* dynamicShared() {
  Block& block = *here.running;
  if (block.dynamicShared == 0) {
    block.dynamicShared =
        block.zone(&block, block.run->launch.dynamicShared, kZoneGuard, "dynamic");
  }
  return reinterpret_cast<void*>(block.dynamicShared);
}

void barrier(Site site) { here.running->barrier(false, site); }

int barrierCount(bool predicate, Site site) { return here.running->barrier(predicate, site); }

void converge(unsigned mask, Site site) {
  here.running->arrive(Collective::converge, mask, site, [](Operand&) {});
}

uint64_t shuffle(unsigned mask, uint64_t value, int sourceLane, Site site) {
  unsigned lane = here.fiber->lane;
  Warp& warp = here.running->arrive(Collective::shuffle, mask, site, [=](Operand& operand) {
    operand.value = value;
    operand.source = sourceLane;
  });
  return warp.values[lane];
}

unsigned ballot(unsigned mask, bool predicate, Site site) {
  Warp& warp = here.running->arrive(Collective::ballot, mask, site, [=](Operand& operand) {
    operand.value = predicate ? 1 : 0;
  });
  return warp.ballot;
}

void multiply(float* d, const uint32_t* a, const uint32_t* b, Site site) {
  here.running->arrive(Collective::multiply, kAllLanes, site, [=](Operand& operand) {
    operand.a = a;
    operand.b = b;
    operand.d = d;
  });
}

void loadMatrix(uint32_t* r, const void* row, bool transposed, Site site) {
  here.running->arrive(transposed ? Collective::loadTransposed : Collective::loadMatrix, kAllLanes,
                       site, [=](Operand& operand) {
                         operand.row = row;
                         operand.result = r;
                       });
}

// A copy takes place when its thread waits for it; until then its destination is poison.
void copyAsync(void* to, const void* from, Site site) {
  Block& block = *here.running;
  auto target = reinterpret_cast<uintptr_t>(to);
  auto source = reinterpret_cast<uintptr_t>(from);
  if (target % 16 != 0 || source % 16 != 0) {
    block.fail(kMisalignedAddress, site,
               "copy_async16 from %p to %p: both must be multiples of 16", from, to);
  }
  if (!block.inShared(target, 16)) {
    block.fail(kIllegalAddress, site, "copy_async16 writes 16 bytes at %p: %s", to,
               block.describe(target).c_str());
  }
  if (!memory::allowed(source, 16)) {
    block.fail(kIllegalAddress, site, "copy_async16 reads 16 bytes at %p: %s", from,
               block.describe(source).c_str());
  }
  memset(to, memory::kPoison, 16);
  here.fiber->copies.push_back({to, from, here.fiber->group});
}

void copyCommit() { here.fiber->group++; }

// All groups but the latest `pending` that were committed are there afterwards.
void copyWait(int pending) {
  Fiber& fiber = *here.fiber;
  size_t kept = 0;
  for (const AsyncCopy& copy : fiber.copies) {
    if (copy.group < fiber.group - pending) {
      memcpy(copy.to, copy.from, 16);
    } else {
      fiber.copies[kept++] = copy;
    }
  }
  fiber.copies.resize(kept);
}

void yield() { here.running->resume(here.running->pick()); }

void trap(Site site) { here.running->fail(kLaunchFailed, site, "__trap"); }

// ---------------------------------------------------------------------------------------------
// Bounds

namespace {

[[gnu::noinline]] void checkSlowly(uintptr_t address, size_t size, bool write,
                                   const void* instruction) {
  if (here.fiber == nullptr) {
    return;  // a module's initializer
  }
  Block& block = *here.running;
  if (address >= block.globalStart && address + size <= block.globalEnd) {
    return;
  }
  const auto& arguments = block.run->launch.arguments;
  auto first = reinterpret_cast<uintptr_t>(arguments.data());
  if (address >= first && address + size <= first + arguments.size()) {
    return;
  }
  if (block.inShared(address, size) || memory::allowed(address, size)) {
    return;
  }
  {
    std::lock_guard<std::mutex> guard(globalsLock);
    auto after = globals().upper_bound(address);
    if (after != globals().begin()) {
      auto variable = std::prev(after);
      if (address + size <= variable->first + variable->second.size) {
        block.globalStart = variable->first;
        block.globalEnd = variable->first + variable->second.size;
        return;
      }
    }
  }
  // The first byte that is not there: what lies before it may be sound.
  uintptr_t bad = address;
  while (bad + 1 < address + size && (block.inShared(bad, 1) || memory::allowed(bad, 1))) {
    bad++;
  }
  failAccess(kIllegalAddress, instruction, "%s of %zu bytes at %p: %s", write ? "write" : "read",
             size, reinterpret_cast<void*>(address), block.describe(bad).c_str());
}

[[gnu::noinline, gnu::cold]] void misaligned(uintptr_t address, size_t size, bool write,
                                             const void* instruction) {
  if (here.fiber != nullptr) {
    failAccess(kMisalignedAddress, instruction,
               "%s of %zu bytes at %p, which is no multiple of %zu", write ? "write" : "read",
               size, reinterpret_cast<void*>(address), size);
  }
}

template <size_t size>
inline void check(uintptr_t address, bool write, const void* instruction) {
  if (address - here.stack < kStack) {
    return;
  }
  uintptr_t offset = address - memory::arenaBase;
  const uint8_t* shadow;
  if (offset < memory::kArena) {
    shadow = memory::arenaShadow + (offset >> 3);
  } else if (here.running != nullptr &&
             (offset = address - here.running->shared) < kSharedArena) {
    shadow = here.running->sharedShadow + (offset >> 3);
  } else {
    checkSlowly(address, size, write, instruction);
    return;
  }
  if (address % size != 0) {
    misaligned(address, size, write, instruction);
  } else if constexpr (size == 16) {
    if (shadow[0] != 8 || shadow[1] != 8) {
      checkSlowly(address, size, write, instruction);
    }
  } else if ((address & 7) + size > *shadow) {
    checkSlowly(address, size, write, instruction);
  }
}

}  // namespace

void checkAligned(const void* address, size_t size, bool write) {
  if (reinterpret_cast<uintptr_t>(address) % size != 0) {
    misaligned(reinterpret_cast<uintptr_t>(address), size, write, __builtin_return_address(0));
  }
}

// ---------------------------------------------------------------------------------------------
// Launches

namespace {

unsigned machineThreads() {
  if (const char* text = getenv("WARDROBE_EMULATOR_THREADS")) {
    return unsigned(std::max(1, atoi(text)));
  }
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? unsigned(CPU_COUNT(&set)) : 1;
}

void work(Run& run, Block& block) {
  block.run = &run;
  for (uint64_t i; !run.failed && (i = run.next++) < run.blocks;) {
    uint64_t index =
        uint64_t(((unsigned __int128)i * run.step + run.offset) % run.blocks);
    block.execute(index);
  }
}

// Threads that wait for launches of more than one block. Launches come one at a time: the driver
// holds its lock.
class Workers {
 public:
  Workers() : count(machineThreads()) {
    for (unsigned i = 0; i < count; i++) {
      blocks.push_back(new Block);
    }
    for (unsigned i = 1; i < count; i++) {
      std::thread([this, i] { serve(i); }).detach();
    }
  }

  void work(Run& run) {
    unsigned helpers = unsigned(std::min<uint64_t>(count, run.blocks)) - 1;
    if (helpers > 0) {
      std::lock_guard<std::mutex> guard(lock);
      current = &run;
      wanted = helpers;
      busy = helpers;
      turn++;
      wake.notify_all();
    }
    emulator::work(run, *blocks[0]);
    if (helpers > 0) {
      std::unique_lock<std::mutex> guard(lock);
      done.wait(guard, [&] { return busy == 0; });
      current = nullptr;
    }
  }

 private:
  void serve(unsigned self) {
    uint64_t seen = 0;
    for (;;) {
      std::unique_lock<std::mutex> guard(lock);
      wake.wait(guard, [&] { return turn != seen; });
      seen = turn;
      if (self > wanted || current == nullptr) {
        continue;
      }
      Run& run = *current;
      guard.unlock();
      emulator::work(run, *blocks[self]);
      guard.lock();
      if (--busy == 0) {
        done.notify_one();
      }
    }
  }

  const unsigned count;
  std::vector<Block*> blocks;
  std::mutex lock;
  std::condition_variable wake, done;
  Run* current = nullptr;
  unsigned wanted = 0, busy = 0;
  uint64_t turn = 0;
};

}  // namespace

Launch::Launch(const Kernel& kernel, dim3 grid, dim3 block, size_t dynamicShared,
               const void* const* from)
    : kernel(&kernel), grid(grid), block(block), dynamicShared(dynamicShared) {
  size_t at = kernel.parameters * sizeof(void*);
  std::vector<size_t> offsets;
  for (int i = 0; i < kernel.parameters; i++) {
    at = memory::roundUp(at, 16);
    offsets.push_back(at);
    at += kernel.sizes[i];
  }
  arguments.resize(at);
  for (int i = 0; i < kernel.parameters; i++) {
    char* to = arguments.data() + offsets[i];
    memcpy(to, from[i], kernel.sizes[i]);
    memcpy(arguments.data() + i * sizeof(void*), &to, sizeof to);
  }
}

size_t globalSize(uintptr_t address) {
  std::lock_guard<std::mutex> guard(globalsLock);
  auto found = globals().find(address);
  return found == globals().end() ? 0 : found->second.size;
}

Outcome run(const Launch& launch, uint64_t seed) {
  static auto* workers = new Workers;  // never ends: its threads may outlive static destructors
  Run run(launch, seed);
  run.blocks = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
  Random random{seed};
  run.offset = random.below(run.blocks);
  do {
    run.step = 1 + random.below(run.blocks);
  } while (std::gcd(run.step, run.blocks) != 1);
  workers->work(run);
  return {run.code, run.code == 0 ? "" : message(run)};
}

}  // namespace emulator

// The functions that -fsanitize=kernel-address calls.

using emulator::check;
using emulator::checkSlowly;

#define CHECK(size)                                                  \
  extern "C" void __asan_load##size##_noabort(uintptr_t at) {        \
    check<size>(at, false, __builtin_return_address(0));             \
  }                                                                  \
  extern "C" void __asan_store##size##_noabort(uintptr_t at) {       \
    check<size>(at, true, __builtin_return_address(0));              \
  }
CHECK(1)
CHECK(2)
CHECK(4)
CHECK(8)
CHECK(16)

extern "C" void __asan_loadN_noabort(uintptr_t at, size_t size) {
  if (at - emulator::here.stack >= emulator::kStack) {
    checkSlowly(at, size, false, __builtin_return_address(0));
  }
}
extern "C" void __asan_storeN_noabort(uintptr_t at, size_t size) {
  if (at - emulator::here.stack >= emulator::kStack) {
    checkSlowly(at, size, true, __builtin_return_address(0));
  }
}
extern "C" void __asan_handle_no_return() {}

// As the compiler lays out what it knows of a module's variable.
struct CompilerGlobal {
  uintptr_t address;
  size_t size, sizeWithRedzone;
  const char* name;
  const char* module;
  size_t dynamicInitializer;
  void* location;
  size_t odr;
};

extern "C" void __asan_register_globals(const CompilerGlobal* variables, size_t count) {
  std::lock_guard<std::mutex> guard(emulator::globalsLock);
  for (size_t i = 0; i < count; i++) {
    emulator::globals()[variables[i].address] = {variables[i].size, variables[i].name};
  }
}
extern "C" void __asan_unregister_globals(const CompilerGlobal* variables, size_t count) {
  std::lock_guard<std::mutex> guard(emulator::globalsLock);
  for (size_t i = 0; i < count; i++) {
    emulator::globals().erase(variables[i].address);
  }
}
