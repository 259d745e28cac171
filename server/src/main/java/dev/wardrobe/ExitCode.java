package dev.wardrobe;

/**
 * What a command's process ends with; docs/cli.md tells scripts, the client's commands included.
 */
public final class ExitCode {
  public static final int DONE = 0;
  public static final int FAILED = 1;

  /** An option, a command or a value that cannot be. */
  public static final int USAGE = 2;

  /** There is none of that name. */
  public static final int NOT_FOUND = 4;

  /** What was asked about does not fit into memory. */
  public static final int DOES_NOT_FIT = 7;

  /** Ctrl-C. */
  public static final int INTERRUPTED = 130;

  /** Nobody reads our output any more. */
  static final int PIPE = 141;

  private ExitCode() {}
}
