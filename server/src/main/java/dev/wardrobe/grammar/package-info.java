/** Texts that an answer may be: expressions and JSON schemas, compiled to masks of tokens. */
@NullMarked
package dev.wardrobe.grammar;

import org.jspecify.annotations.NullMarked;
