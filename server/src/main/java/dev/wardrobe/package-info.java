/** The server: composition by constructor, and the command line that starts it. */
@NullMarked
package dev.wardrobe;

import org.jspecify.annotations.NullMarked;
