/**
 * Text in and out of a model: the tokenizer, its incremental detokenizer, and the chat templates
 * that turn a conversation into a prompt. Nothing here opens a connection, and nothing in a
 * template executes beyond what {@link dev.wardrobe.text.ChatTemplate} describes.
 */
@NullMarked
package dev.wardrobe.text;

import org.jspecify.annotations.NullMarked;
