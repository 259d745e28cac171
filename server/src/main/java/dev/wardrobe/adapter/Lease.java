package dev.wardrobe.adapter;

import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.BooleanSupplier;

/**
 * The right to use one version of an adapter: while it is open, that version can be had, whatever
 * becomes of its name. It holds no memory of the backend's: {@link #upload} does. Closed once or
 * more, by any thread.
 */
public final class Lease implements AutoCloseable {
  private final AdapterRegistry registry;
  private final String name;
  private final Presence presence;
  private final Runnable end;
  private final AtomicBoolean closed = new AtomicBoolean();

  Lease(AdapterRegistry registry, String name, Presence presence, Runnable end) {
    this.registry = registry;
    this.name = name;
    this.presence = presence;
    this.end = end;
  }

  public String name() {
    return name;
  }

  /** {@code sha256:} and 64 hexadecimal digits. */
  public String digest() {
    return presence.facts.digest();
  }

  /** What it takes in the backend's memory, exactly. */
  public long deviceBytes() {
    return presence.facts.deviceBytes();
  }

  /** Whether it only adds to what the base computes: only then may it be mixed or scaled. */
  public boolean additive() {
    return presence.facts.additive();
  }

  /** Whether it is to stay there once it is: the operator named it. */
  public boolean pinned() {
    return registry.pinned(presence);
  }

  /**
   * Makes the adapter resident: from the host's cache, else from its files, on a loader's thread.
   *
   * @param wanted asked by the loader before it begins, and once it has read the files; if it is
   *     not, the future is cancelled
   * @return completed by a loader's thread, with what the caller is to close; exceptionally with an
   *     {@link AdapterException}
   * @throws IllegalStateException if the lease is closed
   */
  public CompletableFuture<Resident> upload(BooleanSupplier wanted) {
    if (closed.get()) {
      throw new IllegalStateException("the lease of adapter '" + name + "' is closed");
    }
    return registry.upload(name, presence, wanted);
  }

  @Override
  public void close() {
    if (closed.compareAndSet(false, true)) {
      end.run();
    }
  }
}
