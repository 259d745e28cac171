package dev.wardrobe.compute;

import org.jspecify.annotations.Nullable;

/**
 * A base projection {@code y = W·x + bias}, and the number by which adapters know it.
 *
 * @param module the module's number in the model; {@link Lora} deltas are keyed by it
 * @param weight {@code (out, in)}
 * @param bias {@code (1, out)}, or null
 */
public record Linear(int module, Matrix weight, @Nullable Buffer bias) {}
