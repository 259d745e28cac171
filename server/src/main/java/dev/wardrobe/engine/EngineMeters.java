package dev.wardrobe.engine;

/**
 * What the engine measures as it goes. Written by its thread, allocating nothing; read by any.
 * Times are in seconds.
 */
public final class EngineMeters {
  private static final double[] TOKEN_SECONDS = {
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5,
    7.5, 10, 20, 40, 80
  };
  private static final double[] STEP_SECONDS = {
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30
  };
  private static final double[] LOAD_SECONDS = {
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30
  };

  private final Distribution stepSeconds = new Distribution(STEP_SECONDS);
  private final Distribution stepTokens =
      new Distribution(1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384);
  private final Distribution stepSequences =
      new Distribution(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024);
  private final Distribution stepAdapters = new Distribution(1, 2, 4, 8, 16, 32, 64, 128, 256);
  private final Distribution tokenSeconds = new Distribution(TOKEN_SECONDS);
  private final Distribution loadSeconds = new Distribution(LOAD_SECONDS);
  private volatile long promptTokens;
  private volatile long generatedTokens;

  EngineMeters() {}

  @SuppressWarnings("NonAtomicVolatileUpdate") // One thread writes.
  void step(int sequences, int adapters, int prefillTokens, int tokens, long nanos) {
    stepSeconds.addNanos(nanos);
    stepTokens.add(tokens);
    stepSequences.add(sequences);
    stepAdapters.add(adapters);
    promptTokens += prefillTokens;
  }

  /**
   * A token was generated.
   *
   * @param gapNanos since the one before it; 0 for the first
   */
  @SuppressWarnings("NonAtomicVolatileUpdate") // One thread writes.
  void token(long gapNanos) {
    generatedTokens++;
    if (gapNanos > 0) {
      tokenSeconds.addNanos(gapNanos);
    }
  }

  /** Forgets steps and tokens; not what adapters took, whose loads are counted elsewhere. */
  void clear() {
    stepSeconds.clear();
    stepTokens.clear();
    stepSequences.clear();
    stepAdapters.clear();
    tokenSeconds.clear();
    promptTokens = 0;
    generatedTokens = 0;
  }

  void loaded(long nanos) {
    loadSeconds.addNanos(nanos);
  }

  /** What a step took. */
  public Distribution stepSeconds() {
    return stepSeconds;
  }

  /** Tokens of a step: of prompts, and one for each sequence that decodes. */
  public Distribution stepTokens() {
    return stepTokens;
  }

  public Distribution stepSequences() {
    return stepSequences;
  }

  /** Distinct adapters in a step; the base counts as one. */
  public Distribution stepAdapters() {
    return stepAdapters;
  }

  /** From one token of a sequence to its next. */
  public Distribution tokenSeconds() {
    return tokenSeconds;
  }

  /** What it took to bring an adapter into the backend's memory. */
  public Distribution loadSeconds() {
    return loadSeconds;
  }

  /** Prompt tokens computed so far, those that were computed again among them. */
  public long promptTokens() {
    return promptTokens;
  }

  public long generatedTokens() {
    return generatedTokens;
  }
}
