package dev.wardrobe.compute;

import java.util.Locale;

/** How projections are computed. */
public enum MathMode {
  /**
   * In float32 and in one fixed order: a row's bits depend on nothing but the weights, its adapter
   * and its sequence.
   */
  EXACT,

  /**
   * Of the base's projections, those of 16 rows and more with inputs and weights rounded to
   * bfloat16, and summed in float32 in an order that is the library's. A row's bits may then depend
   * on how many others are in its step. Everything else is as in {@link #EXACT}.
   */
  FAST;

  /** As options and answers name it. */
  public String id() {
    return name().toLowerCase(Locale.ROOT);
  }
}
