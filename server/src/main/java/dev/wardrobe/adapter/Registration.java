package dev.wardrobe.adapter;

/** A name and what it stands for. Guarded by the registry's lock. */
final class Registration {
  final String name;
  final Origin origin;
  final Presence presence;

  /** Whether it is to stay resident. */
  boolean pin;

  /** Pins under way: until they have come to something it is not to be evicted either. */
  int pinning;

  int inUse;
  long requests;

  Registration(String name, Origin origin, Presence presence, boolean pin) {
    this.name = name;
    this.origin = origin;
    this.presence = presence;
    this.pin = pin;
  }

  boolean pinned() {
    return pin || pinning > 0;
  }
}
