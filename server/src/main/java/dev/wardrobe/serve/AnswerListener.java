package dev.wardrobe.serve;

import dev.wardrobe.v1.GenerateEvent;

/**
 * Where an answer goes: one {@link #started}, any number of {@link #delta}, one {@link #finished};
 * or, at any point instead of the rest, one {@link #failed}.
 *
 * <p>Called by one thread at a time, mostly the engine's: every method returns at once. Only {@link
 * #queued} may come beside the others.
 */
public interface AnswerListener {

  /** Whether more can be taken; call {@link Turn#resume} when this becomes true again. */
  default boolean ready() {
    return true;
  }

  /** The request was found good and waits for its place in the batch. */
  default void queued() {}

  void started(GenerateEvent.Started started);

  void delta(GenerateEvent.Delta delta);

  void finished(GenerateEvent.Finished finished);

  void failed(RequestException failure);
}
