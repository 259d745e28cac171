/** A conversation: template to tokens to engine to text, shared by every front end. */
@NullMarked
package dev.wardrobe.serve;

import org.jspecify.annotations.NullMarked;
