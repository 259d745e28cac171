package dev.wardrobe.grpc;

import dev.wardrobe.tenant.Caller;
import io.vertx.core.Context;
import io.vertx.core.spi.context.storage.AccessMode;
import io.vertx.core.spi.context.storage.ContextLocal;

/** Who asks, kept with the context of the request: from the door to whoever answers it. */
public final class CallerContext {
  private static final ContextLocal<Caller> LOCAL = ContextLocal.registerLocal(Caller.class);

  private CallerContext() {}

  /** Has to come before the first Vert.x that serves: it makes room in its contexts. */
  public static void prepare() {
    // Loading this class has registered it.
  }

  public static void put(Context context, Caller caller) {
    LOCAL.put(context, AccessMode.CONCURRENT, caller);
  }

  /** Nobody, unless the door has said who it is. */
  public static Caller of(Context context) {
    Caller caller = LOCAL.get(context, AccessMode.CONCURRENT);
    return caller == null ? Caller.NOBODY : caller;
  }
}
