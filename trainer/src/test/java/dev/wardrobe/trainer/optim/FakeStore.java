package dev.wardrobe.trainer.optim;

import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;

/** Pages in arrays: slow at random, failing when told to, and strict about what it is asked. */
final class FakeStore implements PageStore {
  private final Map<Integer, byte[]> pages = new ConcurrentHashMap<>();
  private final Random random;
  private final int slowest;
  final AtomicInteger reads = new AtomicInteger();
  final AtomicInteger writes = new AtomicInteger();
  volatile int failingWrite = -1;
  volatile int failingRead = -1;
  volatile boolean closed;

  /**
   * @param slowest microseconds that a read or write takes at most
   */
  FakeStore(long seed, int slowest) {
    random = new Random(seed);
    this.slowest = slowest;
  }

  @Override
  public void read(int page, MemorySegment to) throws IOException {
    dawdle();
    if (reads.getAndIncrement() == failingRead) {
      throw new IOException("Input/output error");
    }
    byte[] bytes = pages.get(page);
    if (bytes == null || closed) {
      throw new IllegalStateException("page " + page + " was never written");
    }
    MemorySegment.copy(bytes, 0, to, ValueLayout.JAVA_BYTE, 0, bytes.length);
    dawdle();
  }

  @Override
  public void write(int page, MemorySegment from) throws IOException {
    dawdle();
    if (writes.getAndIncrement() == failingWrite) {
      throw new IOException("No space left on device");
    }
    byte[] bytes = from.toArray(ValueLayout.JAVA_BYTE);
    dawdle();
    pages.put(page, bytes);
  }

  private void dawdle() {
    int micros;
    synchronized (random) {
      micros = slowest == 0 ? 0 : random.nextInt(slowest);
    }
    if (micros > 0) {
      LockSupport.parkNanos(micros * 1000L);
    }
  }

  @Override
  public void release(int page) {
    pages.remove(page);
  }

  @Override
  public long hostBytes() {
    return pages.values().stream().mapToLong(bytes -> bytes.length).sum();
  }

  @Override
  public long fileBytes() {
    return 0;
  }

  @Override
  public void close() {
    closed = true;
    pages.clear();
  }
}
