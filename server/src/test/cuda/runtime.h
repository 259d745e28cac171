// What the fake driver (driver.cpp) uses of the runtime (emulator.cpp): the device's memory and the
// launch of a kernel.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "emulator.h"

namespace emulator {

// CUDA's codes for what can go wrong in a kernel.
constexpr int kIllegalAddress = 700;
constexpr int kMisalignedAddress = 716;
constexpr int kLaunchFailed = 719;

// The device's address space: one range of the process's, reserved once, with one shadow byte for
// eight bytes that counts how many of them, from the first, may be touched.
namespace memory {
constexpr uint8_t kPoison = 0xff;  // NaN as float32, float16 and bf16

uintptr_t reserve(size_t size, size_t alignment);  // addresses alone; 0 when there are none left
void release(uintptr_t address, size_t size);
void allow(uintptr_t address, size_t size);
void forbid(uintptr_t address, size_t size);
bool contains(uintptr_t address);
bool allowed(uintptr_t address, size_t size);
void poison(uintptr_t address, size_t size);

// Says in reports what a range is, until another has taken its place.
void name(uintptr_t address, size_t size, const char* kind);
void unname(uintptr_t address);
void nameReservation(uintptr_t address, size_t size);
void unnameReservation(uintptr_t address);
std::string describe(uintptr_t address);
}  // namespace memory

struct Launch {
  const Kernel* kernel;
  dim3 grid, block;
  size_t dynamicShared;
  std::vector<char> arguments;  // pointers to the arguments, then the arguments: never copied

  Launch(const Launch&) = delete;
  Launch(const Kernel& kernel, dim3 grid, dim3 block, size_t dynamicShared,
         const void* const* arguments);
};

struct Outcome {
  int code;  // 0, or one of the codes above
  std::string message;
};

Outcome run(const Launch& launch, uint64_t seed);

// Bytes of a loaded module's variable; 0 if there is none at the address.
size_t globalSize(uintptr_t address);

constexpr size_t kStaticSharedLimit = 48 << 10;
constexpr size_t kSharedLimit = 227 << 10;

// SplitMix64: small, seedable by any number.
struct Random {
  uint64_t state;
  uint64_t next() {
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  uint64_t below(uint64_t bound) { return uint64_t((unsigned __int128)next() * bound >> 64); }
};

}  // namespace emulator
