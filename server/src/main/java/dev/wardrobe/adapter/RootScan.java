package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterException.plain;

import dev.wardrobe.adapter.AdapterException.Reason;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.nio.file.DirectoryIteratorException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.NavigableMap;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentNavigableMap;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.function.BooleanSupplier;
import org.jspecify.annotations.Nullable;

/**
 * What lies under the adapter roots, as far as directories and configs tell.
 *
 * <p>Weights are not read, so thousands take seconds; what a scan found may be looked at while it
 * goes on. Directories that are reached by a link count when they hold an adapter themselves; below
 * them nothing is looked for.
 */
final class RootScan implements AutoCloseable {
  private static final int DEEPEST = 8;
  private static final int MOST = 200_000;

  private final AdapterRoots roots;
  private final AdapterOptions options;
  private final String base;
  private final EventLog events;
  private final ConcurrentNavigableMap<String, Found> found = new ConcurrentSkipListMap<>();
  private volatile boolean closed;

  // Guarded by this. What was asked for while a scan runs has to see what came since.
  private @Nullable CompletableFuture<ScanResult> running;
  private @Nullable CompletableFuture<ScanResult> next;

  /**
   * A directory that holds an {@code adapter_config.json}.
   *
   * @param name relative to its root; on one line, whatever the file system says
   * @param kind {@code lora}, {@code rslora} or {@code dora}; empty if it cannot be used
   * @param rank its config's {@code r}, or 0
   * @param problem why it cannot be used, or null
   */
  record Found(String name, String kind, int rank, @Nullable String problem) {}

  /**
   * @param base the base's name, which no adapter can have; empty: unknown
   */
  RootScan(AdapterRoots roots, AdapterOptions options, String base, EventLog events) {
    this.roots = roots;
    this.options = options;
    this.base = base;
    this.events = events;
  }

  /** By name; grows while a scan goes on. */
  NavigableMap<String, Found> found() {
    return found;
  }

  /** Whether a scan goes on. */
  synchronized boolean running() {
    return running != null;
  }

  /** Looks through all roots, on a thread of its own; beside a running scan, once more after it. */
  synchronized CompletableFuture<ScanResult> start() {
    if (next != null) {
      return next.copy();
    }
    CompletableFuture<ScanResult> result = new CompletableFuture<>();
    if (running != null) {
      next = result;
    } else {
      begin(result);
    }
    return result.copy();
  }

  private synchronized void begin(CompletableFuture<ScanResult> result) {
    running = result;
    Thread.ofPlatform().daemon().name("wardrobe-scan").start(() -> run(result));
  }

  private void run(CompletableFuture<ScanResult> result) {
    try {
      ScanResult scanned = run(() -> closed);
      end();
      events.append(RegistryEvent.Kind.SCANNED, "", "", "", scanned.toString());
      result.complete(scanned);
    } catch (RuntimeException | Error e) {
      end();
      result.completeExceptionally(e);
    }
  }

  private synchronized void end() {
    CompletableFuture<ScanResult> waiting = next;
    running = null;
    next = null;
    if (waiting != null) {
      begin(waiting);
    }
  }

  /** Ends a scan that goes on. */
  @Override
  public void close() {
    closed = true;
  }

  /**
   * Looks through all roots. One at a time.
   *
   * @param stop asked often whether to end early
   */
  ScanResult run(BooleanSupplier stop) {
    long began = System.nanoTime();
    Set<String> seen = new HashSet<>();
    boolean complete = true;
    for (Path root : roots.directories()) {
      complete &= look(root, root, 0, seen, stop);
    }
    if (complete) {
      found.keySet().retainAll(seen);
    }
    int broken = 0;
    for (Found each : found.values()) {
      broken += each.problem() == null ? 0 : 1;
    }
    return new ScanResult(found.size(), broken, complete, System.nanoTime() - began);
  }

  /** Whether all below {@code directory} was seen. */
  private boolean look(
      Path root, Path directory, int depth, Set<String> seen, BooleanSupplier stop) {
    boolean complete = true;
    try (DirectoryStream<Path> entries = Files.newDirectoryStream(directory)) {
      for (Path entry : entries) {
        if (stop.getAsBoolean() || seen.size() >= MOST) {
          return false;
        }
        boolean real = Files.isDirectory(entry, LinkOption.NOFOLLOW_LINKS);
        if (!real && !Files.isDirectory(entry)) {
          continue;
        }
        if (Files.exists(entry.resolve(AdapterConfig.FILE), LinkOption.NOFOLLOW_LINKS)) {
          String path = root.relativize(entry).toString().replace('\\', '/');
          String name = plain(path);
          if (seen.add(name)) {
            found.put(name, read(path, name));
          }
        }
        if (real && depth + 1 < DEEPEST) {
          complete &= look(root, entry, depth + 1, seen, stop);
        }
      }
    } catch (IOException | DirectoryIteratorException e) {
      // It cannot be read, or went away: nothing to be had there, now.
      return complete;
    }
    return complete;
  }

  private Found read(String path, String name) {
    try (Arena arena = Arena.ofConfined()) {
      AdapterName.check(path);
      AdapterName.checkNotBase(path, base);
      AdapterDirectory directory = roots.find(path);
      AdapterConfig config;
      try (AdapterFiles.OpenFile file = directory.open(AdapterConfig.FILE)) {
        config =
            AdapterConfig.parse(
                file.read(AdapterConfig.LARGEST_FILE, arena).bytes().toArray(ValueLayout.JAVA_BYTE),
                options);
      }
      Adapter.checkHasWeights(directory);
      try (AdapterFiles.OpenFile file = directory.open(Adapter.WEIGHTS)) {
        if (file.size() > options.maxFileBytes()) {
          throw new AdapterException(
              Reason.TOO_LARGE,
              "%s: expected at most %d bytes, got %d"
                  .formatted(Adapter.WEIGHTS, options.maxFileBytes(), file.size()));
        }
      }
      return new Found(name, Adapter.Kind.of(config).toString(), config.rank(), null);
    } catch (AdapterException e) {
      return new Found(name, "", 0, AdapterException.message(e));
    } catch (RuntimeException e) {
      return new Found(name, "", 0, "reading failed unexpectedly (%s)".formatted(plain(e + "")));
    }
  }
}
