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

  private long states;
  private long work;

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
    if (work > WORK) {
      throw new GrammarException(
          "compiling it takes more than %d steps; simplify it, above all repetitions inside"
                  .formatted(WORK)
              + " repetitions and overlapping alternatives");
    }
  }
}
