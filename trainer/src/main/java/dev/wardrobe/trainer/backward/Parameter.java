package dev.wardrobe.trainer.backward;

import dev.wardrobe.compute.Buffer;

/**
 * A tensor that is trained, in float32, with its gradient.
 *
 * @param name as PEFT's file names it: {@code base_model.model.<path>.lora_A.weight}
 * @param role what it is in its module
 * @param value {@code (rows, width)}; a vector is {@code (1, width)}
 * @param gradient of the same shape; summed until it is cleared
 */
public record Parameter(String name, Role role, Buffer value, Buffer gradient) {

  /** The groups that an optimizer may treat differently. */
  public enum Role {
    /** {@code (rank, in)}. */
    A,
    /** {@code (out, rank)}. */
    B,
    /** DoRA's magnitude, {@code (1, out)}. */
    MAGNITUDE
  }

  /** How many numbers it has. */
  public long size() {
    return (long) value.rows() * value.width();
  }
}
