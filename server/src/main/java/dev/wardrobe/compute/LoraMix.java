package dev.wardrobe.compute;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * What a sequence adds to the base: {@code y = W·x + Σ_i scale_i · delta_i(x)}, the adapters in
 * their order; nothing at all is null.
 *
 * <p>A delta's own scale (see {@link Delta}) is multiplied by the mix's, rounded once to float32;
 * then each adapter's delta is added in turn, in float32. So a mix of one at scale 1 has the bits
 * of that adapter alone, and the order of a mix may show in the last bits.
 *
 * <p>Immutable; holds no adapter open. Two are equal if they name the same objects with the same
 * scales in the same order.
 */
public final class LoraMix {
  private final Lora[] loras;
  private final float[] scales;

  private LoraMix(Lora[] loras, float[] scales) {
    this.loras = loras;
    this.scales = scales;
  }

  /** An adapter as it is. */
  public static LoraMix of(Lora lora) {
    return new LoraMix(new Lora[] {lora}, new float[] {1});
  }

  /**
   * Adapters by scales of the same index; those of scale 0 are left out.
   *
   * @return null if none is left: the base alone
   * @throws IllegalArgumentException if there are not as many scales as adapters, if a scale is not
   *     finite, or if an adapter that is not {@link Lora#additive} has company or another scale
   *     than 1
   */
  public static @Nullable LoraMix of(List<? extends Lora> loras, float... scales) {
    if (loras.size() != scales.length) {
      throw new IllegalArgumentException(
          "mix: %d adapters and %d scales".formatted(loras.size(), scales.length));
    }
    List<Lora> kept = new ArrayList<>();
    float[] by = new float[scales.length];
    for (int i = 0; i < scales.length; i++) {
      if (!Float.isFinite(scales[i])) {
        throw new IllegalArgumentException("mix: a scale of %s".formatted(scales[i]));
      }
      if (scales[i] != 0) {
        by[kept.size()] = scales[i];
        kept.add(loras.get(i));
      }
    }
    for (int i = 0; i < kept.size(); i++) {
      if (!kept.get(i).additive() && (kept.size() > 1 || by[i] != 1)) {
        throw new IllegalArgumentException(
            "mix: adapter %d replaces or rescales what the base computes: it can be used alone, at"
                    .formatted(i)
                + " scale 1, only");
      }
    }
    return kept.isEmpty()
        ? null
        : new LoraMix(kept.toArray(Lora[]::new), Arrays.copyOf(by, kept.size()));
  }

  /** How many adapters there are; at least one. */
  public int size() {
    return loras.length;
  }

  public Lora lora(int i) {
    return loras[i];
  }

  /** Finite, and not 0. */
  public float scale(int i) {
    return scales[i];
  }

  @Override
  @SuppressWarnings("ReferenceEquality") // An adapter is the same only if it is the same object.
  public boolean equals(@Nullable Object other) {
    if (this == other) {
      return true;
    }
    if (!(other instanceof LoraMix mix) || mix.loras.length != loras.length) {
      return false;
    }
    for (int i = 0; i < loras.length; i++) {
      if (loras[i] != mix.loras[i] || scales[i] != mix.scales[i]) {
        return false;
      }
    }
    return true;
  }

  @Override
  public int hashCode() {
    int hash = Arrays.hashCode(scales);
    for (Lora lora : loras) {
      hash = 31 * hash + System.identityHashCode(lora);
    }
    return hash;
  }
}
