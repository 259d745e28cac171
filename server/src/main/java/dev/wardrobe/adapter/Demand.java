package dev.wardrobe.adapter;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import org.jspecify.annotations.Nullable;

/** A name that is read because requests ask for it. Guarded by the registry's lock. */
final class Demand {
  final String name;
  final Origin origin;

  /** What keeps the content in the store until it is read. */
  final AdapterStore.@Nullable Hold hold;

  final List<Waiter> waiters = new ArrayList<>();

  Demand(String name, Origin origin, AdapterStore.@Nullable Hold hold) {
    this.name = name;
    this.origin = origin;
    this.hold = hold;
  }

  /** Two names of one content are read apart, and so are two contents of one name. */
  static String key(String name, Origin origin) {
    return origin instanceof Origin.Stored stored ? name + "=" + stored.digest() : name;
  }

  String key() {
    return key(name, origin);
  }

  /** A request that waits for a name to be read. */
  record Waiter(CompletableFuture<Lease> future, @Nullable ShadowCopy copy) {
    void fail(AdapterException e) {
      if (copy != null) {
        copy.dropped();
      }
      future.completeExceptionally(e);
    }
  }
}
