package dev.wardrobe.grpc;

import dev.wardrobe.telemetry.Origin;
import dev.wardrobe.tenant.Caller;
import io.vertx.core.Context;
import io.vertx.grpc.common.GrpcStatus;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;

/**
 * The sending half of one call, usable from any thread.
 *
 * <p>Everything is written on the call's own event loop, in the order in which it was handed over.
 * What is handed over but not yet taken by the transport is bounded by the caller: it asks {@link
 * #ready} first and is told when to go on. Ends exactly once; what comes after that is dropped.
 */
final class Reply<T> {
  /** Messages between the caller and the event loop. */
  private static final int IN_FLIGHT = 32;

  /** What a reply is written to. All but {@link #last} is called on the event loop. */
  interface Wire<T> {
    /** How the request came here. */
    Origin origin();

    /**
     * Called before anything else.
     *
     * @param gone to be run when nobody reads any more
     * @param drained to be run when a reader that was behind keeps up again
     */
    void open(Runnable gone, Runnable drained);

    /** Sends a message; false if the reader is behind now. */
    boolean write(T message);

    /** What sends the last message, and the end, once it is run on the event loop. */
    Runnable last(T message);

    void end();

    /**
     * Ends with an error.
     *
     * @param retryAfter when to try again, or null
     */
    void fail(GrpcStatus status, String message, @Nullable Duration retryAfter);
  }

  private final Context context;
  private final Caller caller;
  private final Wire<T> wire;
  private final AtomicInteger inFlight = new AtomicInteger();
  private final AtomicBoolean over = new AtomicBoolean();
  private volatile boolean full;
  private volatile Runnable onReady = () -> {};
  private volatile Runnable onGone = () -> {};
  private volatile Runnable onEnd = () -> {};

  /** On the event loop. */
  Reply(Context context, Wire<T> wire) {
    this.context = context;
    this.caller = CallerContext.of(context);
    this.wire = wire;
    wire.open(
        this::gone,
        () -> {
          full = false;
          onReady.run();
        });
  }

  /** How the request came here. */
  Origin origin() {
    return wire.origin();
  }

  /** Who asks. */
  Caller caller() {
    return caller;
  }

  /** Whether the reader keeps up. */
  boolean ready() {
    return !full && inFlight.get() < IN_FLIGHT;
  }

  /** Called on the event loop whenever a reader that was behind keeps up again. */
  void onReady(Runnable action) {
    onReady = action;
  }

  /** Called once if the reader goes away before the end; at once if it is gone already. */
  void onGone(Runnable action) {
    onGone = action;
    if (over.get()) {
      action.run();
    }
  }

  /** Called once when it has ended, however it did. To be set before anything is sent. */
  void onEnd(Runnable action) {
    onEnd = action;
  }

  /** True for the one who ends it. */
  private boolean finish() {
    boolean mine = over.compareAndSet(false, true);
    if (mine) {
      onEnd.run();
    }
    return mine;
  }

  /** Runs {@code action} on the call's event loop, after what was handed over before. */
  void run(Runnable action) {
    context.runOnContext(_ -> action.run());
  }

  void send(T message) {
    inFlight.incrementAndGet();
    context.runOnContext(
        _ -> {
          boolean wasBehind = inFlight.getAndDecrement() >= IN_FLIGHT;
          if (over.get()) {
            return;
          }
          full = !wire.write(message);
          if (wasBehind && !full) {
            onReady.run();
          }
        });
  }

  void end(T last) {
    Runnable end = wire.last(last);
    context.runOnContext(
        _ -> {
          if (finish()) {
            end.run();
          }
        });
  }

  void end() {
    context.runOnContext(
        _ -> {
          if (finish()) {
            wire.end();
          }
        });
  }

  void fail(Throwable failure) {
    fail(Errors.status(failure), Errors.message(failure), Errors.retryAfter(failure));
  }

  void fail(GrpcStatus status, String message) {
    fail(status, message, null);
  }

  private void fail(GrpcStatus status, String message, @Nullable Duration retryAfter) {
    context.runOnContext(
        _ -> {
          if (finish()) {
            wire.fail(status, message, retryAfter);
          }
        });
  }

  /** Ends with an error; who answers hears of it as if the reader had gone away. */
  void breakOff(GrpcStatus status, String message) {
    context.runOnContext(
        _ -> {
          if (finish()) {
            wire.fail(status, message, null);
            onGone.run();
          }
        });
  }

  private void gone() {
    if (finish()) {
      onGone.run();
    }
  }
}
