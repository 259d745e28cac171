package dev.wardrobe.tenant;

import java.util.Locale;

/** What a caller may do; each method and route needs one of them. */
public enum Scope {
  /** Answers, vectors, tokens, and the names of what can be asked for. */
  INFERENCE,
  /** Loading, publishing, naming and removing adapters. */
  ADAPTERS,
  /** Everything, and what is known about the server as a whole. */
  ADMIN;

  /** As it is written. */
  public String id() {
    return name().toLowerCase(Locale.ROOT);
  }

  /**
   * The scope that is written so.
   *
   * @throws IllegalArgumentException if there is none
   */
  public static Scope of(String id) {
    for (Scope scope : values()) {
      if (scope.id().equals(id)) {
        return scope;
      }
    }
    throw new IllegalArgumentException(
        "scopes: expected inference, adapters or admin, got " + Quoted.of(id));
  }
}
