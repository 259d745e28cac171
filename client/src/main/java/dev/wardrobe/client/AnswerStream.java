package dev.wardrobe.client;

import dev.wardrobe.v1.GenerateEvent;
import io.grpc.Context;
import io.grpc.StatusRuntimeException;
import java.util.Iterator;
import java.util.NoSuchElementException;
import org.jspecify.annotations.Nullable;

/**
 * An answer as it is made: a Started, Deltas, and a Finished.
 *
 * <p>One event is asked for at a time: reading slowly slows this answer's own generation, and
 * nothing piles up here. {@link #close} ends the answer on the server too, from any thread; {@link
 * #hasNext} then throws a {@link StatusRuntimeException} with CANCELLED, or is false. To be read by
 * one thread.
 */
public final class AnswerStream implements Iterator<GenerateEvent>, AutoCloseable {
  /** Starts over, as long as no event has come. */
  interface Source {
    /**
     * The events of the next attempt.
     *
     * @param failure of the last one, null at first; thrown if there is to be no other
     */
    Iterator<GenerateEvent> attempt(
        @Nullable StatusRuntimeException failure, Context.CancellableContext context);
  }

  private final Source source;
  private final Context.CancellableContext context = Context.ROOT.fork().withCancellation();
  private @Nullable Iterator<GenerateEvent> events;
  private boolean any;

  AnswerStream(Source source) {
    this.source = source;
  }

  /**
   * Waits for the next event.
   *
   * @throws StatusRuntimeException if the answer failed; {@link CallError#of} says more
   */
  @Override
  public boolean hasNext() {
    StatusRuntimeException failure = null;
    while (true) {
      Iterator<GenerateEvent> current = events;
      if (current == null) {
        current = source.attempt(failure, context);
        events = current;
      }
      try {
        boolean more = current.hasNext();
        any |= more;
        return more;
      } catch (StatusRuntimeException e) {
        if (any || context.isCancelled()) {
          throw e;
        }
        failure = e;
        events = null;
      }
    }
  }

  @Override
  public GenerateEvent next() {
    Iterator<GenerateEvent> current = hasNext() ? events : null;
    if (current == null) {
      throw new NoSuchElementException("the answer is finished");
    }
    return current.next();
  }

  /** Ends it on the server too, if it has not ended. */
  @Override
  public void close() {
    boolean _ = context.cancel(null);
  }
}
