/** What a run leaves on the disk: checkpoints that it goes on from, and the adapter. */
@NullMarked
package dev.wardrobe.trainer.checkpoint;

import org.jspecify.annotations.NullMarked;
