/** What is learned from: rows of files, made into tokens, masks and micro-batches. */
@NullMarked
package dev.wardrobe.trainer.data;

import org.jspecify.annotations.NullMarked;
