package dev.wardrobe.engine;

import dev.wardrobe.adapter.Lease;
import dev.wardrobe.adapter.Resident;
import java.util.concurrent.CompletableFuture;
import org.jspecify.annotations.Nullable;

/**
 * One adapter that a sequence needs, or that is in the backend's memory. Belongs to the engine's
 * thread, but for {@link #wanted}.
 */
final class Residence extends Heap.Entry<Residence> {
  /** Where the adapter is. */
  enum State {
    /** On the host or on disk. */
    ABSENT,
    /** A loader has it, or will; its pages are taken. */
    LOADING,
    /** In the backend's memory. */
    READY
  }

  final String digest;
  final String name;
  final long bytes;
  final int pages;

  State state = State.ABSENT;
  @Nullable Resident resident;
  @Nullable CompletableFuture<Resident> load;

  /** Sequences that need it, in the batch or waiting, and prefetches. */
  int interested;

  /** Sequences in the batch that need it: while there are any it stays. */
  int users;

  /** The pass over the queue in which it was last asked for; within that it stays. */
  long claimed;

  /** When its credit is below all others', it goes first; see {@link Residency}. */
  double credit;

  /** When it was last used, by the same clock as {@link #claimed}. */
  long used;

  /** Whether no further sequence may use it, so that it can go when the last one ends. */
  boolean drained;

  /** Whether it is counted among those that are to stay, used or not; see {@link Residency}. */
  boolean stays;

  /** Its index among those in memory. */
  int at;

  /** When it became ready. */
  long readyAt;

  /** Whether a load that has not begun yet should. */
  volatile boolean wanted;

  Residence(Lease lease, int pages) {
    digest = lease.digest();
    name = lease.name();
    bytes = lease.deviceBytes();
    this.pages = pages;
  }

  boolean ready() {
    return state == State.READY;
  }

  /** Whether it is in memory and is to stay there, used or not. */
  boolean pinned() {
    return resident != null && resident.pinned();
  }

  /** Who is worth least goes first, of equals who was not used for longest. */
  @Override
  boolean before(Residence other) {
    if (credit != other.credit) {
      return credit < other.credit;
    }
    return used != other.used ? used < other.used : readyAt - other.readyAt < 0;
  }

  /** Whether no sequence in the batch keeps it in memory. */
  boolean idle() {
    return state == State.READY && users == 0;
  }
}
