package dev.wardrobe.text;

import java.util.List;

/**
 * A conversation as text, with the parts that an assistant wrote.
 *
 * @param text to be tokenized without special tokens added: the template writes its own
 * @param generated what stood inside the template's {@code generation} tags, in order
 */
public record RenderedChat(String text, List<Span> generated) {

  public RenderedChat {
    generated = List.copyOf(generated);
  }

  /** A part of the text, from the {@code char} at {@code start} to the one before {@code end}. */
  public record Span(int start, int end) {}
}
