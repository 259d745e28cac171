package dev.wardrobe.engine;

/** A submitted sequence, as its owner sees it. Safe for any thread. */
public final class Ticket {
  private final Engine engine;
  private final Sequence sequence;

  Ticket(Engine engine, Sequence sequence) {
    this.engine = engine;
    this.sequence = sequence;
  }

  /** Ends the sequence within one step; without effect on one that has ended. */
  public void cancel() {
    engine.cancel(sequence);
  }

  /** Says that the listener is ready again. */
  public void resume() {
    engine.wake();
  }
}
