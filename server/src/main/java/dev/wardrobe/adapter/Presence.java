package dev.wardrobe.adapter;

import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * One digest, and who has to do with it. There is one object of it for as long as a name, a lease,
 * a load or a copy in the backend's memory has. Guarded by the registry's lock.
 */
final class Presence {
  final Facts facts;

  /** Where it can be read again. */
  Origin origin;

  /** Names that stand for it. */
  final Set<String> names = new LinkedHashSet<>();

  /** Loads under way, by which names are going to stand for it. */
  int loads;

  /** How many of its names are to stay resident, and loads of such. */
  int pins;

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

  /** Whether a name stands for it, or is about to. */
  boolean wanted() {
    return !names.isEmpty() || loads > 0;
  }

  /** What is to be done about its copies in the backend's memory. */
  void tellUnwanted(Collection<Runnable> todo) {
    if (!wanted()) {
      residents.forEach(resident -> todo.add(resident.unwanted()));
    }
  }
}
