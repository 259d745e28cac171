/**
 * The decoder's forward and explicit backward pass over the frozen base, and the adapter that is
 * trained.
 */
@NullMarked
package dev.wardrobe.trainer.backward;

import org.jspecify.annotations.NullMarked;
