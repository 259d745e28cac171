/** Where a run's memory will go, told before anything is allocated. */
@NullMarked
package dev.wardrobe.trainer.plan;

import org.jspecify.annotations.NullMarked;
