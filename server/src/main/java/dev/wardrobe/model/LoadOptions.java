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
 */
public record LoadOptions(@Nullable QuantOptions quantize, List<String> skip) {
  /** NF4 in blocks of 64, doubly quantized, every projection. */
  public static final LoadOptions DEFAULT = new LoadOptions(QuantOptions.DEFAULT, List.of());

  /** Every weight in the type it is stored in. */
  public static final LoadOptions AS_STORED = new LoadOptions(null, List.of());

  public LoadOptions {
    skip = List.copyOf(skip);
  }
}
