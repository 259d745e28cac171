/** The decoder: configuration of the supported families, loader, forward pass, KV pages. */
@NullMarked
package dev.wardrobe.model;

import org.jspecify.annotations.NullMarked;
