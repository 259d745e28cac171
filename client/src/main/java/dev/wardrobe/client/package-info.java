/** A small Java client of the gRPC interface. */
@NullMarked
package dev.wardrobe.client;

import org.jspecify.annotations.NullMarked;
