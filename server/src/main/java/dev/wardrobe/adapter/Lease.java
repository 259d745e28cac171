package dev.wardrobe.adapter;

import dev.wardrobe.compute.Lora;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * The right to use an adapter: while it is open, the adapter stays resident and the same, whatever
 * becomes of its name. Closed once or more, by any thread.
 */
public final class Lease implements AutoCloseable {
  private final String name;
  private final String digest;
  private final Lora lora;
  private final long swapInNanos;
  private final Runnable end;
  private final AtomicBoolean closed = new AtomicBoolean();

  Lease(String name, String digest, Lora lora, long swapInNanos, Runnable end) {
    this.name = name;
    this.digest = digest;
    this.lora = lora;
    this.swapInNanos = swapInNanos;
    this.end = end;
  }

  public String name() {
    return name;
  }

  /** {@code sha256:} and 64 hexadecimal digits. */
  public String digest() {
    return digest;
  }

  /**
   * The resident adapter.
   *
   * @throws IllegalStateException if the lease is closed
   */
  public Lora lora() {
    if (closed.get()) {
      throw new IllegalStateException("the lease of adapter '" + name + "' is closed");
    }
    return lora;
  }

  /** How long the request waited for the adapter to become resident; 0 if it was. */
  public long swapInNanos() {
    return swapInNanos;
  }

  @Override
  public void close() {
    if (closed.compareAndSet(false, true)) {
      end.run();
    }
  }
}
