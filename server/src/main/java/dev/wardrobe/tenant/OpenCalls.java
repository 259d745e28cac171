package dev.wardrobe.tenant;

import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Consumer;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/**
 * What callers are being answered, so that it ends when what they showed is worth nothing any more:
 * some answers would go on for days. Safe for use by all threads.
 */
public final class OpenCalls {
  private final Set<Open> calls = ConcurrentHashMap.newKeySet();

  /** Compared by identity. */
  private static final class Open {
    private final Caller caller;
    private final Consumer<String> end;

    Open(Caller caller, Consumer<String> end) {
      this.caller = caller;
      this.end = end;
    }
  }

  /**
   * One more.
   *
   * @param end ends it, saying why, if it has not ended yet; on any thread
   * @return to be run when it has ended
   */
  public Runnable add(Caller caller, Consumer<String> end) {
    if (caller.id().isEmpty()) {
      // Showed nothing that could be taken away.
      return () -> {};
    }
    Open call = new Open(caller, end);
    calls.add(call);
    return () -> calls.remove(call);
  }

  /**
   * Ends what callers have open who are no longer let in.
   *
   * @param refusal says why somebody is not; null for those who are
   */
  public void endRefused(Function<Caller, @Nullable String> refusal) {
    for (Open call : calls) {
      String why = refusal.apply(call.caller);
      if (why != null) {
        call.end.accept(why);
      }
    }
  }
}
