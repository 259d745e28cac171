package dev.wardrobe.text;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * The bytes that each token adds to a text: what a {@link TokenStream} gives, before bytes are put
 * together to characters. Special tokens add none, and have none here.
 *
 * <p>Known for decoders that join tokens' bytes: GPT-2's bytes as characters, and sentencepiece's
 * with {@code <0xNN>} for bytes that no token has. The latter strip a blank at a text's very start,
 * so that a token may have other bytes there.
 */
public final class TokenBytes {
  private final byte[] @Nullable [] bytes;
  private final byte[] @Nullable [] first;

  private TokenBytes(byte[] @Nullable [] bytes, byte[] @Nullable [] first) {
    this.bytes = bytes;
    this.first = first;
  }

  /** Tokens with these bytes, wherever they stand. */
  public static TokenBytes of(byte[] @Nullable [] bytes) {
    return new TokenBytes(bytes.clone(), bytes.clone());
  }

  /** One more than the largest id. */
  public int size() {
    return bytes.length;
  }

  /** A token's bytes anywhere but at the start of a text; null if it has none. */
  public byte @Nullable [] of(int token) {
    return bytes[token];
  }

  /** A token's bytes at the start of a text; null if it cannot stand there or anywhere. */
  public byte @Nullable [] first(int token) {
    return first[token];
  }

  /**
   * Reads the tokens' bytes off the decoder that {@code tokenizer.json} describes.
   *
   * @param tokens the token's text by id; null where there is none, or it is special
   * @throws TextException if the decoder does more than to join bytes
   */
  static TokenBytes read(@Nullable String[] tokens, @Nullable JsonNode decoder)
      throws TextException {
    Steps steps = new Steps(decoder);
    byte[][] bytes = new byte[tokens.length][];
    byte[][] first = new byte[tokens.length][];
    for (int id = 0; id < tokens.length; id++) {
      String token = tokens[id];
      if (token == null || token.isEmpty()) {
        continue;
      }
      byte[] anywhere = steps.bytes(token);
      first[id] = steps.first(token, anywhere);
      if (anywhere.length > 0) {
        bytes[id] = anywhere;
      }
    }
    return new TokenBytes(bytes, first);
  }

  /** What a decoder does, as far as it can be done token by token. */
  private static final class Steps {
    private final List<String[]> replacements = new ArrayList<>();
    private boolean byteLevel;
    private boolean byteFallback;
    private boolean fused;
    private int stripped;

    /** Metaspace's sign for a blank; at a text's start it stands for nothing. */
    private @Nullable String metaspace;

    private boolean dropsFirstBlanks;

    Steps(@Nullable JsonNode decoder) throws TextException {
      if (decoder == null || decoder.isNull()) {
        throw refusal("none, which puts blanks between tokens");
      }
      if (decoder.path("type").asText().equals("Sequence")) {
        for (JsonNode step : decoder.path("decoders")) {
          add(step, false);
        }
      } else {
        add(decoder, true);
      }
      if (!byteLevel && metaspace == null && !fused) {
        throw refusal("one that does not join tokens");
      }
    }

    private void add(JsonNode step, boolean alone) throws TextException {
      String type = step.path("type").asText();
      boolean known =
          switch (type) {
            case "ByteLevel" -> alone;
            case "Metaspace" -> alone;
            case "Replace" -> !fused && step.path("pattern").path("String").isTextual();
            case "ByteFallback", "Fuse" -> !fused;
            case "Strip" ->
                fused
                    && step.path("content").asText().equals(" ")
                    && step.path("stop").asInt() == 0;
            default -> false;
          };
      if (!known) {
        throw refusal("'" + type + "'");
      }
      switch (type) {
        case "ByteLevel" -> byteLevel = true;
        case "Metaspace" -> {
          metaspace = step.path("replacement").asText();
          dropsFirstBlanks =
              !step.path("prepend_scheme").asText("always").equals("never")
                  && step.path("add_prefix_space").asBoolean(true);
        }
        case "Replace" ->
            replacements.add(
                new String[] {
                  step.path("pattern").path("String").asText(), step.path("content").asText()
                });
        case "ByteFallback" -> byteFallback = true;
        case "Fuse" -> fused = true;
        default -> stripped += step.path("start").asInt();
      }
    }

    private static TextException refusal(String what) {
      return new TextException(
          "the bytes of this tokenizer's tokens cannot be told: its decoder is "
              + what
              + "; expected ByteLevel, Metaspace, or sentencepiece's Replace, ByteFallback, Fuse,"
              + " Strip");
    }

    byte[] bytes(String token) {
      if (byteLevel) {
        return unmapped(token);
      }
      if (metaspace != null) {
        return token.replace(metaspace, " ").getBytes(StandardCharsets.UTF_8);
      }
      String text = token;
      for (String[] replacement : replacements) {
        text = text.replace(replacement[0], replacement[1]);
      }
      if (byteFallback && text.length() == 6 && text.matches("<0x[0-9A-Fa-f]{2}>")) {
        return new byte[] {(byte) Integer.parseInt(text.substring(3, 5), 16)};
      }
      return text.getBytes(StandardCharsets.UTF_8);
    }

    byte[] first(String token, byte[] anywhere) {
      if (metaspace != null && dropsFirstBlanks) {
        return token.replace(metaspace, "").getBytes(StandardCharsets.UTF_8);
      }
      int from = 0;
      while (from < stripped && from < anywhere.length && anywhere[from] == ' ') {
        from++;
      }
      return from == 0 ? anywhere : Arrays.copyOfRange(anywhere, from, anywhere.length);
    }

    /** GPT-2's characters as the bytes they stand for; a token with any other is text as it is. */
    private static byte[] unmapped(String token) {
      ByteArrayOutputStream bytes = new ByteArrayOutputStream();
      for (int i = 0; i < token.length(); i++) {
        char c = token.charAt(i);
        int b = c < BYTE_OF.length ? BYTE_OF[c] : -1;
        if (b < 0) {
          return token.getBytes(StandardCharsets.UTF_8);
        }
        bytes.write(b);
      }
      return bytes.toByteArray();
    }
  }

  /** The byte that a character stands for: printable ones for themselves, the rest from 256 on. */
  private static final int[] BYTE_OF = byteOf();

  private static int[] byteOf() {
    int[] table = new int[512];
    Arrays.fill(table, -1);
    int next = 256;
    for (int b = 0; b < 256; b++) {
      boolean itself = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      table[itself ? b : next++] = b;
    }
    return table;
  }
}
