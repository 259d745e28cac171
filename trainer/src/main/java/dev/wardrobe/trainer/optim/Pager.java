package dev.wardrobe.trainer.optim;

import dev.wardrobe.compute.OutOfMemoryException;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.jspecify.annotations.Nullable;

/**
 * Pages of equal size of which only some are in memory, for scans over all of them.
 *
 * <p>Used by one thread. After a failure nothing can be done but {@link #close}.
 */
final class Pager implements AutoCloseable {
  /*
   * Every step needs every page once. Least-recently-used would then always evict the page that is
   * needed next, so residency is fixed instead: of F frames, S are a ring through which pages
   * stream, and R = F - S hold pages 0 to R - 1, which stay. With room for all pages there is no
   * ring.
   *
   * A scan goes from the last page down to R, page p through the ring's frame p mod S, and then over
   * the pages that stay. A page that was used is written back at once, and then the frame's next
   * page is read: p - S, or, at the scan's end, the page that the next scan has in this frame. So
   * reading and writing go on beside the pages that stay, and beside the forward and backward pass
   * until the next scan. Streaming downwards makes what is read ahead independent of R, so that it
   * stays right while R changes.
   *
   * Each frame has a chain of what is done to it: use, write, read, use. Writes and reads are queued
   * by this thread in the order of the scan, each on a thread of its own, and a read begins when its
   * frame's write has ended; so no page is read before it was written. A page that was never used
   * has no content anywhere: it is zeros, made in the frame. PagePlan counts all of this ahead.
   */

  /** Something that uses a page, and may change it. */
  interface Use {
    void run(int page, MemorySegment bytes);
  }

  /** Something that looks at a page. */
  interface Look {
    void run(int page, MemorySegment bytes) throws IOException;
  }

  private static final class Frame {
    final Arena arena = Arena.ofShared();
    final MemorySegment bytes;

    /** The page that it holds or will hold, or -1. */
    int page = -1;

    /** Ends when its page may be used. */
    CompletableFuture<?> ready = CompletableFuture.completedFuture(true);

    Frame(int size) {
      bytes = arena.allocate(size, 64);
    }
  }

  private final int pages;
  private final int pageBytes;
  private final int most;
  private final int ringSize;
  private final @Nullable PageStore store;
  private final Runnable trim;

  /** Pages that have been used: the others are zeros. */
  private final BitSet used = new BitSet();

  private final List<Frame> resident = new ArrayList<>();
  private final List<Frame> ring = new ArrayList<>();
  private @Nullable ExecutorService reader;
  private @Nullable ExecutorService writer;
  private @Nullable Throwable failure;
  private boolean closed;
  private long pagesIn;
  private long pagesOut;
  private long stalled;

  /**
   * @param most frames, at least one
   * @param ringSize frames of the ring, at most, if there is one
   * @param store where the others are; null if there are none, now and later
   * @param trim gives memory that was freed back to the system
   */
  Pager(
      int pages, int pageBytes, int most, int ringSize, @Nullable PageStore store, Runnable trim) {
    this.pages = pages;
    this.pageBytes = pageBytes;
    this.most = Math.min(most, pages);
    this.ringSize = ringSize;
    this.store = store;
    this.trim = trim;
    PagePlan plan = plan(this.most);
    try {
      grow(resident, plan.resident());
      grow(ring, plan.ring());
    } catch (OutOfMemoryError e) {
      shrink(resident, 0);
      shrink(ring, 0);
      throw exhausted(e);
    }
    for (int page = 0; page < resident.size(); page++) {
      resident.get(page).page = page;
    }
  }

  /** A pager for a layout's pages, as the options say. */
  static Pager of(
      StateLayout layout, PagerOptions options, @Nullable PageStore given, Runnable trim)
      throws OptimizerException {
    int pages = layout.pages();
    int size = layout.pageBytes();
    PageStore store = given;
    Path directory = options.directory();
    boolean all = options.budget() >= layout.bytes() || (store == null && directory == null);
    int frames = all ? pages : Math.clamp(options.budget() / size, 1, pages);
    if (store == null && directory != null) {
      int host = (int) Math.min(pages, options.hostBytes() / size);
      PagePlan plan = PagePlan.of(pages, frames, options.ring());
      store = new PageFile(directory, Math.max(0, plan.streaming() - host), size);
      store = host == 0 ? store : new HostPages(pages - host, store);
    }
    return new Pager(pages, size, frames, options.ring(), store, trim);
  }

  /** How pages are divided now. */
  PagePlan plan() {
    return new PagePlan(pages, resident.size(), ring.size());
  }

  /** How pages are divided if there are {@code frames}. */
  private PagePlan plan(int frames) {
    return PagePlan.of(pages, frames, ringSize);
  }

  private OutOfMemoryException exhausted(OutOfMemoryError cause) {
    OutOfMemoryException refused =
        new OutOfMemoryException(
            ("optimizer state: no memory for pages of %,d bytes; lower the paging budget, or take a"
                    + " paged or 8-bit optimizer")
                .formatted(pageBytes));
    refused.initCause(cause);
    return refused;
  }

  private void grow(List<Frame> frames, int count) {
    while (frames.size() < count) {
      frames.add(new Frame(pageBytes));
    }
  }

  private static void shrink(List<Frame> frames, int count) {
    while (frames.size() > count) {
      frames.removeLast().arena.close();
    }
  }

  /** Uses every page once. */
  void scan(Use use) throws OptimizerException {
    check();
    try {
      int stay = resident.size();
      int slots = ring.size();
      for (int page = pages - 1; page >= Math.max(stay, pages - slots); page--) {
        fetch(page);
      }
      for (int page = pages - 1; page >= stay; page--) {
        Frame frame = ring.get(page % slots);
        await(frame.ready);
        use.run(page, frame.bytes);
        used.set(page);
        evict(frame);
        int next = page - slots >= stay ? page - slots : first(page % slots);
        fetch(next);
      }
      for (int page = stay - 1; page >= 0; page--) {
        use.run(page, resident.get(page).bytes);
        used.set(page);
      }
    } catch (RuntimeException | Error e) {
      failure = e;
      throw e;
    }
  }

  /** The first page of a scan that goes through a slot of the ring. */
  private int first(int slot) {
    int slots = ring.size();
    int last = pages - 1;
    return last - Math.floorMod(last - slot, slots);
  }

  /** Begins to bring a page into its frame of the ring, if it is not there. */
  private void fetch(int page) {
    Frame frame = ring.get(page % ring.size());
    if (frame.page == page) {
      return;
    }
    frame.page = page;
    boolean stored = used.get(page);
    pagesIn += stored ? 1 : 0;
    frame.ready =
        frame.ready.thenRunAsync(
            () -> {
              if (stored) {
                read(page, frame.bytes);
              } else {
                frame.bytes.fill((byte) 0);
              }
            },
            reader());
  }

  /** Begins to write a frame's page back; the frame keeps it. */
  private void evict(Frame frame) {
    int page = frame.page;
    pagesOut++;
    frame.ready = CompletableFuture.runAsync(() -> write(page, frame.bytes), writer());
  }

  private void read(int page, MemorySegment to) {
    try {
      store().read(page, to);
    } catch (IOException | RuntimeException e) {
      throw new CompletionException(problem("reading", page, e));
    }
  }

  private void write(int page, MemorySegment from) {
    try {
      store().write(page, from);
    } catch (IOException | RuntimeException e) {
      throw new CompletionException(problem("writing", page, e));
    }
  }

  private static OptimizerException problem(String what, int page, Throwable cause) {
    return new OptimizerException(
        ("optimizer state: %s page %d failed: %s; the step is not complete: free space or repair"
                + " the disk, and resume from the last checkpoint")
            .formatted(what, page, cause.getMessage()),
        cause);
  }

  private void await(CompletableFuture<?> done) throws OptimizerException {
    if (done.isDone() && !done.isCompletedExceptionally()) {
      return;
    }
    long start = System.nanoTime();
    try {
      done.join();
    } catch (CompletionException e) {
      failure = e.getCause();
      check();
      throw e;
    } finally {
      stalled += System.nanoTime() - start;
    }
  }

  /** Waits for everything on its way. */
  private void settle() throws OptimizerException {
    check();
    for (Frame frame : ring) {
      await(frame.ready);
    }
  }

  private void check() throws OptimizerException {
    if (closed) {
      throw new IllegalStateException("the optimizer is closed");
    }
    Throwable cause = failure;
    if (cause != null) {
      throw new OptimizerException(
          cause instanceof OptimizerException
              ? String.valueOf(cause.getMessage())
              : "optimizer state: unusable after a failure: " + cause,
          cause);
    }
  }

  /**
   * Gives frames back to the system, as many as hold {@code bytes}, but not the last.
   *
   * @return bytes given back
   */
  long makeRoom(long bytes) throws OptimizerException {
    if (store == null) {
      return 0;
    }
    int frames = frames();
    long asked = Math.ceilDiv(Math.max(0, bytes), (long) pageBytes);
    int fewer = Math.clamp(frames - asked, Math.min(1, frames), frames);
    reshape(fewer);
    return (long) (frames - fewer) * pageBytes;
  }

  /** Takes back all that was given. */
  void restore() throws OptimizerException {
    reshape(most);
  }

  private void reshape(int frames) throws OptimizerException {
    settle();
    if (frames == frames()) {
      return;
    }
    PagePlan plan = plan(frames);
    List<Frame> leaving =
        resident.subList(Math.min(plan.resident(), resident.size()), resident.size());
    for (Frame frame : leaving) {
      if (used.get(frame.page)) {
        evict(frame);
      }
    }
    for (Frame frame : leaving) {
      await(frame.ready);
    }
    shrink(resident, plan.resident());
    if (ring.size() != plan.ring()) {
      // Slots change with the ring's size; what it holds is written.
      shrink(ring, 0);
    }
    int from = resident.size();
    try {
      grow(resident, plan.resident());
      grow(ring, plan.ring());
    } catch (OutOfMemoryError e) {
      failure = exhausted(e);
      throw exhausted(e);
    }
    for (int page = from; page < resident.size(); page++) {
      Frame frame = resident.get(page);
      frame.page = page;
      if (used.get(page)) {
        pagesIn++;
        int wanted = page;
        frame.ready = CompletableFuture.runAsync(() -> read(wanted, frame.bytes), reader());
      }
    }
    for (int page = from; page < resident.size(); page++) {
      await(resident.get(page).ready);
      store().release(page);
    }
    trim.run();
  }

  /** Shows every page, in ascending order, as the last scan left it. */
  void look(Look look) throws IOException {
    settle();
    try (Arena arena = Arena.ofShared()) {
      MemorySegment bytes = null;
      for (int page = 0; page < pages; page++) {
        if (page < resident.size()) {
          look.run(page, resident.get(page).bytes);
          continue;
        }
        if (bytes == null) {
          bytes = arena.allocate(pageBytes, 64);
        }
        if (used.get(page)) {
          try {
            store().read(page, bytes);
          } catch (IOException e) {
            throw problem("reading", page, e);
          }
        } else {
          bytes.fill((byte) 0);
        }
        look.run(page, bytes);
      }
    }
  }

  /** Fills every page anew, in ascending order. */
  void fill(Look content) throws IOException {
    settle();
    for (Frame frame : ring) {
      frame.page = -1;
    }
    try (Arena arena = Arena.ofShared()) {
      MemorySegment bytes = null;
      for (int page = 0; page < pages; page++) {
        if (page < resident.size()) {
          content.run(page, resident.get(page).bytes);
        } else {
          if (bytes == null) {
            bytes = arena.allocate(pageBytes, 64);
          }
          content.run(page, bytes);
          pagesOut++;
          try {
            store().write(page, bytes);
          } catch (IOException e) {
            throw problem("writing", page, e);
          }
        }
        used.set(page);
      }
    } catch (IOException | RuntimeException | Error e) {
      failure = e;
      throw e;
    }
  }

  private ExecutorService reader() {
    ExecutorService open = reader;
    if (open == null) {
      open = thread("wardrobe-pages-in");
      reader = open;
    }
    return open;
  }

  private ExecutorService writer() {
    ExecutorService open = writer;
    if (open == null) {
      open = thread("wardrobe-pages-out");
      writer = open;
    }
    return open;
  }

  private static ExecutorService thread(String name) {
    return Executors.newSingleThreadExecutor(Thread.ofPlatform().daemon().name(name).factory());
  }

  private PageStore store() {
    return Objects.requireNonNull(store);
  }

  private int frames() {
    return resident.size() + ring.size();
  }

  PagerStats stats() {
    return new PagerStats(
        pages,
        pageBytes,
        frames(),
        store == null ? 0 : store.hostBytes(),
        store == null ? 0 : store.fileBytes(),
        pagesIn,
        pagesOut,
        stalled);
  }

  /** Frees everything; a second time does nothing. */
  @Override
  public void close() throws IOException {
    if (closed) {
      return;
    }
    closed = true;
    // Closing waits for what is on its way, which uses the frames.
    if (reader != null) {
      for (Frame frame : ring) {
        frame.ready.handle((done, problem) -> true).join();
      }
      reader.close();
    }
    if (writer != null) {
      writer.close();
    }
    shrink(resident, 0);
    shrink(ring, 0);
    if (store != null) {
      store.close();
    }
    trim.run();
  }
}
