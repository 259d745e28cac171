package dev.wardrobe.client.cli;

/** What the process ends with; docs/cli.md tells scripts. */
final class ExitCode {
  static final int DONE = 0;
  static final int FAILED = 1;
  static final int USAGE = 2;

  /** No server answers. */
  static final int UNREACHABLE = 3;

  /** There is none of that name. */
  static final int NOT_FOUND = 4;

  /** Not for this caller: a missing, wrong or too small API key, or a path outside of the roots. */
  static final int REFUSED = 5;

  /** It may work later: the queue is full, a quota is used up, or time ran out. */
  static final int BUSY = 6;

  /** Ctrl-C. */
  static final int INTERRUPTED = 130;

  /** Nobody reads our output any more. */
  static final int PIPE = 141;

  private ExitCode() {}
}
