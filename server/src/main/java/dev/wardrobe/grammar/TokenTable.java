package dev.wardrobe.grammar;

import dev.wardrobe.text.TokenBytes;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A vocabulary as masks are made from it. Tokens of whole characters that need no escape in a JSON
 * string are kept apart: where any such character may come, they are allowed by their number of
 * characters, without a walk.
 */
final class TokenTable {
  /** Bytes of the longest token that is used. */
  static final int LONGEST = 4096;

  /** Up to here, {@link #upTo} has a set for each number of characters. */
  private static final int SHORT = 16;

  /** Tokens of the model, some of which the tokenizer may not have. */
  final int vocabulary;

  final Trie plain;
  final Trie rest;

  /** Characters of the longest plain token. */
  final int mostCharacters;

  /** Bytes of the longest token. */
  final int longest;

  /** Bytes that are tokens by themselves. */
  final BitSet alphabet = new BitSet(256);

  /** Tokens that have other bytes at the start of a text. */
  final int[] changing;

  private final TokenBytes source;
  private final byte[] @Nullable [] bytes;

  /** By number of characters, to {@link #SHORT}; the last one is of all plain tokens. */
  private final long[][] upTo = new long[SHORT + 2][];

  /** Plain tokens of more than {@link #SHORT} characters, and how many they have. */
  private final int[] longTokens;

  private final int[] longCharacters;

  TokenTable(TokenBytes source, int vocabulary) {
    this.source = source;
    this.vocabulary = vocabulary;
    int size = Math.min(vocabulary, source.size());
    bytes = new byte[size][];
    byte[][] texts = new byte[size][];
    List<Integer> plainTokens = new ArrayList<>();
    List<Integer> restTokens = new ArrayList<>();
    List<Integer> changingTokens = new ArrayList<>();
    int[] characters = new int[size];
    int most = 0;
    int longestToken = 1;
    for (int token = 0; token < size; token++) {
      byte[] text = source.of(token);
      if (!Arrays.equals(text, source.first(token))) {
        changingTokens.add(token);
      }
      if (text == null || text.length > LONGEST) {
        continue;
      }
      bytes[token] = text;
      texts[token] = text;
      longestToken = Math.max(longestToken, text.length);
      if (text.length == 1) {
        alphabet.set(text[0] & 0xff);
      }
      characters[token] = plainCharacters(text);
      most = Math.max(most, characters[token]);
      (characters[token] > 0 ? plainTokens : restTokens).add(token);
    }
    plain = new Trie(plainTokens, texts);
    rest = new Trie(restTokens, texts);
    mostCharacters = most;
    longest = longestToken;
    changing = changingTokens.stream().mapToInt(Integer::intValue).toArray();
    for (int n = 0; n < upTo.length; n++) {
      upTo[n] = new long[words()];
    }
    for (int token : plainTokens) {
      for (int n = characters[token]; n < upTo.length - 1; n++) {
        set(upTo[n], token);
      }
      set(upTo[upTo.length - 1], token);
    }
    longTokens = plainTokens.stream().mapToInt(t -> t).filter(t -> characters[t] > SHORT).toArray();
    longCharacters = Arrays.stream(longTokens).map(t -> characters[t]).toArray();
  }

  /** Longs of a mask. */
  int words() {
    return (vocabulary + 63) / 64;
  }

  static void set(long[] mask, int token) {
    mask[token >> 6] |= 1L << token;
  }

  static void clear(long[] mask, int token) {
    mask[token >> 6] &= ~(1L << token);
  }

  /** A token's bytes, or null if it is no text. */
  byte @Nullable [] bytes(int token) {
    return token < bytes.length ? bytes[token] : null;
  }

  /** A token's bytes at the start of a text; null if it cannot stand there. */
  byte @Nullable [] first(int token) {
    byte[] first = token < source.size() ? source.first(token) : null;
    return first == null || first.length > LONGEST ? null : first;
  }

  /** Adds the plain tokens of up to {@code most} characters. */
  void addPlain(int most, long[] mask) {
    int set = most >= mostCharacters ? upTo.length - 1 : Math.min(most, SHORT);
    for (int i = 0; i < mask.length; i++) {
      mask[i] |= upTo[set][i];
    }
    if (most > SHORT && most < mostCharacters) {
      for (int i = 0; i < longTokens.length; i++) {
        if (longCharacters[i] <= most) {
          set(mask, longTokens[i]);
        }
      }
    }
  }

  /** How many characters a text has, or 0 if one is cut, or needs an escape in a JSON string. */
  private static int plainCharacters(byte[] text) {
    int count = 0;
    for (int i = 0; i < text.length; count++) {
      int b = text[i] & 0xff;
      if (b < 0x20 || b == '"' || b == '\\') {
        return 0;
      }
      int length = b < 0x80 ? 1 : b < 0xc2 ? 0 : b < 0xe0 ? 2 : b < 0xf0 ? 3 : b < 0xf5 ? 4 : 0;
      if (length == 0 || i + length > text.length) {
        return 0;
      }
      int c = length == 1 ? b : b & (0x7f >> length);
      for (int j = 1; j < length; j++) {
        int next = text[i + j] & 0xff;
        if ((next & 0xc0) != 0x80) {
          return 0;
        }
        c = c << 6 | (next & 0x3f);
      }
      boolean shortest = length < 3 || c >= (length == 3 ? 0x800 : 0x10000);
      if (!shortest || c > Character.MAX_CODE_POINT || (c >= 0xd800 && c <= 0xdfff)) {
        return 0;
      }
      i += length;
    }
    return count;
  }
}
