/** What a person, TensorBoard or a script gets to see of a run, during it and after. */
@NullMarked
package dev.wardrobe.trainer.report;

import org.jspecify.annotations.NullMarked;
