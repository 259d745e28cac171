package dev.wardrobe.compute.cpu;

/** Rotary position embedding of one head: element i is paired with i + size/2. */
final class Rotary {
  private Rotary() {}

  /**
   * Rotates in place the {@code 2 · half} elements from {@code at} on.
   *
   * @param angle where the position's row begins in {@code cos} and {@code sin}
   */
  static void rotate(float[] x, int at, int half, float[] cos, float[] sin, int angle) {
    for (int i = 0; i < half; i++) {
      float c = cos[angle + i];
      float s = sin[angle + i];
      float a = x[at + i];
      float b = x[at + half + i];
      x[at + i] = a * c - b * s;
      x[at + half + i] = b * c + a * s;
    }
  }
}
