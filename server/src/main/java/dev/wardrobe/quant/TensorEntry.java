package dev.wardrobe.quant;

import dev.wardrobe.safetensors.TensorSpec;
import java.lang.foreign.MemorySegment;

/** A tensor of a checkpoint to be written, with its bytes. */
public record TensorEntry(TensorSpec spec, MemorySegment data) {}
