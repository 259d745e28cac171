package dev.wardrobe.serve;

import dev.wardrobe.text.TextException;
import dev.wardrobe.text.TokenBytes;
import dev.wardrobe.text.Tokenizer;
import java.nio.charset.StandardCharsets;
import org.jspecify.annotations.Nullable;

/** What the tokens of a vocabulary are in a text. */
final class Pieces {
  private final Tokenizer tokenizer;

  /** Null where the tokenizer's decoder does more than to join bytes. */
  private final @Nullable TokenBytes bytes;

  Pieces(Tokenizer tokenizer) {
    this.tokenizer = tokenizer;
    TokenBytes known = null;
    try {
      known = tokenizer.tokenBytes();
    } catch (TextException e) {
      // Then each token is decoded by itself.
    }
    bytes = known;
  }

  Piece of(int token) {
    byte[] known = bytes == null || token >= bytes.size() ? null : bytes.of(token);
    byte[] first = bytes == null || token >= bytes.size() ? null : bytes.first(token);
    if (known != null) {
      return new Piece(known, first == null ? known : first, false);
    }
    int[] alone = {token};
    byte[] name = tokenizer.decode(alone, false).getBytes(StandardCharsets.UTF_8);
    boolean special = tokenizer.decode(alone, true).isEmpty();
    return new Piece(name, name, special);
  }
}
