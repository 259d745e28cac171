package dev.wardrobe.model;

import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * The {@code quantization_config} of a bitsandbytes 4-bit checkpoint.
 *
 * <p>It describes; what is quantized and how is decided by each tensor's own quantization state.
 *
 * @param type {@code nf4} or {@code fp4}
 * @param doubleQuant whether the block maxima are quantized too
 * @param skip modules left unquantized; null is bitsandbytes' default, the output head
 */
public record QuantizationConfig(String type, boolean doubleQuant, @Nullable List<String> skip) {

  static @Nullable QuantizationConfig read(Fields config) throws ModelException {
    Fields quantization = config.object("quantization_config");
    if (quantization == null) {
      return null;
    }
    String method = quantization.text("quant_method");
    boolean fourBit =
        quantization.flag("load_in_4bit", false) || quantization.flag("_load_in_4bit", false);
    boolean eightBit =
        quantization.flag("load_in_8bit", false) || quantization.flag("_load_in_8bit", false);
    // Checkpoints of transformers before 4.37 leave quant_method out.
    if (method != null ? !method.equals("bitsandbytes") : !fourBit && !eightBit) {
      throw new ModelException(
          "%s: quant_method '%s' is not supported; supported is bitsandbytes in 4 bits, or an"
                  .formatted(quantization.where(), method == null ? "(none)" : method)
              + " unquantized model");
    }
    if (eightBit || !fourBit) {
      throw new ModelException(
          "%s: bitsandbytes in 8 bits is not supported; supported is 4 bits (load_in_4bit), or an"
                  .formatted(quantization.where())
              + " unquantized model");
    }
    String type = quantization.text("bnb_4bit_quant_type");
    if (type == null) {
      type = "fp4";
    }
    if (!type.equals("nf4") && !type.equals("fp4")) {
      throw new ModelException(
          "%s: bnb_4bit_quant_type '%s' is not supported; supported are nf4, fp4"
              .formatted(quantization.where(), type));
    }
    return new QuantizationConfig(
        type,
        quantization.flag("bnb_4bit_use_double_quant", false),
        quantization.texts("llm_int8_skip_modules"));
  }
}
