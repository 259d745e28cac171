package dev.wardrobe.adapter;

import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * One digest, and who has to do with it. There is one object of it for as long as a name, a lease,
 * a load or a copy in the backend's memory has. Guarded by the registry's lock, but for what says
 * otherwise.
 */
final class Presence {
  final Facts facts;

  /** Where it can be read again. */
  Origin origin;

  private final Set<String> names = new LinkedHashSet<>();
  private int loads;
  private int pins;

  // What who has it in memory asks at each step, without the lock.
  private volatile boolean wanted;
  private volatile boolean pinned;

  /** How fast it answers. For any thread. */
  final FirstTokens firstTokens = new FirstTokens();

  /** Open leases, and loads under way. */
  int holders;

  /** Its copies in the backend's memory; more than one only for a moment. */
  final List<Resident> residents = new ArrayList<>(1);

  /** For the leases, once no name stands for it: its files may be others by now. */
  @Nullable HostCopy kept;

  /** What keeps its content in the store, if it came from there. */
  AdapterStore.@Nullable Hold hold;

  Presence(Facts facts, Origin origin) {
    this.facts = facts;
    this.origin = origin;
  }

  /** Names that stand for it. */
  Set<String> names() {
    return names;
  }

  void addName(String name) {
    names.add(name);
    wanted = true;
  }

  void removeName(String name) {
    names.remove(name);
    wanted = !names.isEmpty() || loads > 0;
  }

  /** Counts {@code more} loads under way, by which names are going to stand for it. */
  void load(int more) {
    loads += more;
    wanted = !names.isEmpty() || loads > 0;
  }

  /** Whether a name stands for it, or is about to. For any thread. */
  boolean wanted() {
    return wanted;
  }

  /** Counts {@code more} of its names that are to stay resident, or loads of such. */
  void pin(int more) {
    if (more != 0) {
      pins += more;
      pinned = pins > 0;
      residents.forEach(resident -> resident.repinned().run());
    }
  }

  /** Whether it is to stay resident. For any thread. */
  boolean pinned() {
    return pinned;
  }

  /** What is to be done about its copies in the backend's memory. */
  void tellUnwanted(Collection<Runnable> todo) {
    if (!wanted()) {
      residents.forEach(resident -> todo.add(resident.unwanted()));
    }
  }
}
