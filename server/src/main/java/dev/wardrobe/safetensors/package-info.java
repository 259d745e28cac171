/** Reading and writing of safetensors files: bounded headers, memory-mapped data. */
@NullMarked
package dev.wardrobe.safetensors;

import org.jspecify.annotations.NullMarked;
