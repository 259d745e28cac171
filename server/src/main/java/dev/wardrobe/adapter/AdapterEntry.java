package dev.wardrobe.adapter;

import java.time.Instant;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * One name of a registry and the adapter behind it, at one moment.
 *
 * @param name as requests give it: {@code NAME}, or {@code NAME@VERSION} in the store
 * @param digest {@code sha256:} and 64 hexadecimal digits; empty if it was never read
 * @param kind {@code lora}, {@code rslora} or {@code dora}; empty if even its config was not read
 * @param rank the highest of its modules; its config's, if it was never read
 * @param modules how many of the base's it changes; 0 if it was never read, as the next two
 * @param parameters elements of its tensors
 * @param bytes what it takes when it is resident
 * @param place where it lies now; what is not on the device loads when it is asked for
 * @param inUse open leases under this name
 * @param requests leases ever opened under this name
 * @param warnings what is odd about it, a line each
 * @param aliases that point to it, shares of splits included
 * @param pinned whether it is to stay resident
 * @param problem why it cannot be used, or empty
 * @param published when, or null if it is not in the store
 * @param firstTokenMillis what its latest answers took to their first token, in the mean; 0 if none
 *     has
 */
public record AdapterEntry(
    String name,
    String digest,
    String kind,
    int rank,
    int modules,
    long parameters,
    long bytes,
    Place place,
    int inUse,
    long requests,
    List<String> warnings,
    Source source,
    List<String> aliases,
    boolean pinned,
    String problem,
    @Nullable Instant published,
    double firstTokenMillis) {

  /** Where it lies, as near to what computes as it comes. */
  public enum Place {
    /** In its files alone. */
    DISK,
    /** Checked, in the host's cache. */
    HOST,
    /** In the backend's memory. */
    DEVICE
  }

  /** Where it comes from. */
  public enum Source {
    /** Named by the operator. */
    START,
    /** A directory under a root. */
    ROOT,
    STORE
  }

  /** Whether it is in the backend's memory. */
  public boolean resident() {
    return place == Place.DEVICE;
  }
}
