package dev.wardrobe.compute.cuda;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import jcuda.Pointer;

/**
 * A kernel's one argument, a struct, packed in memory that the driver reads as it is: nested JCuda
 * pointers cost some microseconds at each launch, this one a fraction of one. Fields are aligned to
 * their size, as C lays them out; the driver refuses a launch whose size is not the struct's.
 *
 * <p>One is used for all launches of a thread: the driver copies it.
 */
final class LaunchArguments {
  private static final int HEAD = 64;
  private static final int CAPACITY = 4096;

  private final MemorySegment memory = Arena.ofAuto().allocate(HEAD + CAPACITY, 64);
  private final Pointer extra;
  private long size;
  private long alignment = 4;

  LaunchArguments() {
    // CU_LAUNCH_PARAM_BUFFER_POINTER, CU_LAUNCH_PARAM_BUFFER_SIZE, CU_LAUNCH_PARAM_END, and between
    // them where the struct and its size are.
    memory.setAtIndex(JAVA_LONG, 0, 1);
    memory.setAtIndex(ADDRESS, 1, memory.asSlice(HEAD));
    memory.setAtIndex(JAVA_LONG, 2, 2);
    memory.setAtIndex(ADDRESS, 3, memory.asSlice(40));
    memory.setAtIndex(JAVA_LONG, 4, 0);
    extra = Pointer.to(memory.asByteBuffer());
  }

  LaunchArguments clear() {
    size = 0;
    alignment = 4;
    return this;
  }

  /** A device address; 0 is null. */
  LaunchArguments address(long value) {
    align(8);
    memory.set(JAVA_LONG, HEAD + size, value);
    size += 8;
    return this;
  }

  LaunchArguments number(int value) {
    align(4);
    memory.set(JAVA_INT, HEAD + size, value);
    size += 4;
    return this;
  }

  LaunchArguments number(float value) {
    align(4);
    memory.set(JAVA_FLOAT, HEAD + size, value);
    size += 4;
    return this;
  }

  private void align(long to) {
    alignment = Math.max(alignment, to);
    size = (size + to - 1) / to * to;
  }

  /** Ends a struct within the struct, or an element of an array: pads to 8 bytes. */
  LaunchArguments pad() {
    align(8);
    return this;
  }

  /** What {@code cuLaunchKernel} takes as {@code extra}. */
  Pointer extra() {
    memory.set(JAVA_LONG, 40, (size + alignment - 1) / alignment * alignment);
    return extra;
  }
}
