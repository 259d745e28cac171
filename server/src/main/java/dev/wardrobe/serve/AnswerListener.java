package dev.wardrobe.serve;

import dev.wardrobe.v1.GenerateEvent;

/**
 * Where an answer goes: one {@link #started}, any number of {@link #delta}, one {@link #finished};
 * or, at any point instead of the rest, one {@link #failed}.
 *
 * <p>Called by one thread at a time, mostly the engine's: every method returns at once.
 */
public interface AnswerListener {

  /** Whether more can be taken; call {@link Turn#resume} when this becomes true again. */
  default boolean ready() {
    return true;
  }

  void started(GenerateEvent.Started started);

  void delta(GenerateEvent.Delta delta);

  void finished(GenerateEvent.Finished finished);

  void failed(RequestException failure);
}
