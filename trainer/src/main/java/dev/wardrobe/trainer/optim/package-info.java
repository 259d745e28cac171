/** Optimizers, learning-rate schedules, clipping, and the pager that their state lives in. */
@NullMarked
package dev.wardrobe.trainer.optim;

import org.jspecify.annotations.NullMarked;
