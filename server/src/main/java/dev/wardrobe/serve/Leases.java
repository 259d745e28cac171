package dev.wardrobe.serve;

import dev.wardrobe.adapter.Lease;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicInteger;

/** Leases that are asked for together: all of them, or none. */
final class Leases {
  private Leases() {}

  /**
   * Waits for all. The result fails with the first that fails, and may be cancelled; either way
   * what has come is closed, and what has not is cancelled.
   */
  static CompletableFuture<List<Lease>> all(List<CompletableFuture<Lease>> asked) {
    if (asked.isEmpty()) {
      return CompletableFuture.completedFuture(List.of());
    }
    CompletableFuture<List<Lease>> all = new CompletableFuture<>();
    AtomicInteger left = new AtomicInteger(asked.size());
    for (CompletableFuture<Lease> one : asked) {
      CompletableFuture<?> _ =
          one.whenComplete(
              (lease, failure) -> {
                if (failure != null) {
                  all.completeExceptionally(failure);
                } else if (left.decrementAndGet() == 0) {
                  all.complete(asked.stream().map(CompletableFuture::join).toList());
                }
              });
    }
    CompletableFuture<?> _ =
        all.whenComplete(
            (leases, failure) -> {
              if (failure != null) {
                giveUp(asked);
              }
            });
    return all;
  }

  /** Cancels what has not come, and closes what has, or comes nevertheless. */
  static void giveUp(List<CompletableFuture<Lease>> asked) {
    for (CompletableFuture<Lease> one : asked) {
      if (!one.cancel(false)) {
        CompletableFuture<?> _ =
            one.whenComplete(
                (lease, failure) -> {
                  if (lease != null) {
                    lease.close();
                  }
                });
      }
    }
  }
}
