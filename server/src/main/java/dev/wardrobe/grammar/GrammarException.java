package dev.wardrobe.grammar;

import java.io.Serial;

/** A constraint that cannot be compiled: says where in it, what is wrong, and what to do. */
public final class GrammarException extends Exception {
  @Serial private static final long serialVersionUID = 1L;

  GrammarException(String message) {
    super(message);
  }

  GrammarException(String message, Throwable cause) {
    super(message, cause);
  }
}
