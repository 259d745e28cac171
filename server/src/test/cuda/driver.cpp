// A libcuda.so.1 for tests: the part of CUDA's driver API that the product uses, over the emulator.
//
// Streams are queues. Nothing is done when it is asked for: a call that waits drains the queues in
// random order until what it waits for is there, and leaves the rest for later. So an operation
// that should wait for another and does not runs early or late, by the seed. A captured graph runs
// its nodes in random order too, as far as their dependencies let it.
//
// What is a mistake but passes unseen on a device is refused here, with a report: asynchronous
// copies of memory that is not pinned, pinned memory freed under a copy, handles used after their
// end. Everything runs under one lock.

#include <dlfcn.h>
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "runtime.h"

namespace {

using emulator::Kernel;
using emulator::Launch;
using emulator::Outcome;
using emulator::Random;
namespace memory = emulator::memory;

using Address = unsigned long long;

enum Code : int {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201,
  MAPPING_FAILED = 205,
  NO_BINARY_FOR_GPU = 209,
  INVALID_PTX = 218,
  FILE_NOT_FOUND = 301,
  SHARED_OBJECT_INIT_FAILED = 303,
  INVALID_HANDLE = 400,
  ILLEGAL_STATE = 401,
  NOT_FOUND = 500,
  NOT_READY = 600,
  ILLEGAL_ADDRESS = 700,
  LAUNCH_OUT_OF_RESOURCES = 701,
  PRIMARY_CONTEXT_ACTIVE = 708,
  CONTEXT_IS_DESTROYED = 709,
  HOST_MEMORY_ALREADY_REGISTERED = 712,
  HOST_MEMORY_NOT_REGISTERED = 713,
  MISALIGNED_ADDRESS = 716,
  LAUNCH_FAILED = 719,
  NOT_PERMITTED = 800,
  NOT_SUPPORTED = 801,
  CAPTURE_UNSUPPORTED = 900,
  CAPTURE_INVALIDATED = 901,
  CAPTURE_MERGE = 902,
  CAPTURE_UNMATCHED = 903,
  CAPTURE_UNJOINED = 904,
  CAPTURE_ISOLATION = 905,
  CAPTURE_IMPLICIT = 906,
  CAPTURED_EVENT = 907,
  CAPTURE_WRONG_THREAD = 908,
  UNKNOWN = 999,
};

struct ErrorName {
  int code;
  const char* name;
  const char* text;
};

const ErrorName kErrors[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {4, "CUDA_ERROR_DEINITIALIZED", "driver shutting down"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {MAPPING_FAILED, "CUDA_ERROR_MAP_FAILED", "mapping of buffer object failed"},
    {NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU",
     "no kernel image is available for execution on the device"},
    {214, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"},
    {INVALID_PTX, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
     "the provided PTX was compiled with an unsupported toolchain."},
    {FILE_NOT_FOUND, "CUDA_ERROR_FILE_NOT_FOUND", "file not found"},
    {SHARED_OBJECT_INIT_FAILED, "CUDA_ERROR_SHARED_OBJECT_INIT_FAILED",
     "shared object initialization failed"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE",
     "the operation cannot be performed in the present state"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
     "too many resources requested for launch"},
    {702, "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated"},
    {PRIMARY_CONTEXT_ACTIVE, "CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE",
     "cannot set while device is active in this process"},
    {CONTEXT_IS_DESTROYED, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {HOST_MEMORY_ALREADY_REGISTERED, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED",
     "part or all of the requested memory range is already mapped"},
    {HOST_MEMORY_NOT_REGISTERED, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED",
     "pointer does not correspond to a registered memory region"},
    {714, "CUDA_ERROR_HARDWARE_STACK_ERROR", "hardware stack error"},
    {715, "CUDA_ERROR_ILLEGAL_INSTRUCTION", "an illegal instruction was encountered"},
    {MISALIGNED_ADDRESS, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
    {717, "CUDA_ERROR_INVALID_ADDRESS_SPACE",
     "operation not supported on global/shared address space"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {NOT_PERMITTED, "CUDA_ERROR_NOT_PERMITTED", "operation not permitted"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {CAPTURE_MERGE, "CUDA_ERROR_STREAM_CAPTURE_MERGE",
     "operation would result in a merge of separate capture sequences"},
    {CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED",
     "capture was not ended in the same stream as it began"},
    {CAPTURE_UNJOINED, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED",
     "capturing stream has unjoined work"},
    {CAPTURE_ISOLATION, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION",
     "dependency created on uncaptured work in another stream"},
    {CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT",
     "operation not permitted on an event last recorded in a capturing stream"},
    {CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
     "attempt to terminate a thread-local capture sequence from another thread"},
    {UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

// After one of these a context answers nothing else until it is made anew.
bool isSticky(int code) {
  return code == ILLEGAL_ADDRESS || code == 214 || code == 702 || (code >= 714 && code <= 719);
}

using Work = std::function<int()>;

struct Node {
  Work work;
  std::vector<int> after;
  std::function<void()> asked;  // what happens when the graph is launched, long before it runs
};

struct Stream;

// A capture under way: the nodes so far, and the streams that have joined it.
struct Capture {
  std::vector<Node> nodes;
  Stream* origin;
  int mode;
  std::thread::id thread;
  bool invalid = false;
};

struct Event {
  bool timed;
  uint64_t recorded = 0, done = 0;
  std::chrono::steady_clock::time_point time;
  std::shared_ptr<Capture> capture;  // when it was last recorded in one
  std::vector<int> after;            // there
};

struct Operation {
  Work work;
  std::shared_ptr<Event> awaits, records;
  uint64_t ticket = 0;    // of the event: the record meant
  uint64_t sequence = 0;  // among all operations, in the order they were asked for
};

struct Stream {
  bool blocking;  // waits for the legacy stream and is waited for by it
  int priority;
  unsigned flags;
  std::deque<Operation> queue;
  std::shared_ptr<Capture> capture;
  std::vector<int> tail;  // in the capture: what the next node comes after
};

struct Module {
  void* library;
  int file;
};

struct Function {
  const Kernel* kernel;
  Module* module;
  int dynamicShared = emulator::kStaticSharedLimit;
};

struct Graph {
  std::vector<Node> nodes;
};

struct Pinned {
  size_t size;
  bool registered;  // by cuMemHostRegister: not ours
};

struct Physical {
  size_t size;
  int file;
  int mappings;
  bool released;
};

struct Mapping {
  size_t size;
  uint64_t handle;
};

struct PlannedFailure {
  std::string call;
  int nth;
  int code;
};

constexpr size_t kGranularity = 2 << 20;
constexpr size_t kDefaultBudget = size_t(2) << 30;
constexpr size_t kPinnedQuarantine = 64 << 20;

uint64_t firstSeed() {
  const char* text = getenv("WARDROBE_EMULATOR_SEED");
  return text == nullptr ? 1 : strtoull(text, nullptr, 10);
}

struct Device {
  std::recursive_mutex lock;
  uint64_t seed = firstSeed();
  Random random{seed};
  size_t budget = kDefaultBudget;
  size_t used = 0;
  int sticky = SUCCESS;
  std::string report;
  std::map<std::string, uint64_t> counts;
  std::vector<PlannedFailure> failures;
  int retained = 0;             // the primary context
  uint64_t context = 1;         // its handle; a new one each time it is made
  std::set<uint64_t> contexts;  // by cuCtxCreate
  uint64_t lastContext = 1;
  size_t leaked = 0;  // bytes live when the context ended
  std::map<uintptr_t, size_t> allocations;
  std::map<uintptr_t, size_t> reservations;
  std::map<uintptr_t, Mapping> mappings;
  std::map<uint64_t, Physical> physical;
  uint64_t lastPhysical = 0;
  std::map<uintptr_t, Pinned> pinned;
  std::deque<std::pair<void*, size_t>> quarantine;  // freed pinned memory, poisoned
  size_t quarantined = 0;
  Stream legacy{true, 0, 0, {}, nullptr, {}};
  Stream perThread{true, 0, 0, {}, nullptr, {}};
  std::set<Stream*> streams;
  std::set<Stream*> ending;  // destroyed, with work left
  std::map<void*, std::shared_ptr<Event>> events;
  std::set<Module*> modules;
  std::set<Function*> functions;
  std::set<Graph*> graphs, executables;
  std::vector<std::weak_ptr<Capture>> captures;
  uint64_t sequence = 0;
};

Device& device() {
  static auto* instance = new Device;
  return *instance;
}

thread_local std::vector<uint64_t> contextStack;

__attribute__((format(printf, 1, 2))) void report(const char* format, ...) {
  char text[2048];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(text, sizeof text - 64, format, arguments);
  va_end(arguments);
  length = std::min(length, int(sizeof text) - 65);
  snprintf(text + length, sizeof text - length, " [seed %llu]",
           (unsigned long long)device().seed);
  device().report = text;
}

bool contextLives(uint64_t context) {
  Device& d = device();
  return (context == d.context && d.retained > 0) || d.contexts.count(context) != 0;
}

// What every call begins with: counts it, and answers instead of it when a test or an earlier error
// says so.
int begin(const char* call, bool needsContext) {
  Device& d = device();
  std::string name = call;
  if (name.size() > 3 && name.compare(name.size() - 3, 2, "_v") == 0) {
    name.resize(name.size() - 3);
  }
  d.counts[name]++;
  for (auto planned = d.failures.begin(); planned != d.failures.end(); ++planned) {
    if (planned->call == name && --planned->nth <= 0) {
      int code = planned->code;
      d.failures.erase(planned);
      report("%s: failed with %d because the test wants it to", name.c_str(), code);
      if (isSticky(code)) {
        d.sticky = code;
      }
      return code;
    }
  }
  if (needsContext) {
    if (d.sticky != SUCCESS) {
      return d.sticky;
    }
    if (contextStack.empty() || contextStack.back() == 0) {
      report("%s: the calling thread has no current context", name.c_str());
      return INVALID_CONTEXT;
    }
    if (!contextLives(contextStack.back())) {
      report("%s: the calling thread's context was destroyed", name.c_str());
      return CONTEXT_IS_DESTROYED;
    }
  }
  return SUCCESS;
}

#define LOCKED                                                  \
  Device& d = device();                                         \
  std::lock_guard<std::recursive_mutex> guard(d.lock)
#define BEGIN(needsContext)                                     \
  LOCKED;                                                       \
  if (int code = begin(__func__, needsContext)) {               \
    return code;                                                \
  }                                                             \
  (void)d
#define DEVICE_CALL BEGIN(true)
#define PLAIN_CALL BEGIN(false)

// ---------------------------------------------------------------------------------------------
// Streams

Stream* stream(void* handle) {
  Device& d = device();
  auto value = reinterpret_cast<uintptr_t>(handle);
  if (value <= 1) {
    return &d.legacy;
  }
  if (value == 2) {
    return &d.perThread;
  }
  auto* s = static_cast<Stream*>(handle);
  return d.streams.count(s) != 0 ? s : nullptr;
}

int invalidStream(const char* call, void* handle) {
  report("%s: there is no stream %p, or no longer", call, handle);
  return INVALID_HANDLE;
}

std::vector<Stream*> allStreams() {
  Device& d = device();
  std::vector<Stream*> all{&d.legacy, &d.perThread};
  all.insert(all.end(), d.streams.begin(), d.streams.end());
  all.insert(all.end(), d.ending.begin(), d.ending.end());
  return all;
}

void clearQueues() {
  Device& d = device();
  for (Stream* s : allStreams()) {
    s->queue.clear();
  }
  for (Stream* s : d.ending) {
    delete s;
  }
  d.ending.clear();
}

bool runnable(const Stream& s) {
  Device& d = device();
  const Operation& front = s.queue.front();
  if (front.awaits != nullptr && front.awaits->done < front.ticket) {
    return false;
  }
  if (&s == &d.legacy) {
    for (Stream* other : allStreams()) {
      if (other != &s && other->blocking && !other->queue.empty() &&
          other->queue.front().sequence < front.sequence) {
        return false;
      }
    }
  } else if (s.blocking && !d.legacy.queue.empty() &&
             d.legacy.queue.front().sequence < front.sequence) {
    return false;
  }
  return true;
}

// Takes one operation of a random stream; false when none can run.
bool step() {
  Device& d = device();
  std::vector<Stream*> ready;
  for (Stream* s : allStreams()) {
    if (!s->queue.empty() && runnable(*s)) {
      ready.push_back(s);
    }
  }
  if (ready.empty()) {
    return false;
  }
  Stream* s = ready[d.random.below(ready.size())];
  Operation operation = std::move(s->queue.front());
  s->queue.pop_front();
  int code = operation.work ? operation.work() : SUCCESS;
  if (operation.records != nullptr) {
    operation.records->done = std::max(operation.records->done, operation.ticket);
    operation.records->time = std::chrono::steady_clock::now();
  }
  if (s->queue.empty() && d.ending.erase(s) != 0) {
    delete s;
  }
  if (code != SUCCESS) {
    d.sticky = code;
    clearQueues();
  }
  return true;
}

template <class Until>
int drain(Until until) {
  Device& d = device();
  while (d.sticky == SUCCESS && !until()) {
    if (!step()) {
      report("the streams wait for each other: no operation can run");
      return d.sticky = UNKNOWN;
    }
  }
  return d.sticky;
}

int drainAll() {
  return drain([] {
    for (Stream* s : allStreams()) {
      if (!s->queue.empty()) {
        return false;
      }
    }
    return true;
  });
}

// What a call that only looks does: some of what is queued may have been done by then.
int glance() {
  Device& d = device();
  for (uint64_t i = d.random.below(4); i > 0 && d.sticky == SUCCESS; i--) {
    step();
  }
  return d.sticky;
}

// What cuMemFree and its kin do: they may wait for the device, which nobody may rely on.
int perhapsDrain() { return device().random.below(2) == 0 ? drainAll() : SUCCESS; }

std::vector<std::shared_ptr<Capture>> activeCaptures() {
  Device& d = device();
  std::vector<std::shared_ptr<Capture>> active;
  std::vector<std::weak_ptr<Capture>> kept;
  for (auto& weak : d.captures) {
    if (auto capture = weak.lock()) {
      active.push_back(capture);
      kept.push_back(weak);
    }
  }
  d.captures = kept;
  return active;
}

int captureFails(const char* call, Capture& capture, int code, const char* why) {
  capture.invalid = true;
  report("%s: %s; the capture is lost", call, why);
  return code;
}

// Calls that CUDA forbids while a stream captures: they would wait, or touch memory at once.
int unsafeInCapture(const char* call) {
  for (auto& capture : activeCaptures()) {
    bool forbids = capture->mode == 0 ||
                   (capture->mode == 1 && capture->thread == std::this_thread::get_id());
    if (forbids && !capture->invalid) {
      return captureFails(call, *capture, CAPTURE_UNSUPPORTED, "not allowed while capturing");
    }
  }
  return SUCCESS;
}

// The legacy stream waits for every blocking stream, so it may not be used while one captures.
int legacyInCapture(const char* call, const Stream* s) {
  if (s == &device().legacy) {
    for (Stream* other : allStreams()) {
      if (other->blocking && other->capture != nullptr) {
        return captureFails(call, *other->capture, CAPTURE_IMPLICIT,
                            "the legacy stream would wait for a capturing one");
      }
    }
  }
  return SUCCESS;
}

// Queues work, or adds it to the stream's capture.
int submit(const char* call, Stream* s, Work work, std::function<void()> asked = nullptr) {
  Device& d = device();
  if (s->capture != nullptr) {
    Capture& capture = *s->capture;
    if (capture.invalid) {
      return CAPTURE_INVALIDATED;
    }
    capture.nodes.push_back({std::move(work), s->tail, std::move(asked)});
    s->tail = {int(capture.nodes.size()) - 1};
    return SUCCESS;
  }
  if (int code = legacyInCapture(call, s)) {
    return code;
  }
  if (asked) {
    asked();
  }
  Operation operation;
  operation.work = std::move(work);
  operation.sequence = ++d.sequence;
  s->queue.push_back(std::move(operation));
  return SUCCESS;
}

bool drained(const Stream* s) { return s->queue.empty(); }

// Ends a synchronous call on the legacy stream.
int settle() {
  return drain([] { return drained(&device().legacy); });
}

// ---------------------------------------------------------------------------------------------
// Memory

uintptr_t addressOf(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

int checkDevice(const char* call, const char* what, Address address, size_t size) {
  if (size == 0 || memory::allowed(address, size)) {
    return SUCCESS;
  }
  // The first byte that is not there tells most about the mistake.
  uintptr_t bad = address;
  if (memory::allowed(bad, 1)) {
    size_t low = 1, high = size;
    while (low + 1 < high) {
      size_t middle = low + (high - low) / 2;
      (memory::allowed(bad, middle) ? low : high) = middle;
    }
    bad += low;
  }
  report("%s: %s of %zu bytes at %p leaves the device's memory: %s", call, what, size,
         reinterpret_cast<void*>(address), memory::describe(bad).c_str());
  return INVALID_VALUE;
}

bool isPinned(uintptr_t address, size_t size) {
  auto& pinned = device().pinned;
  auto after = pinned.upper_bound(address);
  if (after == pinned.begin()) {
    return false;
  }
  auto at = std::prev(after);
  return address + size <= at->first + at->second.size;
}

int checkPinned(const char* call, const void* host, size_t size) {
  if (size == 0 || isPinned(addressOf(host), size)) {
    return SUCCESS;
  }
  report("%s: async copy of %zu bytes at %p, which is memory that is not pinned", call, size, host);
  return INVALID_VALUE;
}

// A queued copy's turn has come: what it was given must still be there.
int copyNow(const char* call, void* to, const void* from, size_t size, bool toDevice,
            bool fromDevice) {
  auto missing = [&](const char* what, const void* at) {
    report("%s: %s of %zu bytes at %p was freed before the copy ran", call, what, size, at);
    return int(ILLEGAL_ADDRESS);
  };
  if (size == 0) {
    return SUCCESS;
  }
  if (toDevice ? !memory::allowed(addressOf(to), size) : !isPinned(addressOf(to), size)) {
    return missing(toDevice ? "the device's memory" : "the host's pinned memory", to);
  }
  if (fromDevice ? !memory::allowed(addressOf(from), size) : !isPinned(addressOf(from), size)) {
    return missing(fromDevice ? "the device's memory" : "the host's pinned memory", from);
  }
  memmove(to, from, size);
  return SUCCESS;
}

void* at(Address address) { return reinterpret_cast<void*>(address); }

int copyToDevice(const char* call, Address to, const void* from, size_t size, Stream* s) {
  if (int code = checkDevice(call, "a write", to, size)) {
    return code;
  }
  if (int code = checkPinned(call, from, size)) {
    return code;
  }
  device().counts["copies"]++;
  return submit(call, s, [=] { return copyNow(call, at(to), from, size, true, false); });
}

int copyToHost(const char* call, void* to, Address from, size_t size, Stream* s) {
  if (int code = checkDevice(call, "a read", from, size)) {
    return code;
  }
  if (int code = checkPinned(call, to, size)) {
    return code;
  }
  device().counts["copies"]++;
  return submit(
      call, s, [=] { return copyNow(call, to, at(from), size, false, true); },
      [=] {
        if (isPinned(addressOf(to), size)) {
          memset(to, memory::kPoison, size);  // what the host reads before it has waited
        }
      });
}

int copyOnDevice(const char* call, Address to, Address from, size_t size, Stream* s) {
  if (int code = checkDevice(call, "a write", to, size)) {
    return code;
  }
  if (int code = checkDevice(call, "a read", from, size)) {
    return code;
  }
  device().counts["copies"]++;
  return submit(call, s, [=] { return copyNow(call, at(to), at(from), size, true, true); });
}

template <class T>
int fill(const char* call, Address to, T value, size_t count, Stream* s) {
  if (to % sizeof(T) != 0) {
    report("%s: %p is no multiple of %zu", call, at(to), sizeof(T));
    return INVALID_VALUE;
  }
  if (int code = checkDevice(call, "a write", to, count * sizeof(T))) {
    return code;
  }
  return submit(call, s, [=] {
    if (!memory::allowed(to, count * sizeof(T)) && count > 0) {
      report("%s: the memory at %p was freed before it ran", call, at(to));
      return int(ILLEGAL_ADDRESS);
    }
    std::fill_n(static_cast<T*>(at(to)), count, value);
    return int(SUCCESS);
  });
}

// A synchronous copy goes by the legacy stream.
int copyAtOnce(const char* call, Work work) {
  if (int code = unsafeInCapture(call)) {
    return code;
  }
  device().counts["copies"]++;
  if (int code = submit(call, &device().legacy, std::move(work))) {
    return code;
  }
  return settle();
}

int takeMemory(const char* call, size_t size) {
  Device& d = device();
  if (size > d.budget - d.used) {
    report("%s: %zu bytes asked for, %zu of %zu left", call, size, d.budget - d.used, d.budget);
    return OUT_OF_MEMORY;
  }
  d.used += size;
  return SUCCESS;
}

void freeAllocation(std::map<uintptr_t, size_t>::iterator allocation) {
  Device& d = device();
  auto [address, size] = *allocation;
  memory::forbid(address, size);
  memory::unname(address);
  memory::release(address, size);
  d.used -= size;
  d.allocations.erase(allocation);
}

void freePinned(std::map<uintptr_t, Pinned>::iterator pinned) {
  Device& d = device();
  auto [address, range] = *pinned;
  d.pinned.erase(pinned);
  if (range.registered) {
    return;
  }
  // Kept for a while, so that who still reads it finds poison and not a crash.
  void* memory = at(address);
  memset(memory, memory::kPoison, range.size);
  d.quarantine.push_back({memory, range.size});
  d.quarantined += range.size;
  while (d.quarantined > kPinnedQuarantine && d.quarantine.size() > 1) {
    auto [oldest, size] = d.quarantine.front();
    munmap(oldest, size);
    d.quarantined -= size;
    d.quarantine.pop_front();
  }
}

void dropMapping(uintptr_t address) {
  Device& d = device();
  auto mapping = d.mappings.find(address);
  auto physical = d.physical.find(mapping->second.handle);
  memory::forbid(address, mapping->second.size);
  memory::unname(address);
  mmap(at(address), mapping->second.size, PROT_READ | PROT_WRITE,
       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  d.mappings.erase(mapping);
  if (--physical->second.mappings == 0 && physical->second.released) {
    d.used -= physical->second.size;
    close(physical->second.file);
    d.physical.erase(physical);
  }
}

std::string filePath(int file) { return "/proc/self/fd/" + std::to_string(file); }

void unload(Module* module) {
  dlclose(module->library);
  // The loader knows libraries by their path: while it keeps this one, no other may have it.
  if (dlopen(filePath(module->file).c_str(), RTLD_NOLOAD | RTLD_LAZY) == nullptr) {
    close(module->file);
  }
  delete module;
}

// Everything that lives in a context, gone with it. Says how many bytes of device memory were left;
// none after an error that made it impossible to free them.
size_t endContext() {
  Device& d = device();
  clearQueues();
  size_t left = d.sticky == SUCCESS ? d.used : 0;
  std::string list;
  for (auto& [address, size] : d.allocations) {
    if (list.size() < 400) {
      char text[64];
      snprintf(text, sizeof text, "%s%zu bytes at %p", list.empty() ? "" : ", ", size,
               at(address));
      list += text;
    }
  }
  for (auto& [handle, physical] : d.physical) {
    if (list.size() < 400) {
      list += (list.empty() ? "" : ", ") + std::to_string(physical.size) + " bytes of cuMemCreate";
    }
  }
  if (left > 0) {
    report("the context ended with %zu bytes of device memory live: %s", left, list.c_str());
  }
  while (!d.mappings.empty()) {
    dropMapping(d.mappings.begin()->first);
  }
  for (auto& [handle, physical] : d.physical) {
    close(physical.file);
    d.used -= physical.size;
  }
  d.physical.clear();
  while (!d.allocations.empty()) {
    freeAllocation(d.allocations.begin());
  }
  for (auto& [address, size] : d.reservations) {
    memory::unnameReservation(address);
    memory::release(address, size);
  }
  d.reservations.clear();
  while (!d.pinned.empty()) {
    freePinned(d.pinned.begin());
  }
  for (Stream* s : d.streams) {
    delete s;
  }
  d.streams.clear();
  d.legacy.capture = nullptr;
  d.perThread.capture = nullptr;
  d.events.clear();
  for (Function* function : d.functions) {
    delete function;
  }
  d.functions.clear();
  for (Module* module : d.modules) {
    unload(module);
  }
  d.modules.clear();
  for (Graph* graph : d.graphs) {
    delete graph;
  }
  for (Graph* graph : d.executables) {
    delete graph;
  }
  d.graphs.clear();
  d.executables.clear();
  d.captures.clear();
  d.sticky = SUCCESS;
  return left;
}

// ---------------------------------------------------------------------------------------------
// Kernels

int launchNow(const Launch& launch) {
  Device& d = device();
  d.counts["kernels"]++;
  d.counts[std::string("kernel ") + launch.kernel->name]++;
  Outcome outcome = emulator::run(launch, d.random.next());
  if (outcome.code != SUCCESS) {
    const dim3& g = launch.grid;
    const dim3& b = launch.block;
    report("%s; launched as grid (%u, %u, %u), block (%u, %u, %u)", outcome.message.c_str(), g.x,
           g.y, g.z, b.x, b.y, b.z);
  }
  return outcome.code;
}

// Where the parameters lie in the buffer of CU_LAUNCH_PARAM_BUFFER_POINTER, and its size.
size_t parameterOffsets(const Kernel& kernel, std::vector<size_t>& offsets) {
  size_t at = 0;
  for (int i = 0; i < kernel.parameters; i++) {
    at = (at + kernel.alignments[i] - 1) / kernel.alignments[i] * kernel.alignments[i];
    offsets.push_back(at);
    at += kernel.sizes[i];
  }
  return at;
}

// Runs a graph's nodes in random order, each after those it comes after.
int runGraph(const Graph& graph) {
  Device& d = device();
  size_t count = graph.nodes.size();
  std::vector<int> missing(count);
  std::vector<std::vector<int>> before(count);
  std::vector<int> ready;
  for (size_t i = 0; i < count; i++) {
    missing[i] = int(graph.nodes[i].after.size());
    for (int other : graph.nodes[i].after) {
      before[other].push_back(int(i));
    }
    if (missing[i] == 0) {
      ready.push_back(int(i));
    }
  }
  while (!ready.empty()) {
    size_t pick = d.random.below(ready.size());
    int node = ready[pick];
    ready[pick] = ready.back();
    ready.pop_back();
    if (int code = graph.nodes[node].work()) {
      return code;
    }
    for (int next : before[node]) {
      if (--missing[next] == 0) {
        ready.push_back(next);
      }
    }
  }
  return SUCCESS;
}

int attribute(int which) {
  switch (which) {
    case 1:  // threads per block
    case 2:  // block x
    case 3:  // block y
      return 1024;
    case 4:
      return 64;
    case 5:  // grid x
      return 2147483647;
    case 6:
    case 7:
      return 65535;
    case 8:  // shared memory per block
      return int(emulator::kStaticSharedLimit);
    case 9:  // constant memory
      return 65536;
    case 10:  // warp
      return 32;
    case 11:  // pitch
      return 2147483647;
    case 12:  // registers per block
    case 82:  // per multiprocessor
      return 65536;
    case 13:  // clock, kHz
      return 1980000;
    case 14:  // texture alignment
      return 512;
    case 15:  // overlap of copies and kernels
    case 19:  // host memory can be mapped
    case 31:  // concurrent kernels
    case 32:  // ECC
    case 41:  // unified addressing
    case 78:  // stream priorities
    case 79:  // L1 cache
    case 80:
    case 83:  // managed memory
    case 95:  // cooperative launches
    case 102:  // virtual memory management
      return 1;
    case 16:
      return 132;
    case 36:  // memory clock, kHz
      return 3201000;
    case 37:  // memory bus, bits
      return 6144;
    case 38:  // L2 cache
      return 62914560;
    case 39:  // threads per multiprocessor
      return 2048;
    case 40:  // copy engines
      return 3;
    case 75:  // compute capability
      return 9;
    case 76:
      return 0;
    case 81:  // shared memory per multiprocessor
      return 233472;
    case 97:  // shared memory per block, by consent
      return int(emulator::kSharedLimit);
    case 106:  // blocks per multiprocessor
      return 32;
    case 111:  // shared memory reserved per block
      return 1024;
    default:
      return 0;
  }
}

}  // namespace

// ---------------------------------------------------------------------------------------------
// The driver API

extern "C" {

int cuInit(unsigned flags) {
  PLAIN_CALL;
  return flags == 0 ? SUCCESS : INVALID_VALUE;
}

int cuDriverGetVersion(int* version) {
  PLAIN_CALL;
  *version = 13000;
  return SUCCESS;
}

int cuGetErrorName(int error, const char** name) {
  for (const ErrorName& known : kErrors) {
    if (known.code == error) {
      *name = known.name;
      return SUCCESS;
    }
  }
  *name = nullptr;
  return INVALID_VALUE;
}

int cuGetErrorString(int error, const char** text) {
  for (const ErrorName& known : kErrors) {
    if (known.code == error) {
      *text = known.text;
      return SUCCESS;
    }
  }
  *text = nullptr;
  return INVALID_VALUE;
}

int cuDeviceGetCount(int* count) {
  PLAIN_CALL;
  *count = 1;
  return SUCCESS;
}

int cuDeviceGet(int* handle, int ordinal) {
  PLAIN_CALL;
  *handle = 0;
  return ordinal == 0 ? SUCCESS : INVALID_DEVICE;
}

int cuDeviceGetName(char* name, int size, int) {
  PLAIN_CALL;
  snprintf(name, size, "Wardrobe's emulated device");
  return SUCCESS;
}

int cuDeviceGetUuid(char* uuid, int) {
  PLAIN_CALL;
  memset(uuid, 0x57, 16);
  return SUCCESS;
}

int cuDeviceTotalMem_v2(size_t* bytes, int) {
  PLAIN_CALL;
  *bytes = d.budget;
  return SUCCESS;
}

int cuDeviceGetAttribute(int* value, int which, int) {
  PLAIN_CALL;
  *value = attribute(which);
  return SUCCESS;
}

int cuDeviceGetPCIBusId(char* id, int size, int) {
  PLAIN_CALL;
  snprintf(id, size, "0000:00:00.0");
  return SUCCESS;
}

int cuDeviceCanAccessPeer(int* can, int, int) {
  PLAIN_CALL;
  *can = 0;
  return SUCCESS;
}

// Contexts

int cuDevicePrimaryCtxRetain(uint64_t* context, int) {
  PLAIN_CALL;
  if (d.retained++ == 0) {
    d.context = ++d.lastContext << 4;
  }
  *context = d.context;
  return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int) {
  PLAIN_CALL;
  if (d.retained == 0) {
    report("cuDevicePrimaryCtxRelease: nobody has retained the primary context");
    return INVALID_CONTEXT;
  }
  if (--d.retained == 0) {
    d.leaked += endContext();
  }
  return SUCCESS;
}
int cuDevicePrimaryCtxRelease(int dev) { return cuDevicePrimaryCtxRelease_v2(dev); }

int cuDevicePrimaryCtxReset_v2(int) {
  PLAIN_CALL;
  d.leaked += endContext();
  return SUCCESS;
}
int cuDevicePrimaryCtxReset(int dev) { return cuDevicePrimaryCtxReset_v2(dev); }

int cuDevicePrimaryCtxGetState(int, unsigned* flags, int* active) {
  PLAIN_CALL;
  *flags = 0;
  *active = d.retained > 0;
  return SUCCESS;
}

int cuDevicePrimaryCtxSetFlags_v2(int, unsigned) {
  PLAIN_CALL;
  return SUCCESS;
}
int cuDevicePrimaryCtxSetFlags(int dev, unsigned flags) {
  return cuDevicePrimaryCtxSetFlags_v2(dev, flags);
}

int cuCtxCreate_v2(uint64_t* context, unsigned, int) {
  PLAIN_CALL;
  *context = ++d.lastContext << 4;
  d.contexts.insert(*context);
  contextStack.push_back(*context);
  return SUCCESS;
}

int cuCtxDestroy_v2(uint64_t context) {
  PLAIN_CALL;
  if (d.contexts.erase(context) == 0) {
    report("cuCtxDestroy: there is no such context, or no longer");
    return INVALID_CONTEXT;
  }
  if (!contextStack.empty() && contextStack.back() == context) {
    contextStack.pop_back();
  }
  if (d.contexts.empty() && d.retained == 0) {
    d.leaked += endContext();
  }
  return SUCCESS;
}

int cuCtxSetCurrent(uint64_t context) {
  PLAIN_CALL;
  if (context != 0 && !contextLives(context)) {
    report("cuCtxSetCurrent: there is no such context, or no longer");
    return INVALID_CONTEXT;
  }
  if (contextStack.empty()) {
    contextStack.push_back(context);
  } else {
    contextStack.back() = context;
  }
  return SUCCESS;
}

int cuCtxGetCurrent(uint64_t* context) {
  PLAIN_CALL;
  *context = contextStack.empty() ? 0 : contextStack.back();
  return SUCCESS;
}

int cuCtxPushCurrent_v2(uint64_t context) {
  PLAIN_CALL;
  if (!contextLives(context)) {
    return INVALID_CONTEXT;
  }
  contextStack.push_back(context);
  return SUCCESS;
}

int cuCtxPopCurrent_v2(uint64_t* context) {
  PLAIN_CALL;
  if (contextStack.empty()) {
    return INVALID_CONTEXT;
  }
  if (context != nullptr) {
    *context = contextStack.back();
  }
  contextStack.pop_back();
  return SUCCESS;
}

int cuCtxGetDevice(int* dev) {
  DEVICE_CALL;
  *dev = 0;
  return SUCCESS;
}

int cuCtxSynchronize() {
  DEVICE_CALL;
  if (int code = unsafeInCapture("cuCtxSynchronize")) {
    return code;
  }
  return drainAll();
}

int cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  DEVICE_CALL;
  *least = 0;
  *greatest = -5;
  return SUCCESS;
}

// Memory

int cuMemGetInfo_v2(size_t* free, size_t* total) {
  DEVICE_CALL;
  *free = d.budget - d.used;
  *total = d.budget;
  return SUCCESS;
}

int cuMemAlloc_v2(Address* address, size_t size) {
  DEVICE_CALL;
  if (int code = unsafeInCapture("cuMemAlloc")) {
    return code;
  }
  if (size == 0) {
    return INVALID_VALUE;
  }
  if (int code = takeMemory("cuMemAlloc", size)) {
    return code;
  }
  uintptr_t at = memory::reserve(size, 256);
  if (at == 0) {
    d.used -= size;
    report("cuMemAlloc: no addresses left for %zu bytes", size);
    return OUT_OF_MEMORY;
  }
  memory::poison(at, size);
  memory::allow(at, size);
  memory::name(at, size, "allocation");
  d.allocations[at] = size;
  *address = at;
  return SUCCESS;
}

int cuMemFree_v2(Address address) {
  DEVICE_CALL;
  if (int code = unsafeInCapture("cuMemFree")) {
    return code;
  }
  if (address == 0) {
    return SUCCESS;
  }
  if (int code = perhapsDrain()) {
    return code;
  }
  auto allocation = d.allocations.find(address);
  if (allocation == d.allocations.end()) {
    report("cuMemFree: %p is no allocation, or no longer: %s", at(address),
           memory::describe(address).c_str());
    return INVALID_VALUE;
  }
  freeAllocation(allocation);
  return SUCCESS;
}

int cuMemGetAddressRange_v2(Address* base, size_t* size, Address address) {
  DEVICE_CALL;
  auto after = d.allocations.upper_bound(address);
  if (after == d.allocations.begin()) {
    return NOT_FOUND;
  }
  auto allocation = std::prev(after);
  if (address >= allocation->first + allocation->second) {
    return NOT_FOUND;
  }
  if (base != nullptr) {
    *base = allocation->first;
  }
  if (size != nullptr) {
    *size = allocation->second;
  }
  return SUCCESS;
}

int cuMemHostAlloc(void** host, size_t size, unsigned) {
  DEVICE_CALL;
  if (int code = unsafeInCapture("cuMemHostAlloc")) {
    return code;
  }
  if (size == 0) {
    return INVALID_VALUE;
  }
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return OUT_OF_MEMORY;
  }
  memset(memory, memory::kPoison, size);
  d.pinned[addressOf(memory)] = {size, false};
  *host = memory;
  return SUCCESS;
}
int cuMemAllocHost_v2(void** host, size_t size) { return cuMemHostAlloc(host, size, 0); }

int cuMemFreeHost(void* host) {
  DEVICE_CALL;
  if (int code = unsafeInCapture("cuMemFreeHost")) {
    return code;
  }
  if (host == nullptr) {
    return SUCCESS;
  }
  if (int code = perhapsDrain()) {
    return code;
  }
  auto pinned = d.pinned.find(addressOf(host));
  if (pinned == d.pinned.end() || pinned->second.registered) {
    report("cuMemFreeHost: %p was not given by cuMemHostAlloc, or is freed already", host);
    return INVALID_VALUE;
  }
  freePinned(pinned);
  return SUCCESS;
}

int cuMemHostRegister_v2(void* host, size_t size, unsigned) {
  DEVICE_CALL;
  if (host == nullptr || size == 0) {
    return INVALID_VALUE;
  }
  uintptr_t first = addressOf(host);
  auto after = d.pinned.lower_bound(first);
  bool overlaps = after != d.pinned.end() && after->first < first + size;
  if (after != d.pinned.begin()) {
    auto before = std::prev(after);
    overlaps |= before->first + before->second.size > first;
  }
  if (overlaps) {
    report("cuMemHostRegister: a part of %zu bytes at %p is pinned already", size, host);
    return HOST_MEMORY_ALREADY_REGISTERED;
  }
  d.pinned[first] = {size, true};
  return SUCCESS;
}

int cuMemHostUnregister(void* host) {
  DEVICE_CALL;
  if (int code = perhapsDrain()) {
    return code;
  }
  auto pinned = d.pinned.find(addressOf(host));
  if (pinned == d.pinned.end() || !pinned->second.registered) {
    report("cuMemHostUnregister: %p is not registered", host);
    return HOST_MEMORY_NOT_REGISTERED;
  }
  freePinned(pinned);
  return SUCCESS;
}

int cuMemHostGetFlags(unsigned* flags, void* host) {
  DEVICE_CALL;
  *flags = 0;
  return isPinned(addressOf(host), 1) ? SUCCESS : INVALID_VALUE;
}

int cuMemcpyHtoD_v2(Address to, const void* from, size_t size) {
  DEVICE_CALL;
  if (int code = checkDevice("cuMemcpyHtoD", "a write", to, size)) {
    return code;
  }
  return copyAtOnce("cuMemcpyHtoD", [=] {
    memcpy(at(to), from, size);
    return int(SUCCESS);
  });
}

int cuMemcpyDtoH_v2(void* to, Address from, size_t size) {
  DEVICE_CALL;
  if (int code = checkDevice("cuMemcpyDtoH", "a read", from, size)) {
    return code;
  }
  return copyAtOnce("cuMemcpyDtoH", [=] {
    memcpy(to, at(from), size);
    return int(SUCCESS);
  });
}

int cuMemcpyDtoD_v2(Address to, Address from, size_t size) {
  DEVICE_CALL;
  if (int code = unsafeInCapture("cuMemcpyDtoD")) {
    return code;
  }
  return copyOnDevice("cuMemcpyDtoD", to, from, size, &d.legacy);  // the host does not wait
}

int cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t size, void* handle) {
  DEVICE_CALL;
  Stream* s = stream(handle);
  return s == nullptr ? invalidStream("cuMemcpyHtoDAsync", handle)
                      : copyToDevice("cuMemcpyHtoDAsync", to, from, size, s);
}

int cuMemcpyDtoHAsync_v2(void* to, Address from, size_t size, void* handle) {
  DEVICE_CALL;
  Stream* s = stream(handle);
  return s == nullptr ? invalidStream("cuMemcpyDtoHAsync", handle)
                      : copyToHost("cuMemcpyDtoHAsync", to, from, size, s);
}

int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t size, void* handle) {
  DEVICE_CALL;
  Stream* s = stream(handle);
  return s == nullptr ? invalidStream("cuMemcpyDtoDAsync", handle)
                      : copyOnDevice("cuMemcpyDtoDAsync", to, from, size, s);
}

// The copies that tell host from device by the address.
int cuMemcpyAsync(Address to, Address from, size_t size, void* handle) {
  DEVICE_CALL;
  Stream* s = stream(handle);
  if (s == nullptr) {
    return invalidStream("cuMemcpyAsync", handle);
  }
  bool toDevice = memory::contains(to);
  bool fromDevice = memory::contains(from);
  if (toDevice && fromDevice) {
    return copyOnDevice("cuMemcpyAsync", to, from, size, s);
  }
  if (toDevice) {
    return copyToDevice("cuMemcpyAsync", to, at(from), size, s);
  }
  if (fromDevice) {
    return copyToHost("cuMemcpyAsync", at(to), from, size, s);
  }
  report("cuMemcpyAsync: neither %p nor %p is the device's", at(to), at(from));
  return INVALID_VALUE;
}

int cuMemcpy(Address to, Address from, size_t size) {
  if (memory::contains(to) && memory::contains(from)) {
    return cuMemcpyDtoD_v2(to, from, size);
  }
  return memory::contains(to) ? cuMemcpyHtoD_v2(to, at(from), size)
                              : cuMemcpyDtoH_v2(at(to), from, size);
}

int cuMemsetD8Async(Address to, unsigned char value, size_t count, void* handle) {
  DEVICE_CALL;
  Stream* s = stream(handle);
  return s == nullptr ? invalidStream("cuMemsetD8Async", handle)
                      : fill("cuMemsetD8Async", to, value, count, s);
}

int cuMemsetD16Async(Address to, unsigned short value, size_t count, void* handle) {
  DEVICE_CALL;
  Stream* s = stream(handle);
  return s == nullptr ? invalidStream("cuMemsetD16Async", handle)
                      : fill("cuMemsetD16Async", to, value, count, s);
}

int cuMemsetD32Async(Address to, unsigned value, size_t count, void* handle) {
  DEVICE_CALL;
  Stream* s = stream(handle);
  return s == nullptr ? invalidStream("cuMemsetD32Async", handle)
                      : fill("cuMemsetD32Async", to, value, count, s);
}

int cuMemsetD8_v2(Address to, unsigned char value, size_t count) {
  return cuMemsetD8Async(to, value, count, nullptr);
}
int cuMemsetD16_v2(Address to, unsigned short value, size_t count) {
  return cuMemsetD16Async(to, value, count, nullptr);
}
int cuMemsetD32_v2(Address to, unsigned value, size_t count) {
  return cuMemsetD32Async(to, value, count, nullptr);
}

// Virtual memory

constexpr int kPinned = 1;    // CU_MEM_ALLOCATION_TYPE_PINNED
constexpr int kOnDevice = 1;  // CU_MEM_LOCATION_TYPE_DEVICE

struct AllocationProperties {
  int type, handleTypes;
  int locationType, location;
  void* metadata;
  unsigned char compression, remote;
  unsigned short usage;
  unsigned char reserved[4];
};
struct AccessDescription {
  int locationType, location;
  int flags;  // 1 to read, 3 to read and write
};

// Whether properties ask for memory of the device. Usage is left alone: JCuda leaves it unset.
static bool onDevice(const char* call, const AllocationProperties* asked) {
  bool plain = asked != nullptr && asked->type == kPinned && asked->handleTypes == 0 &&
               asked->locationType == kOnDevice && asked->location == 0 &&
               asked->metadata == nullptr && asked->compression == 0 && asked->remote == 0;
  if (!plain) {
    report("%s: the properties do not ask for memory of device 0", call);
  }
  return plain;
}

int cuMemGetAllocationGranularity(size_t* granularity, const AllocationProperties* asked, int) {
  DEVICE_CALL;
  if (!onDevice("cuMemGetAllocationGranularity", asked)) {
    return INVALID_VALUE;
  }
  *granularity = kGranularity;
  return SUCCESS;
}

int cuMemAddressReserve(Address* address, size_t size, size_t alignment, Address, Address flags) {
  DEVICE_CALL;
  if (size == 0 || size % kGranularity != 0 || flags != 0) {
    report("cuMemAddressReserve: %zu bytes are no multiple of %zu", size, kGranularity);
    return INVALID_VALUE;
  }
  uintptr_t at = memory::reserve(size, std::max(alignment, kGranularity));
  if (at == 0) {
    report("cuMemAddressReserve: no addresses left for %zu bytes", size);
    return OUT_OF_MEMORY;
  }
  memory::nameReservation(at, size);
  d.reservations[at] = size;
  *address = at;
  return SUCCESS;
}

int cuMemAddressFree(Address address, size_t size) {
  DEVICE_CALL;
  auto reservation = d.reservations.find(address);
  if (reservation == d.reservations.end() || reservation->second != size) {
    report("cuMemAddressFree: %zu bytes at %p are no reservation", size, at(address));
    return INVALID_VALUE;
  }
  auto mapped = d.mappings.lower_bound(address);
  if (mapped != d.mappings.end() && mapped->first < address + size) {
    report("cuMemAddressFree: the range at %p still has memory mapped at %p", at(address),
           at(mapped->first));
    return INVALID_VALUE;
  }
  memory::unnameReservation(address);
  memory::release(address, size);
  d.reservations.erase(reservation);
  return SUCCESS;
}

int cuMemCreate(uint64_t* handle, size_t size, const AllocationProperties* asked, Address) {
  DEVICE_CALL;
  if (!onDevice("cuMemCreate", asked)) {
    return INVALID_VALUE;
  }
  if (size == 0 || size % kGranularity != 0) {
    report("cuMemCreate: %zu bytes are no multiple of %zu", size, kGranularity);
    return INVALID_VALUE;
  }
  if (int code = takeMemory("cuMemCreate", size)) {
    return code;
  }
  int file = memfd_create("wardrobe-emulator", MFD_CLOEXEC);
  void* memory = MAP_FAILED;
  if (file >= 0 && ftruncate(file, off_t(size)) == 0) {
    memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  }
  if (memory == MAP_FAILED) {
    d.used -= size;
    if (file >= 0) {
      close(file);
    }
    report("cuMemCreate: the host has no memory for %zu bytes", size);
    return OUT_OF_MEMORY;
  }
  memset(memory, memory::kPoison, size);
  munmap(memory, size);
  *handle = ++d.lastPhysical;
  d.physical[*handle] = {size, file, 0, false};
  return SUCCESS;
}

int cuMemRelease(uint64_t handle) {
  DEVICE_CALL;
  auto physical = d.physical.find(handle);
  if (physical == d.physical.end() || physical->second.released) {
    report("cuMemRelease: there is no memory %llu, or no longer", (unsigned long long)handle);
    return INVALID_VALUE;
  }
  physical->second.released = true;
  if (physical->second.mappings == 0) {
    d.used -= physical->second.size;
    close(physical->second.file);
    d.physical.erase(physical);
  }
  return SUCCESS;
}

int cuMemMap(Address address, size_t size, size_t offset, uint64_t handle, Address) {
  DEVICE_CALL;
  auto physical = d.physical.find(handle);
  if (physical == d.physical.end() || physical->second.released) {
    report("cuMemMap: there is no memory %llu, or no longer", (unsigned long long)handle);
    return INVALID_VALUE;
  }
  if (offset != 0 || size != physical->second.size || address % kGranularity != 0) {
    report("cuMemMap: %zu bytes from %zu at %p; expected all %zu bytes at a multiple of %zu", size,
           offset, at(address), physical->second.size, kGranularity);
    return INVALID_VALUE;
  }
  auto after = d.reservations.upper_bound(address);
  auto reservation = after == d.reservations.begin() ? d.reservations.end() : std::prev(after);
  if (reservation == d.reservations.end() ||
      address + size > reservation->first + reservation->second) {
    report("cuMemMap: %zu bytes at %p are not reserved", size, at(address));
    return INVALID_VALUE;
  }
  auto next = d.mappings.lower_bound(address);
  bool taken = next != d.mappings.end() && next->first < address + size;
  if (next != d.mappings.begin()) {
    auto before = std::prev(next);
    taken |= before->first + before->second.size > address;
  }
  if (taken) {
    report("cuMemMap: a part of %zu bytes at %p is mapped already", size, at(address));
    return INVALID_VALUE;
  }
  if (mmap(at(address), size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
           physical->second.file, 0) == MAP_FAILED) {
    return MAPPING_FAILED;
  }
  physical->second.mappings++;
  d.mappings[address] = {size, handle};
  memory::name(address, size, "mapping without access");
  return SUCCESS;
}

// Whether mappings cover a range, each whole.
static bool mapped(Address address, size_t size) {
  auto& mappings = device().mappings;
  for (Address next = address; next < address + size;) {
    auto mapping = mappings.find(next);
    if (mapping == mappings.end() || next + mapping->second.size > address + size) {
      return false;
    }
    next += mapping->second.size;
  }
  return true;
}

int cuMemSetAccess(Address address, size_t size, const AccessDescription* access, size_t count) {
  DEVICE_CALL;
  if (count != 1 || access[0].locationType != kOnDevice || access[0].location != 0) {
    report("cuMemSetAccess: %zu descriptions, the first of location type %d, number %d; expected "
           "one of device 0, whose type is 1",
           count, access[0].locationType, access[0].location);
    return INVALID_VALUE;
  }
  if (!mapped(address, size)) {
    report("cuMemSetAccess: %zu bytes at %p are not mapped", size, at(address));
    return INVALID_VALUE;
  }
  for (Address next = address; next < address + size;) {
    size_t length = d.mappings[next].size;
    if (access[0].flags == 3) {
      memory::allow(next, length);
      memory::name(next, length, "mapping");
    } else {
      memory::forbid(next, length);
      memory::name(next, length, "mapping without access");
    }
    next += length;
  }
  return SUCCESS;
}

int cuMemUnmap(Address address, size_t size) {
  DEVICE_CALL;
  if (int code = perhapsDrain()) {
    return code;
  }
  if (!mapped(address, size)) {
    report("cuMemUnmap: %zu bytes at %p are no mappings", size, at(address));
    return INVALID_VALUE;
  }
  for (Address next = address; next < address + size;) {
    size_t length = d.mappings[next].size;
    dropMapping(next);
    next += length;
  }
  return SUCCESS;
}

// Streams

int cuStreamCreateWithPriority(void** handle, unsigned flags, int priority) {
  DEVICE_CALL;
  auto* s = new Stream{(flags & 1) == 0, priority, flags, {}, nullptr, {}};
  d.streams.insert(s);
  *handle = s;
  return SUCCESS;
}
int cuStreamCreate(void** handle, unsigned flags) {
  return cuStreamCreateWithPriority(handle, flags, 0);
}

int cuStreamDestroy_v2(void* handle) {
  DEVICE_CALL;
  auto* s = static_cast<Stream*>(handle);
  if (d.streams.erase(s) == 0) {
    return invalidStream("cuStreamDestroy", handle);
  }
  if (s->capture != nullptr) {
    s->capture->invalid = true;
  }
  if (s->queue.empty()) {
    delete s;
  } else {
    d.ending.insert(s);
  }
  return SUCCESS;
}

int cuStreamGetPriority(void* handle, int* priority) {
  DEVICE_CALL;
  Stream* s = stream(handle);
  if (s == nullptr) {
    return invalidStream("cuStreamGetPriority", handle);
  }
  *priority = s->priority;
  return SUCCESS;
}

int cuStreamGetFlags(void* handle, unsigned* flags) {
  DEVICE_CALL;
  Stream* s = stream(handle);
  if (s == nullptr) {
    return invalidStream("cuStreamGetFlags", handle);
  }
  *flags = s->flags;
  return SUCCESS;
}

int cuStreamSynchronize(void* handle) {
  DEVICE_CALL;
  Stream* s = stream(handle);
  if (s == nullptr) {
    return invalidStream("cuStreamSynchronize", handle);
  }
  if (s->capture != nullptr) {
    return captureFails("cuStreamSynchronize", *s->capture, CAPTURE_UNSUPPORTED,
                        "the stream is capturing");
  }
  if (int code = legacyInCapture("cuStreamSynchronize", s)) {
    return code;
  }
  if (s != &d.legacy) {
    return drain([s] { return drained(s); });
  }
  // What the legacy stream waits for is part of it.
  submit("cuStreamSynchronize", s, [] { return int(SUCCESS); });
  return settle();
}

int cuStreamQuery(void* handle) {
  DEVICE_CALL;
  Stream* s = stream(handle);
  if (s == nullptr) {
    return invalidStream("cuStreamQuery", handle);
  }
  if (s->capture != nullptr) {
    return captureFails("cuStreamQuery", *s->capture, CAPTURE_UNSUPPORTED,
                        "the stream is capturing");
  }
  if (int code = glance()) {
    return code;
  }
  return drained(s) ? SUCCESS : NOT_READY;
}

int cuStreamWaitEvent(void* handle, void* eventHandle, unsigned) {
  DEVICE_CALL;
  Stream* s = stream(handle);
  if (s == nullptr) {
    return invalidStream("cuStreamWaitEvent", handle);
  }
  auto found = d.events.find(eventHandle);
  if (found == d.events.end()) {
    report("cuStreamWaitEvent: there is no event %p, or no longer", eventHandle);
    return INVALID_HANDLE;
  }
  std::shared_ptr<Event> event = found->second;
  if (event->capture != nullptr) {
    if (event->capture->invalid) {
      return CAPTURE_INVALIDATED;
    }
    if (s->capture == nullptr) {
      if (!s->queue.empty() && s == &d.legacy) {
        return captureFails("cuStreamWaitEvent", *event->capture, CAPTURE_IMPLICIT,
                            "the legacy stream cannot join a capture");
      }
      s->capture = event->capture;
      s->tail = event->after;
      return SUCCESS;
    }
    if (s->capture != event->capture) {
      event->capture->invalid = true;
      return captureFails("cuStreamWaitEvent", *s->capture, CAPTURE_MERGE,
                          "the event is another capture's");
    }
    std::set<int> after(s->tail.begin(), s->tail.end());
    after.insert(event->after.begin(), event->after.end());
    s->tail.assign(after.begin(), after.end());
    return SUCCESS;
  }
  if (s->capture != nullptr) {
    if (event->recorded == 0) {
      return SUCCESS;
    }
    return captureFails("cuStreamWaitEvent", *s->capture, CAPTURE_ISOLATION,
                        "the event was recorded outside the capture");
  }
  if (int code = legacyInCapture("cuStreamWaitEvent", s)) {
    return code;
  }
  Operation operation;
  operation.awaits = event;
  operation.ticket = event->recorded;
  operation.sequence = ++d.sequence;
  s->queue.push_back(std::move(operation));
  return SUCCESS;
}

int cuLaunchHostFunc(void* handle, void (*function)(void*), void* data) {
  DEVICE_CALL;
  Stream* s = stream(handle);
  return s == nullptr ? invalidStream("cuLaunchHostFunc", handle)
                      : submit("cuLaunchHostFunc", s, [=] {
                          function(data);
                          return int(SUCCESS);
                        });
}

// Events

int cuEventCreate(void** handle, unsigned flags) {
  DEVICE_CALL;
  auto event = std::make_shared<Event>();
  event->timed = (flags & 2) == 0;
  d.events[event.get()] = event;
  *handle = event.get();
  return SUCCESS;
}

int cuEventDestroy_v2(void* handle) {
  DEVICE_CALL;
  if (d.events.erase(handle) == 0) {
    report("cuEventDestroy: there is no event %p, or no longer", handle);
    return INVALID_HANDLE;
  }
  return SUCCESS;
}

static std::shared_ptr<Event> event(const char* call, void* handle) {
  auto found = device().events.find(handle);
  if (found == device().events.end()) {
    report("%s: there is no event %p, or no longer", call, handle);
    return nullptr;
  }
  return found->second;
}

int cuEventRecord(void* handle, void* streamHandle) {
  DEVICE_CALL;
  auto e = event("cuEventRecord", handle);
  Stream* s = stream(streamHandle);
  if (e == nullptr) {
    return INVALID_HANDLE;
  }
  if (s == nullptr) {
    return invalidStream("cuEventRecord", streamHandle);
  }
  if (s->capture != nullptr) {
    if (s->capture->invalid) {
      return CAPTURE_INVALIDATED;
    }
    e->capture = s->capture;
    e->after = s->tail;
    return SUCCESS;
  }
  if (int code = legacyInCapture("cuEventRecord", s)) {
    return code;
  }
  e->capture = nullptr;
  Operation operation;
  operation.records = e;
  operation.ticket = ++e->recorded;
  operation.sequence = ++d.sequence;
  s->queue.push_back(std::move(operation));
  return SUCCESS;
}

static int capturedEvent(const char* call, Event& e) {
  if (e.capture == nullptr) {
    return SUCCESS;
  }
  return captureFails(call, *e.capture, CAPTURED_EVENT, "the event was recorded in a capture");
}

int cuEventQuery(void* handle) {
  DEVICE_CALL;
  auto e = event("cuEventQuery", handle);
  if (e == nullptr) {
    return INVALID_HANDLE;
  }
  if (int code = capturedEvent("cuEventQuery", *e)) {
    return code;
  }
  if (int code = glance()) {
    return code;
  }
  return e->done >= e->recorded ? SUCCESS : NOT_READY;
}

int cuEventSynchronize(void* handle) {
  DEVICE_CALL;
  auto e = event("cuEventSynchronize", handle);
  if (e == nullptr) {
    return INVALID_HANDLE;
  }
  if (int code = capturedEvent("cuEventSynchronize", *e)) {
    return code;
  }
  return drain([e] { return e->done >= e->recorded; });
}

int cuEventElapsedTime(float* milliseconds, void* startHandle, void* endHandle) {
  DEVICE_CALL;
  auto start = event("cuEventElapsedTime", startHandle);
  auto end = event("cuEventElapsedTime", endHandle);
  if (start == nullptr || end == nullptr || !start->timed || !end->timed ||
      start->recorded == 0 || end->recorded == 0) {
    report("cuEventElapsedTime: both events must take the time and have been recorded");
    return INVALID_HANDLE;
  }
  if (start->done < start->recorded || end->done < end->recorded) {
    return NOT_READY;
  }
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
  return SUCCESS;
}
int cuEventElapsedTime_v2(float* milliseconds, void* start, void* end) {
  return cuEventElapsedTime(milliseconds, start, end);
}

// Modules and kernels

int cuModuleLoadDataEx(Module** module, const void* image, unsigned, int*, void**) {
  DEVICE_CALL;
  if (int code = unsafeInCapture("cuModuleLoadData")) {
    return code;
  }
  const auto* header = static_cast<const Elf64_Ehdr*>(image);
  const auto* text = static_cast<const char*>(image);
  if (memcmp(text, "\x50\xed\x55\xba", 4) == 0) {
    report("cuModuleLoadData: a fatbinary, which has no kernels for the emulator");
    return NO_BINARY_FOR_GPU;
  }
  if (memcmp(text, ELFMAG, SELFMAG) != 0) {
    report("cuModuleLoadData: neither ELF nor a fatbinary");
    return memcmp(text, "//", 2) == 0 || memcmp(text, ".version", 8) == 0 ? INVALID_PTX
                                                                          : INVALID_IMAGE;
  }
  if (header->e_machine != EM_X86_64) {
    report("cuModuleLoadData: an ELF image for machine %u; the emulator's is %u",
           unsigned(header->e_machine), unsigned(EM_X86_64));
    return NO_BINARY_FOR_GPU;
  }
  // The section headers end an ELF file.
  size_t size = header->e_shoff + size_t(header->e_shnum) * header->e_shentsize;
  int file = memfd_create("wardrobe-kernels", 0);
  bool written = file >= 0;
  for (size_t done = 0; written && done < size;) {
    ssize_t count = write(file, text + done, size - done);
    written = count > 0;
    done += written ? size_t(count) : 0;
  }
  void* library = nullptr;
  if (written) {
    library = dlopen(filePath(file).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      report("cuModuleLoadData: %s", dlerror());
    }
  } else {
    report("cuModuleLoadData: the host has no memory for %zu bytes", size);
  }
  if (library == nullptr) {
    if (file >= 0) {
      close(file);
    }
    return SHARED_OBJECT_INIT_FAILED;
  }
  *module = new Module{library, file};
  d.modules.insert(*module);
  return SUCCESS;
}

int cuModuleLoadData(Module** module, const void* image) {
  return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr);
}
int cuModuleLoadFatBinary(Module** module, const void* image) {
  return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr);
}

static int invalidModule(const char* call, Module* module) {
  report("%s: there is no module %p, or no longer", call, static_cast<void*>(module));
  return INVALID_HANDLE;
}

int cuModuleUnload(Module* module) {
  DEVICE_CALL;
  if (d.modules.count(module) == 0) {
    return invalidModule("cuModuleUnload", module);
  }
  if (int code = drainAll()) {
    return code;
  }
  for (auto function = d.functions.begin(); function != d.functions.end();) {
    if ((*function)->module == module) {
      delete *function;
      function = d.functions.erase(function);
    } else {
      ++function;
    }
  }
  d.modules.erase(module);
  unload(module);
  return SUCCESS;
}

int cuModuleGetFunction(Function** function, Module* module, const char* name) {
  DEVICE_CALL;
  if (d.modules.count(module) == 0) {
    return invalidModule("cuModuleGetFunction", module);
  }
  std::string symbol = std::string("emulator_kernel_") + name;
  const auto* kernel = static_cast<const Kernel*>(dlsym(module->library, symbol.c_str()));
  if (kernel == nullptr) {
    report("cuModuleGetFunction: the module has no kernel '%s'", name);
    return NOT_FOUND;
  }
  for (Function* known : d.functions) {
    if (known->kernel == kernel && known->module == module) {
      *function = known;
      return SUCCESS;
    }
  }
  *function = new Function{kernel, module};
  d.functions.insert(*function);
  return SUCCESS;
}

int cuModuleGetGlobal_v2(Address* address, size_t* size, Module* module, const char* name) {
  DEVICE_CALL;
  if (d.modules.count(module) == 0) {
    return invalidModule("cuModuleGetGlobal", module);
  }
  void* variable = dlsym(module->library, name);
  if (variable == nullptr) {
    report("cuModuleGetGlobal: the module has no variable '%s'", name);
    return NOT_FOUND;
  }
  if (address != nullptr) {
    *address = addressOf(variable);
  }
  if (size != nullptr) {
    *size = emulator::globalSize(addressOf(variable));
  }
  return SUCCESS;
}

static Function* function(const char* call, Function* handle) {
  if (device().functions.count(handle) == 0) {
    report("%s: there is no function %p, or no longer", call, static_cast<void*>(handle));
    return nullptr;
  }
  return handle;
}

int cuFuncSetAttribute(Function* handle, int which, int value) {
  DEVICE_CALL;
  Function* f = function("cuFuncSetAttribute", handle);
  if (f == nullptr) {
    return INVALID_HANDLE;
  }
  if (which == 8) {
    if (value < 0 || size_t(value) > emulator::kSharedLimit) {
      report("cuFuncSetAttribute: kernel %s may not have %d bytes of dynamic shared memory, at "
             "most %zu",
             f->kernel->name, value, emulator::kSharedLimit);
      return INVALID_VALUE;
    }
    f->dynamicShared = value;
  }
  return SUCCESS;
}

int cuFuncGetAttribute(int* value, int which, Function* handle) {
  DEVICE_CALL;
  Function* f = function("cuFuncGetAttribute", handle);
  if (f == nullptr) {
    return INVALID_HANDLE;
  }
  switch (which) {
    case 0:  // threads per block
      *value = int(f->kernel->maxThreads);
      break;
    case 4:  // registers
      *value = 64;
      break;
    case 5:  // PTX version
    case 6:  // binary version
      *value = 90;
      break;
    case 8:
      *value = f->dynamicShared;
      break;
    default:
      *value = 0;
  }
  return SUCCESS;
}

int cuFuncSetCacheConfig(Function* handle, int) {
  DEVICE_CALL;
  return function("cuFuncSetCacheConfig", handle) == nullptr ? INVALID_HANDLE : SUCCESS;
}

int cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, Function* handle, int threads,
                                                         size_t dynamicShared, unsigned) {
  DEVICE_CALL;
  Function* f = function("cuOccupancyMaxActiveBlocksPerMultiprocessor", handle);
  if (f == nullptr) {
    return INVALID_HANDLE;
  }
  if (threads <= 0) {
    return INVALID_VALUE;
  }
  size_t each = dynamicShared + 1024;
  *blocks = threads > int(f->kernel->maxThreads)
                ? 0
                : std::min({2048 / threads, 32, int(233472 / each)});
  return SUCCESS;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Function* handle, int threads,
                                                size_t dynamicShared) {
  return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, handle, threads,
                                                              dynamicShared, 0);
}

int cuLaunchKernel(Function* handle, unsigned gridX, unsigned gridY, unsigned gridZ,
                   unsigned blockX, unsigned blockY, unsigned blockZ, unsigned dynamicShared,
                   void* streamHandle, void** parameters, void** extra) {
  DEVICE_CALL;
  Function* f = function("cuLaunchKernel", handle);
  if (f == nullptr) {
    return INVALID_HANDLE;
  }
  Stream* s = stream(streamHandle);
  if (s == nullptr) {
    return invalidStream("cuLaunchKernel", streamHandle);
  }
  const Kernel& kernel = *f->kernel;
  uint64_t threads = uint64_t(blockX) * blockY * blockZ;
  if (gridX == 0 || gridY == 0 || gridZ == 0 || gridX > 2147483647 || gridY > 65535 ||
      gridZ > 65535 || threads == 0 || blockX > 1024 || blockY > 1024 || blockZ > 64 ||
      threads > 1024) {
    report("cuLaunchKernel of %s: grid (%u, %u, %u) and block (%u, %u, %u) are not possible",
           kernel.name, gridX, gridY, gridZ, blockX, blockY, blockZ);
    return INVALID_VALUE;
  }
  if (threads > kernel.maxThreads) {
    report("cuLaunchKernel of %s: %llu threads a block; its KERNEL says at most %u", kernel.name,
           (unsigned long long)threads, kernel.maxThreads);
    return INVALID_VALUE;
  }
  if (dynamicShared > unsigned(f->dynamicShared)) {
    report("cuLaunchKernel of %s: %u bytes of dynamic shared memory; cuFuncSetAttribute allowed %d",
           kernel.name, dynamicShared, f->dynamicShared);
    return INVALID_VALUE;
  }
  std::vector<const void*> arguments;
  if (extra != nullptr) {
    const char* buffer = nullptr;
    size_t size = 0;
    for (void** entry = extra; *entry != nullptr; entry += 2) {
      if (addressOf(*entry) == 1) {
        buffer = static_cast<const char*>(entry[1]);
      } else if (addressOf(*entry) == 2) {
        size = *static_cast<size_t*>(entry[1]);
      } else {
        report("cuLaunchKernel of %s: 'extra' has an unknown entry", kernel.name);
        return INVALID_VALUE;
      }
    }
    std::vector<size_t> offsets;
    size_t expected = parameterOffsets(kernel, offsets);
    if (buffer == nullptr || size != expected) {
      report("cuLaunchKernel of %s: %zu bytes of arguments, expected %zu", kernel.name, size,
             expected);
      return INVALID_VALUE;
    }
    for (size_t offset : offsets) {
      arguments.push_back(buffer + offset);
    }
  } else {
    if (parameters == nullptr && kernel.parameters > 0) {
      report("cuLaunchKernel of %s: no arguments, expected %d", kernel.name, kernel.parameters);
      return INVALID_VALUE;
    }
    for (int i = 0; i < kernel.parameters; i++) {
      if (parameters[i] == nullptr) {
        report("cuLaunchKernel of %s: argument %d is null", kernel.name, i);
        return INVALID_VALUE;
      }
      arguments.push_back(parameters[i]);
    }
  }
  auto launch =
      std::make_shared<Launch>(kernel, dim3{gridX, gridY, gridZ}, dim3{blockX, blockY, blockZ},
                               dynamicShared, arguments.data());
  return submit("cuLaunchKernel", s, [launch] { return launchNow(*launch); });
}

// Graphs

int cuStreamBeginCapture_v2(void* handle, int mode) {
  DEVICE_CALL;
  Stream* s = stream(handle);
  if (s == nullptr) {
    return invalidStream("cuStreamBeginCapture", handle);
  }
  if (s == &d.legacy) {
    report("cuStreamBeginCapture: the legacy stream cannot capture");
    return CAPTURE_UNSUPPORTED;
  }
  if (s->capture != nullptr) {
    report("cuStreamBeginCapture: the stream is capturing already");
    return ILLEGAL_STATE;
  }
  s->capture = std::make_shared<Capture>();
  s->capture->origin = s;
  s->capture->mode = mode;
  s->capture->thread = std::this_thread::get_id();
  s->tail.clear();
  d.captures.push_back(s->capture);
  return SUCCESS;
}

int cuStreamIsCapturing(void* handle, int* status) {
  DEVICE_CALL;
  Stream* s = stream(handle);
  if (s == nullptr) {
    return invalidStream("cuStreamIsCapturing", handle);
  }
  *status = s->capture == nullptr ? 0 : s->capture->invalid ? 2 : 1;
  return SUCCESS;
}

int cuThreadExchangeStreamCaptureMode(int* mode) {
  DEVICE_CALL;
  static thread_local int own = 0;
  std::swap(own, *mode);
  return SUCCESS;
}

int cuStreamEndCapture(void* handle, Graph** graph) {
  DEVICE_CALL;
  *graph = nullptr;
  Stream* s = stream(handle);
  if (s == nullptr) {
    return invalidStream("cuStreamEndCapture", handle);
  }
  std::shared_ptr<Capture> capture = s->capture;
  if (capture == nullptr) {
    report("cuStreamEndCapture: the stream is not capturing");
    return ILLEGAL_STATE;
  }
  if (capture->origin != s) {
    return captureFails("cuStreamEndCapture", *capture, CAPTURE_UNMATCHED,
                        "the capture began in another stream");
  }
  if (capture->mode != 2 && capture->thread != std::this_thread::get_id()) {
    return captureFails("cuStreamEndCapture", *capture, CAPTURE_WRONG_THREAD,
                        "the capture began in another thread");
  }
  // Everything that other streams added must come before the end in this one.
  std::vector<bool> joined(capture->nodes.size());
  std::vector<int> open = s->tail;
  while (!open.empty()) {
    int node = open.back();
    open.pop_back();
    if (!joined[node]) {
      joined[node] = true;
      const auto& after = capture->nodes[node].after;
      open.insert(open.end(), after.begin(), after.end());
    }
  }
  bool unjoined = false;
  for (Stream* other : allStreams()) {
    if (other->capture == capture) {
      for (int node : other->tail) {
        unjoined |= !joined[node];
      }
      other->capture = nullptr;
      other->tail.clear();
    }
  }
  for (auto& [key, e] : d.events) {
    if (e->capture == capture) {
      e->capture = nullptr;
      e->recorded = e->done = 0;
    }
  }
  if (capture->invalid) {
    return CAPTURE_INVALIDATED;
  }
  if (unjoined) {
    report("cuStreamEndCapture: another stream has work that the capturing one does not wait for");
    return CAPTURE_UNJOINED;
  }
  *graph = new Graph{capture->nodes};
  d.graphs.insert(*graph);
  return SUCCESS;
}

static int invalidGraph(const char* call, Graph* graph) {
  report("%s: there is no graph %p, or no longer", call, static_cast<void*>(graph));
  return INVALID_HANDLE;
}

int cuGraphInstantiateWithFlags(Graph** executable, Graph* graph, Address) {
  DEVICE_CALL;
  if (d.graphs.count(graph) == 0) {
    return invalidGraph("cuGraphInstantiate", graph);
  }
  *executable = new Graph{graph->nodes};
  d.executables.insert(*executable);
  return SUCCESS;
}
int cuGraphInstantiate_v2(Graph** executable, Graph* graph, void*, char*, size_t) {
  return cuGraphInstantiateWithFlags(executable, graph, 0);
}

int cuGraphUpload(Graph* executable, void* streamHandle) {
  DEVICE_CALL;
  if (d.executables.count(executable) == 0) {
    return invalidGraph("cuGraphUpload", executable);
  }
  return stream(streamHandle) == nullptr ? invalidStream("cuGraphUpload", streamHandle) : SUCCESS;
}

int cuGraphLaunch(Graph* executable, void* streamHandle) {
  DEVICE_CALL;
  if (d.executables.count(executable) == 0) {
    return invalidGraph("cuGraphLaunch", executable);
  }
  Stream* s = stream(streamHandle);
  if (s == nullptr) {
    return invalidStream("cuGraphLaunch", streamHandle);
  }
  d.counts["graphs"]++;
  for (const Node& node : executable->nodes) {
    if (node.asked) {
      node.asked();
    }
  }
  auto copy = std::make_shared<Graph>(*executable);  // it may be destroyed before it ran
  return submit("cuGraphLaunch", s, [copy] { return runGraph(*copy); });
}

int cuGraphGetNodes(Graph* graph, void** nodes, size_t* count) {
  DEVICE_CALL;
  if (d.graphs.count(graph) == 0) {
    return invalidGraph("cuGraphGetNodes", graph);
  }
  if (nodes == nullptr) {
    *count = graph->nodes.size();
    return SUCCESS;
  }
  return NOT_SUPPORTED;
}

int cuGraphDestroy(Graph* graph) {
  DEVICE_CALL;
  if (d.graphs.erase(graph) == 0) {
    return invalidGraph("cuGraphDestroy", graph);
  }
  delete graph;
  return SUCCESS;
}

int cuGraphExecDestroy(Graph* executable) {
  DEVICE_CALL;
  if (d.executables.erase(executable) == 0) {
    return invalidGraph("cuGraphExecDestroy", executable);
  }
  delete executable;
  return SUCCESS;
}

// ---------------------------------------------------------------------------------------------
// What tests steer the emulator by

void emulator_seed(uint64_t seed) {
  LOCKED;
  d.seed = seed;
  d.random.state = seed;
}

uint64_t emulator_seed_now() {
  LOCKED;
  return d.seed;
}

void emulator_budget(size_t bytes) {
  LOCKED;
  d.budget = std::max(bytes, d.used);
}

void emulator_fail(const char* call, int nth, int code) {
  LOCKED;
  d.failures.push_back({call, nth, code});
}

// Copies what went wrong last, empty if nothing did; returns its length.
size_t emulator_report(char* text, size_t size) {
  LOCKED;
  if (size > 0) {
    snprintf(text, size, "%s", d.report.c_str());
  }
  return d.report.size();
}

size_t emulator_live_bytes() {
  LOCKED;
  return d.used;
}

uint64_t emulator_count(const char* what) {
  LOCKED;
  auto found = d.counts.find(what);
  return found == d.counts.end() ? 0 : found->second;
}

// A device as if nothing had been done yet. Returns how many bytes of its memory were live, or had
// been when a context ended; the report then says which.
size_t emulator_reset() {
  LOCKED;
  d.report.clear();
  size_t left = endContext() + d.leaked;
  if (left > 0 && d.report.empty()) {
    report("a context had ended with %zu bytes of device memory live", left);
  }
  d.leaked = 0;
  d.retained = 0;
  d.contexts.clear();
  d.failures.clear();
  d.counts.clear();
  d.budget = kDefaultBudget;
  d.seed = d.random.state = firstSeed();
  return left;
}

}  // extern "C"
