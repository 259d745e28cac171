/** The run: steps, evaluations, samples and checkpoints, in their order. */
@NullMarked
package dev.wardrobe.trainer.loop;

import org.jspecify.annotations.NullMarked;
