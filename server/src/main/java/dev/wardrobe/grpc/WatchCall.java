package dev.wardrobe.grpc;

import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.adapter.EventLog;
import dev.wardrobe.adapter.RegistryEvent;
import dev.wardrobe.tenant.VisibleAdapters;
import dev.wardrobe.v1.AdapterEvent;
import io.vertx.grpc.common.GrpcStatus;
import java.util.OptionalLong;
import java.util.function.Consumer;

/**
 * One call of WatchAdapters: reads on in the log while its reader takes what it sends. All of it
 * runs on the call's event loop.
 */
final class WatchCall {
  private final Reply<AdapterEvent> reply;
  private final EventLog.Watch watch;
  private final Consumer<WatchCall> onEnd;

  /**
   * A call that is to be answered.
   *
   * @param after the revision after which it begins; none: now
   * @param onEnd called once nobody reads any more
   * @throws AdapterException if what comes next is no longer kept
   */
  WatchCall(
      VisibleAdapters adapters,
      OptionalLong after,
      Reply<AdapterEvent> reply,
      Consumer<WatchCall> onEnd)
      throws AdapterException {
    this.reply = reply;
    this.onEnd = onEnd;
    this.watch = adapters.watch(after, () -> reply.run(this::drain));
  }

  /** Begins to answer. */
  void begin() {
    reply.send(
        AdapterEvent.newBuilder()
            .setKind(AdapterEvent.Kind.KIND_WATCHING)
            .setRevision(watch.revision())
            .build());
    reply.onReady(this::drain);
    reply.onGone(this::close);
    reply.run(this::drain);
  }

  private void drain() {
    try {
      while (reply.ready()) {
        RegistryEvent event = watch.next();
        if (event == null) {
          return;
        }
        reply.send(AdapterMessages.event(event));
      }
    } catch (AdapterException e) {
      reply.fail(e);
      close();
    }
  }

  private void close() {
    watch.close();
    onEnd.accept(this);
  }

  /** Ends it since the server does; on any thread. */
  void stop() {
    watch.close();
    reply.fail(GrpcStatus.UNAVAILABLE, "the server is stopping; watch again once it is up");
  }
}
