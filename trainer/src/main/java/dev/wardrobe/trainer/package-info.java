/** The trainer: it makes adapters, and joins the server through its extension point. */
@NullMarked
package dev.wardrobe.trainer;

import org.jspecify.annotations.NullMarked;
