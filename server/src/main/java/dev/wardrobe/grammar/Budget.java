package dev.wardrobe.grammar;

/**
 * What compiling one constraint may take: states that stay, and work. Both are counted rather than
 * timed, so that a constraint is taken or refused on every machine alike.
 */
final class Budget {
  static final int STATES = 200_000;

  /** Of one automaton. */
  static final int AUTOMATON = 100_000;

  static final long WORK = 40_000_000;

  /** What is compiled before others wait: some 30 ms. */
  static final long LITTLE_WORK = 4_000_000;

  /** Numbers that building one automaton may keep: 32 MiB. */
  private static final long KEPT = 8L << 20;

  private final long mostWork;
  private long states;
  private long work;

  Budget(long mostWork) {
    this.mostWork = mostWork;
  }

  Budget() {
    this(WORK);
  }

  void states(long count) throws GrammarException {
    states += count;
    if (states > STATES) {
      throw new GrammarException(
          ("it needs more than %d states; shorten counted repetitions, length limits, or lists of"
                  + " alternatives")
              .formatted(STATES));
    }
  }

  void work(long count) throws GrammarException {
    work += count;
    if (work > mostWork) {
      throw tooMuch();
    }
  }

  /** Checks how many numbers the building of one automaton keeps. */
  void kept(long count) throws GrammarException {
    if (count > KEPT) {
      throw tooMuch();
    }
  }

  private GrammarException tooMuch() {
    return new GrammarException(
        "compiling it takes more than %d steps, or too much memory; simplify it, above all"
                .formatted(WORK)
            + " repetitions inside repetitions and overlapping alternatives");
  }

  /** Whether it ran out of work, so that a larger one might do. */
  boolean ranOut() {
    return work > mostWork;
  }
}
