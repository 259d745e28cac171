package dev.wardrobe.engine;

import java.util.List;

/**
 * What the engine's thread had before it, between two steps.
 *
 * @param queue those that wait, by tenant and adapter
 * @param batch those that have a place, oldest first
 * @param adapters those in the backend's memory, or on the way there, or waited for
 * @param prefetches adapters that are to be loaded though nobody asked for them yet
 */
public record EngineState(List<Line> queue, List<Seat> batch, List<Held> adapters, int prefetches) {
  public EngineState {
    queue = List.copyOf(queue);
    batch = List.copyOf(batch);
    adapters = List.copyOf(adapters);
  }

  /**
   * A tenant's sequences of one adapter in the queue.
   *
   * @param adapters names, in order; empty for the base
   * @param oldestNanos since the first of them was submitted
   */
  public record Line(String tenant, List<String> adapters, int waiting, long oldestNanos) {
    public Line {
      adapters = List.copyOf(adapters);
    }
  }

  /**
   * A sequence in the batch.
   *
   * @param adapters names, in order; empty for the base
   * @param computedTokens tokens whose keys and values are there
   * @param pages KV blocks that it holds
   * @param ready whether its reader takes tokens
   * @param ageNanos since it was submitted
   */
  public record Seat(
      String id,
      String tenant,
      List<String> adapters,
      int promptTokens,
      int computedTokens,
      int generatedTokens,
      int maxTokens,
      int pages,
      boolean ready,
      long ageNanos) {
    public Seat {
      adapters = List.copyOf(adapters);
    }
  }

  /**
   * An adapter.
   *
   * @param state "ready", "loading" or "absent"
   * @param running sequences in the batch that use it
   * @param waiting sequences that wait for a place and need it
   * @param pinned whether it stays, used or not
   * @param lastUse grows from use to use
   */
  public record Held(
      String name,
      String digest,
      long bytes,
      int pages,
      String state,
      int running,
      int waiting,
      boolean pinned,
      long lastUse) {}
}
