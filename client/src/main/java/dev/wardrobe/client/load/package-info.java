/** A load on a server, made and measured from outside. */
@NullMarked
package dev.wardrobe.client.load;

import org.jspecify.annotations.NullMarked;
