/** Who asks, and what they may. */
@NullMarked
package dev.wardrobe.tenant;

import org.jspecify.annotations.NullMarked;
