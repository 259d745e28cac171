package dev.wardrobe.compute.cuda;

import dev.wardrobe.compute.OutOfMemoryException;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import jcuda.driver.CUresult;
import org.jspecify.annotations.Nullable;

/**
 * The device's memory by pages (2 MiB on the devices there are), which change hands between keys
 * and values on one side and adapters on the other. Who asks for memory gets a stretch of addresses
 * and pages behind them; a page that is given back is kept for whoever is next, so that lending it
 * costs no more than mapping it elsewhere.
 *
 * <p>Adapters may come and go on any thread. A device that does not map memory gives plain
 * allocations instead, of which nothing can be lent.
 */
final class Pages implements AutoCloseable {
  /** Where pieces of shared pages begin is a multiple of this. */
  private static final long ALIGNMENT = 256;

  private final Gpu gpu;
  private final long pageBytes;
  private final @Nullable VirtualMemory driver;
  private final Deque<Long> spare = new ArrayDeque<>();
  private final List<Shared> shared = new ArrayList<>();

  /** Pages that ranges have lent, and will want back. */
  private long owed;

  /** Pages of adapters, which are to be had for it in the end. */
  private long borrowed;

  /** Addresses, and pages behind all or some of them. */
  final class Range implements AutoCloseable {
    private final String what;
    private final long address;
    private final boolean lends;

    /** What is behind the addresses, page by page; 0 is nothing. */
    private final long[] mapped;

    private boolean closed;

    private Range(String what, long bytes, boolean lends) {
      this.what = what;
      this.lends = lends;
      int count = Math.toIntExact(Math.ceilDiv(Math.max(1, bytes), pageBytes));
      mapped = new long[count];
      synchronized (Pages.this) {
        require("cuMemAddressReserve", driver().reserve(count * pageBytes));
        address = driver().given();
        if (lends) {
          owed += count;
        } else {
          borrowed += count;
        }
      }
    }

    /** Where it begins, at a page. */
    long address() {
      return address;
    }

    int pages() {
      return mapped.length;
    }

    /**
     * Puts pages behind its addresses; they may hold anything.
     *
     * @throws OutOfMemoryException if the device has not that many; none is there then
     */
    void map(int from, int to) {
      synchronized (Pages.this) {
        int done = from;
        boolean complete = false;
        try {
          while (done < to) {
            long page = take();
            int code = driver().map(address + done * pageBytes, pageBytes, page);
            if (code != CUresult.CUDA_SUCCESS) {
              spare.push(page);
              require("cuMemMap", code);
            }
            mapped[done++] = page;
          }
          require(
              "cuMemSetAccess",
              driver().allow(address + from * pageBytes, (to - from) * pageBytes));
          complete = true;
        } finally {
          owed -= lends ? done - from : 0;
          if (!complete) {
            unmapQuiet(from, done);
          }
        }
      }
    }

    /** Takes pages away, which nothing that is queued uses. */
    void unmap(int from, int to) {
      synchronized (Pages.this) {
        unmapQuiet(from, to);
      }
    }

    private void unmapQuiet(int from, int to) {
      for (int i = from; i < to; i++) {
        long page = mapped[i];
        if (page != 0) {
          gpu.check("cuMemUnmap", driver().unmap(address + i * pageBytes, pageBytes));
          mapped[i] = 0;
          spare.push(page);
          owed += lends ? 1 : 0;
        }
      }
    }

    private long take() {
      Long page = spare.poll();
      if (page != null) {
        return page;
      }
      require("cuMemCreate", driver().create(pageBytes));
      return driver().given();
    }

    private void require(String call, int code) {
      if (code == CUresult.CUDA_ERROR_OUT_OF_MEMORY) {
        throw gpu.outOfMemory(what, mapped.length * pageBytes);
      }
      gpu.check(call, code);
    }

    /** Waits for what is queued, then gives the pages and the addresses back. */
    @Override
    public void close() {
      if (!gpu.usable()) {
        return;
      }
      gpu.await();
      synchronized (Pages.this) {
        if (!closed) {
          closed = true;
          unmapQuiet(0, mapped.length);
          if (lends) {
            owed -= mapped.length;
          } else {
            borrowed -= mapped.length;
          }
          gpu.check("cuMemAddressFree", driver().free(address, mapped.length * pageBytes));
        }
      }
    }
  }

  /** A page of which several have a piece. */
  private static final class Shared {
    private final Range range;

    /** Lengths of the pieces that nobody has, by where they begin. */
    private final TreeMap<Long, Long> gaps = new TreeMap<>();

    private final long length;

    Shared(Range range, long length) {
      this.range = range;
      this.length = length;
      gaps.put(0L, length);
    }

    /** Where a piece begins that is somebody's from now on; -1 if there is none of that length. */
    long take(long bytes) {
      long at = -1;
      for (Map.Entry<Long, Long> gap : gaps.entrySet()) {
        if (gap.getValue() >= bytes) {
          at = gap.getKey();
          break;
        }
      }
      Long gap = gaps.remove(at);
      if (gap != null && gap > bytes) {
        gaps.put(at + bytes, gap - bytes);
      }
      return at;
    }

    void give(long at, long bytes) {
      long from = at;
      long to = at + bytes;
      Map.Entry<Long, Long> before = gaps.floorEntry(at);
      if (before != null && before.getKey() + before.getValue() == from) {
        from = before.getKey();
      }
      Long after = gaps.remove(to);
      if (after != null) {
        to += after;
      }
      gaps.put(from, to - from);
    }

    boolean unused() {
      Long all = gaps.get(0L);
      return all != null && all == length;
    }
  }

  /**
   * @param mapped whether to map memory; false for a device that cannot
   */
  Pages(Gpu gpu, boolean mapped) {
    this.gpu = gpu;
    driver = mapped ? new VirtualMemory() : null;
    if (driver != null) {
      gpu.check("cuMemGetAllocationGranularity", driver.granularity());
      pageBytes = driver.given();
    } else {
      pageBytes = 0;
    }
  }

  private VirtualMemory driver() {
    if (driver == null) {
      throw new IllegalStateException("the device maps no memory");
    }
    return driver;
  }

  /** Bytes of a page; 0 if the device maps no memory. */
  long pageBytes() {
    return pageBytes;
  }

  /**
   * Addresses with a page behind each, of which any can be lent: unmapped, and mapped again.
   *
   * @throws OutOfMemoryException if the device has not that many pages
   */
  Range range(String what, long bytes) {
    return complete(new Range(what, bytes, true));
  }

  private Range complete(Range range) {
    boolean complete = false;
    try {
      range.map(0, range.pages());
      complete = true;
      return range;
    } finally {
      if (!complete) {
        range.close();
        trim();
      }
    }
  }

  /**
   * Memory of an adapter, until it is closed; it may hold anything. Small ones share pages.
   *
   * @throws OutOfMemoryException if the device has not that much
   */
  Gpu.Memory region(String what, long bytes) {
    if (pageBytes == 0) {
      return gpu.allocate(what, bytes);
    }
    gpu.enter();
    if (bytes > pageBytes / 2) {
      Range range = complete(new Range(what, bytes, false));
      return gpu.memory(what, range.address(), bytes, range::close);
    }
    long length = Math.max(1, Math.ceilDiv(bytes, ALIGNMENT)) * ALIGNMENT;
    synchronized (this) {
      for (Shared page : shared) {
        long at = page.take(length);
        if (at >= 0) {
          return piece(what, page, at, bytes, length);
        }
      }
      Shared page = new Shared(complete(new Range(what, pageBytes, false)), pageBytes);
      shared.add(page);
      return piece(what, page, page.take(length), bytes, length);
    }
  }

  private Gpu.Memory piece(String what, Shared page, long at, long bytes, long length) {
    return gpu.memory(what, page.range.address() + at, bytes, () -> give(page, at, length));
  }

  private void give(Shared page, long at, long length) {
    gpu.await();
    synchronized (this) {
      page.give(at, length);
      if (page.unused()) {
        shared.remove(page);
        page.range.close();
      }
    }
  }

  /**
   * Gives pages that nobody has back to the device, but for those that will be wanted back.
   *
   * @return how many
   */
  synchronized int trim() {
    int released = 0;
    while (spare.size() > Math.max(0, owed - borrowed)) {
      gpu.check("cuMemRelease", driver().release(spare.pop()));
      released++;
    }
    return released;
  }

  /** Pages that are kept for whoever is next. */
  synchronized int spare() {
    return spare.size();
  }

  /** Gives back what is kept. Nothing may have pages any more. */
  @Override
  public synchronized void close() {
    owed = 0;
    trim();
  }
}
