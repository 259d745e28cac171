/** The {@code Backend}: memory, and the coarse operations that a forward pass is made of. */
@NullMarked
package dev.wardrobe.compute;

import org.jspecify.annotations.NullMarked;
