package dev.wardrobe.sampling;

import java.io.Serial;

/** A sampling parameter out of its range; says which, what was expected, and what was found. */
public final class SamplingException extends IllegalArgumentException {
  @Serial private static final long serialVersionUID = 1L;

  private final String parameter;

  SamplingException(String parameter, String message) {
    super(message);
    this.parameter = parameter;
  }

  /** The parameter's name, as requests spell it. */
  public String parameter() {
    return parameter;
  }
}
