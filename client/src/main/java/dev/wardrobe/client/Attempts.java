package dev.wardrobe.client;

import io.grpc.Deadline;
import io.grpc.Status;
import java.util.List;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/** The attempts at one call: which server is asked next, and when. */
final class Attempts {
  private final List<ServerTargets.Server> order;
  private final Retries retries;
  private final Retries.Repeat repeat;
  private final @Nullable Deadline deadline;
  private final Consumer<WardrobeClient.Failover> failover;
  private int at;
  private int made;

  /**
   * What to do.
   *
   * @param waitNanos before it
   */
  record Next(ServerTargets.Server server, long waitNanos) {}

  Attempts(
      List<ServerTargets.Server> order,
      Retries retries,
      Retries.Repeat repeat,
      @Nullable Deadline deadline,
      Consumer<WardrobeClient.Failover> failover) {
    this.order = order;
    this.retries = retries;
    this.repeat = repeat;
    this.deadline = deadline;
    this.failover = failover;
  }

  /** Of all attempts together. */
  @Nullable Deadline deadline() {
    return deadline;
  }

  Next first() {
    made = 1;
    return new Next(order.getFirst(), 0);
  }

  void answered() {
    order.get(at).answered();
  }

  /** After a failure; null if it is the call's. */
  @Nullable Next after(Throwable failure) {
    CallError error = CallError.of(failure);
    ServerTargets.Server last = order.get(at);
    boolean gone = error != null && error.code() == Status.Code.UNAVAILABLE;
    if (gone) {
      last.failed();
    }
    if (error != null
        && gone
        && repeat == Retries.Repeat.ALWAYS
        && at + 1 < order.size()
        && (deadline == null || !deadline.isExpired())) {
      at++;
      failover.accept(
          new WardrobeClient.Failover(last.name(), order.get(at).name(), error.message()));
      return new Next(order.get(at), 0);
    }
    long wait = retries.wait(error, repeat, made, deadline);
    if (wait < 0) {
      return null;
    }
    made++;
    if (gone) {
      at = 0;
    }
    return new Next(order.get(at), wait);
  }
}
