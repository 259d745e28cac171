package dev.wardrobe.trainer.optim;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;

/** Pages in host memory from some page on, and those before it in another store. */
final class HostPages implements PageStore {
  private static final class Place {
    final Arena arena = Arena.ofShared();
    final MemorySegment bytes;

    Place(long size) {
      bytes = arena.allocate(size, Long.BYTES);
    }
  }

  private final int first;
  private final PageStore rest;
  private final ConcurrentHashMap<Integer, Place> places = new ConcurrentHashMap<>();
  private final AtomicLong bytes = new AtomicLong();

  HostPages(int first, PageStore rest) {
    this.first = first;
    this.rest = rest;
  }

  @Override
  public void read(int page, MemorySegment to) throws IOException {
    Place place = places.get(page);
    if (place == null) {
      rest.read(page, to);
    } else {
      to.copyFrom(place.bytes);
    }
  }

  @Override
  public void write(int page, MemorySegment from) throws IOException {
    if (page < first) {
      rest.write(page, from);
      return;
    }
    Place place = places.computeIfAbsent(page, p -> allocate(from.byteSize()));
    place.bytes.copyFrom(from);
  }

  private Place allocate(long size) {
    bytes.addAndGet(size);
    return new Place(size);
  }

  @Override
  public void release(int page) {
    Place place = places.remove(page);
    if (place == null) {
      rest.release(page);
    } else {
      bytes.addAndGet(-place.bytes.byteSize());
      place.arena.close();
    }
  }

  @Override
  public long hostBytes() {
    return bytes.get() + rest.hostBytes();
  }

  @Override
  public long fileBytes() {
    return rest.fileBytes();
  }

  @Override
  public void close() throws IOException {
    for (Integer page : places.keySet()) {
      release(page);
    }
    rest.close();
  }
}
