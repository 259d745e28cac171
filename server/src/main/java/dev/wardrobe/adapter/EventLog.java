package dev.wardrobe.adapter;

import dev.wardrobe.adapter.AdapterException.Reason;
import java.util.ArrayList;
import java.util.List;
import java.util.OptionalLong;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.function.Predicate;
import org.jspecify.annotations.Nullable;

/**
 * What happened to a registry's adapters, in order, the latest of it kept.
 *
 * <p>Readers have a place in the log and no queue of their own, so however slow one is, it holds up
 * nobody and costs nothing; it loses nothing either while what it has yet to read is kept, and is
 * told when it no longer is. Safe for use by all threads; no method waits for a reader.
 */
public final class EventLog {
  private final RegistryEvent[] kept;
  private final long before;
  private final List<Watch> watches = new CopyOnWriteArrayList<>();

  // Guarded by this.
  private long latest;

  /**
   * An empty log.
   *
   * @param before the revision before that of the first event
   * @param capacity how many events are kept
   */
  public EventLog(long before, int capacity) {
    if (before < 0 || capacity < 1) {
      throw new IllegalArgumentException(
          "event log: expected a revision from 0 and a capacity from 1, got %d and %d"
              .formatted(before, capacity));
    }
    this.before = before;
    this.latest = before;
    this.kept = new RegistryEvent[capacity];
  }

  /**
   * A log whose revisions are above those of all logs that were begun before on this machine,
   * unless those grew by more than an event a microsecond.
   */
  static EventLog begunNow(int capacity) {
    return new EventLog(System.currentTimeMillis() * 1000, capacity);
  }

  /** The latest event's revision. */
  public synchronized long revision() {
    return latest;
  }

  RegistryEvent append(
      RegistryEvent.Kind kind, String name, String digest, String alias, String detail) {
    RegistryEvent event;
    synchronized (this) {
      event =
          new RegistryEvent(
              latest + 1, System.currentTimeMillis(), kind, name, digest, alias, detail);
      latest++;
      kept[slot(latest)] = event;
    }
    for (Watch watch : watches) {
      watch.wake();
    }
    return event;
  }

  RegistryEvent append(RegistryEvent.Kind kind, String name, String digest) {
    return append(kind, name, digest, "", "");
  }

  private int slot(long revision) {
    return (int) ((revision - before - 1) % kept.length);
  }

  /** With this log locked: the revision below the oldest event that is kept. */
  private long floor() {
    return Math.max(before, latest - kept.length);
  }

  /**
   * A reader's place.
   *
   * @param after the first event that it gets is the next one; none: the next that happens
   * @param wake called, by whoever appends, when there is something to read after {@link
   *     Watch#next} said that there is nothing; must return at once
   * @throws AdapterException OUTDATED if what comes next is not kept, or the revision is not of
   *     this log
   */
  public Watch watch(OptionalLong after, Runnable wake) throws AdapterException {
    return watch(after, wake, _ -> true);
  }

  /**
   * As {@link #watch(OptionalLong, Runnable)}, for some of the events.
   *
   * @param visible which; the others are passed over
   */
  public Watch watch(OptionalLong after, Runnable wake, Predicate<RegistryEvent> visible)
      throws AdapterException {
    synchronized (this) {
      long place = after.orElse(latest);
      if (place > latest) {
        throw new AdapterException(
            Reason.OUTDATED,
            "after_revision: expected at most %d, the latest, got %d; list the adapters again and"
                    .formatted(latest, place)
                + " watch from the list's revision");
      }
      check(place);
      Watch watch = new Watch(place, wake, visible);
      watches.add(watch);
      return watch;
    }
  }

  private void check(long place) throws AdapterException {
    if (place < floor()) {
      throw new AdapterException(
          Reason.OUTDATED,
          "expected a revision from %d on, since the events before it are no longer kept, got %d;"
                  .formatted(floor(), place)
              + " list the adapters again and watch from the list's revision");
    }
  }

  /** A place in the log. Its methods but {@link #close} are for one thread at a time. */
  public final class Watch implements AutoCloseable {
    private final Runnable wake;
    private final Predicate<RegistryEvent> visible;

    // Guarded by the log.
    private long place;
    private boolean idle;

    private Watch(long place, Runnable wake, Predicate<RegistryEvent> visible) {
      this.place = place;
      this.wake = wake;
      this.visible = visible;
    }

    /** The revision of the last event that was read, or where it began. */
    public long revision() {
      synchronized (EventLog.this) {
        return place;
      }
    }

    /**
     * The next event, or null if there is none yet; then {@code wake} is called when there is.
     *
     * @throws AdapterException OUTDATED if it is no longer kept
     */
    public @Nullable RegistryEvent next() throws AdapterException {
      synchronized (EventLog.this) {
        while (place < latest) {
          check(place);
          RegistryEvent event = kept[slot(++place)];
          if (visible.test(event)) {
            return event;
          }
        }
        idle = true;
        return null;
      }
    }

    private void wake() {
      synchronized (EventLog.this) {
        if (!idle || place == latest) {
          return;
        }
        idle = false;
      }
      wake.run();
    }

    @Override
    public void close() {
      watches.remove(this);
    }
  }

  /** The events that are kept, oldest first. */
  synchronized List<RegistryEvent> all() {
    List<RegistryEvent> events = new ArrayList<>();
    for (long revision = floor() + 1; revision <= latest; revision++) {
      events.add(kept[slot(revision)]);
    }
    return events;
  }
}
