/** The extension point: what the trainer plugs into. */
@NullMarked
package dev.wardrobe.spi;

import org.jspecify.annotations.NullMarked;
