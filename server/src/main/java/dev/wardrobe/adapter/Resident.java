package dev.wardrobe.adapter;

import dev.wardrobe.compute.Lora;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * An adapter in the backend's memory. Whoever had it uploaded decides how long it stays, and closes
 * it; the registry hears of that.
 */
public final class Resident implements AutoCloseable {
  private final AdapterRegistry registry;
  private final String name;
  private final Presence presence;
  private final Lora lora;
  private final long loadNanos;
  private final AtomicBoolean closed = new AtomicBoolean();

  // Whom to tell what. Guarded by the registry's lock.
  private Runnable unwanted = () -> {};
  private Runnable repinned = () -> {};

  Resident(AdapterRegistry registry, String name, Presence presence, Lora lora, long loadNanos) {
    this.registry = registry;
    this.name = name;
    this.presence = presence;
    this.lora = lora;
    this.loadNanos = loadNanos;
  }

  /** What it was asked for as. */
  String name() {
    return name;
  }

  public Lora lora() {
    return lora;
  }

  /** {@code sha256:} and 64 hexadecimal digits. */
  public String digest() {
    return presence.facts.digest();
  }

  /** What it takes. */
  public long bytes() {
    return lora.bytes();
  }

  /** How long it took to get here, from the host's cache or from disk. */
  public long loadNanos() {
    return loadNanos;
  }

  /** Whether it is to stay, used or not: somebody said so. */
  public boolean pinned() {
    return presence.pinned();
  }

  /** Whether a name stands for it. Without one there is no use in keeping it but for the leases. */
  public boolean wanted() {
    return presence.wanted();
  }

  /** Calls {@code action}, on any thread, once it is no longer {@link #wanted}. */
  public void onUnwanted(Runnable action) {
    watch(action, () -> {});
  }

  /**
   * Calls {@code unwanted}, on any thread, once it is no longer {@link #wanted}, and {@code
   * repinned} when what {@link #pinned} says may have changed; that one must call nobody back.
   */
  public void watch(Runnable unwanted, Runnable repinned) {
    registry.watch(this, unwanted, repinned);
  }

  Runnable unwanted() {
    return unwanted;
  }

  Runnable repinned() {
    return repinned;
  }

  void told(Runnable whenUnwanted, Runnable whenRepinned) {
    unwanted = whenUnwanted;
    repinned = whenRepinned;
  }

  Presence presence() {
    return presence;
  }

  /** Gives the memory back; a second time does nothing. */
  @Override
  public void close() {
    if (closed.compareAndSet(false, true)) {
      lora.close();
      registry.gone(this);
    }
  }
}
