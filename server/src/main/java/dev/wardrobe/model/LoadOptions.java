package dev.wardrobe.model;

import dev.wardrobe.quant.QuantOptions;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * How a checkpoint becomes resident.
 *
 * @param quantize what to do with an unquantized checkpoint; null leaves it as stored. The codes of
 *     a checkpoint that is quantized already are used as they are, whatever this says
 * @param skip modules to leave unquantized besides the head, see {@link SkipRule}
 * @param quantizeHead whether the head is quantized too, if it is not yet; a tied head then has a
 *     4-bit copy of the embedding, which stays as it is
 * @param cache where the result is kept for the next time
 */
public record LoadOptions(
    @Nullable QuantOptions quantize, List<String> skip, boolean quantizeHead, CacheOptions cache) {
  /** NF4 in blocks of 64, doubly quantized, every projection. */
  public static final LoadOptions DEFAULT = new LoadOptions(QuantOptions.DEFAULT, List.of());

  /** Every weight in the type it is stored in. */
  public static final LoadOptions AS_STORED = new LoadOptions(null, List.of());

  public LoadOptions {
    skip = List.copyOf(skip);
  }

  /** The head as stored, and no cache. */
  public LoadOptions(@Nullable QuantOptions quantize, List<String> skip) {
    this(quantize, skip, false, CacheOptions.NONE);
  }

  public LoadOptions withQuantizeHead(boolean quantizeHead) {
    return new LoadOptions(quantize, skip, quantizeHead, cache);
  }

  public LoadOptions withCache(CacheOptions cache) {
    return new LoadOptions(quantize, skip, quantizeHead, cache);
  }

  /** How the head is quantized if it is asked to be. */
  QuantOptions head() {
    return quantize == null ? QuantOptions.DEFAULT : quantize;
  }
}
