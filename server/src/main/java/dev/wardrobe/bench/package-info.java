/** What a forward pass costs: cases to measure, and the machine that they share. */
@NullMarked
package dev.wardrobe.bench;

import org.jspecify.annotations.NullMarked;
