/** The 4-bit codecs: NF4 and FP4 with double quantization, bit-exact with bitsandbytes. */
@NullMarked
package dev.wardrobe.quant;

import org.jspecify.annotations.NullMarked;
