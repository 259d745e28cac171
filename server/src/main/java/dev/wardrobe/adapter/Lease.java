package dev.wardrobe.adapter;

import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.BooleanSupplier;
import org.jspecify.annotations.Nullable;

/**
 * The right to use one version of an adapter: while it is open, that version can be had, whatever
 * becomes of its name. It holds no memory of the backend's: {@link #upload} does. Closed once or
 * more, by any thread.
 */
public final class Lease implements AutoCloseable {
  private final AdapterRegistry registry;
  private final String name;
  private final Presence presence;
  private final AtomicReference<@Nullable ShadowCopy> copy;
  private final Runnable end;
  private final AtomicBoolean closed = new AtomicBoolean();

  Lease(
      AdapterRegistry registry,
      String name,
      Presence presence,
      @Nullable ShadowCopy copy,
      Runnable end) {
    this.registry = registry;
    this.copy = new AtomicReference<>(copy);
    this.name = name;
    this.presence = presence;
    this.end = end;
  }

  /** What answers: {@code NAME}, or {@code NAME@VERSION} of the store. */
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

  /**
   * Says that it has answered.
   *
   * @param millis from the request's arrival to the answer's first token
   */
  public void answered(double millis) {
    presence.firstTokens.add(millis);
  }

  /** Whether it only adds to what the base computes: only then may it be mixed or scaled. */
  public boolean additive() {
    return presence.facts.additive();
  }

  /** Whether it is to stay there once it is: somebody said so. */
  public boolean pinned() {
    return presence.pinned();
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

  /**
   * Another lease of the same version, for a part of the same request: whatever has become of the
   * name meanwhile. It counts as no use of its own.
   *
   * @throws IllegalStateException if this one is closed
   */
  public Lease share() {
    return registry.share(name, presence, closed::get);
  }

  /**
   * Takes the request's copy for a candidate: null where there is to be none, and from the second
   * time on. Whoever takes it says what came of it; untaken it is dropped with the lease.
   */
  public @Nullable ShadowCopy takeCopy() {
    return copy.getAndSet(null);
  }

  @Override
  public void close() {
    if (closed.compareAndSet(false, true)) {
      ShadowCopy untaken = takeCopy();
      if (untaken != null) {
        untaken.dropped();
      }
      end.run();
    }
  }
}
