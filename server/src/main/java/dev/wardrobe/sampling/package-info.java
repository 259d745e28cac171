/** Choosing the next token: sampling parameters, penalties, sampler. */
@NullMarked
package dev.wardrobe.sampling;

import org.jspecify.annotations.NullMarked;
