package dev.wardrobe.quant;

import java.io.IOException;
import org.jspecify.annotations.Nullable;

/**
 * A matrix that cannot be quantized, or a quantized one that cannot be read. The message names the
 * tensor, what was expected and what was found.
 */
public final class QuantException extends IOException {
  private static final long serialVersionUID = 1L;

  public QuantException(String message) {
    super(message);
  }

  public QuantException(String message, @Nullable Throwable cause) {
    super(message, cause);
  }
}
