/** Text in and out: tokenizer, incremental detokenizer, chat templates. */
@NullMarked
package dev.wardrobe.text;

import org.jspecify.annotations.NullMarked;
