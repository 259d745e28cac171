package dev.wardrobe.grammar;

import dev.wardrobe.text.TokenBytes;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.TreeSet;

/** Vocabularies for tests: every byte, and tokens of several. */
final class Vocabularies {
  /** Everything is done at once. */
  static final Lanes LANES = new Lanes(Runnable::run, Runnable::run);

  private Vocabularies() {}

  /** All 256 bytes, then these texts. */
  static TokenTable of(String... texts) {
    List<byte[]> tokens = new ArrayList<>();
    for (int b = 0; b < 256; b++) {
      tokens.add(new byte[] {(byte) b});
    }
    for (String text : texts) {
      tokens.add(text.getBytes(StandardCharsets.UTF_8));
    }
    return table(tokens);
  }

  static TokenTable table(List<byte[]> tokens) {
    return new TokenTable(TokenBytes.of(tokens.toArray(new byte[0][])), tokens.size());
  }

  /** All bytes, and {@code count} pieces of {@code samples}, cut anywhere, characters included. */
  static TokenTable cut(Random random, int count, String... samples) {
    List<byte[]> tokens = new ArrayList<>();
    for (int b = 0; b < 256; b++) {
      tokens.add(new byte[] {(byte) b});
    }
    TreeSet<byte[]> pieces = new TreeSet<>(java.util.Arrays::compareUnsigned);
    for (int i = 0; i < 20 * count && pieces.size() < count; i++) {
      String quoted = samples[random.nextInt(samples.length)];
      byte[] sample = unquoted(quoted).getBytes(StandardCharsets.UTF_8);
      int from = random.nextInt(sample.length);
      int length = 2 + random.nextInt(random.nextInt(10) == 0 ? 40 : 6);
      pieces.add(
          java.util.Arrays.copyOfRange(sample, from, Math.min(sample.length, from + length)));
    }
    tokens.addAll(pieces);
    return table(tokens);
  }

  static Grammar compile(Constraint constraint, TokenTable tokens) throws GrammarException {
    return Constraint.compile(constraint, tokens, 64 << 20, LANES, new Budget());
  }

  static Grammar regex(String regex, TokenTable tokens) throws GrammarException {
    return compile(new Constraint.Pattern(regex), tokens);
  }

  static Grammar schema(String schema, TokenTable tokens) throws GrammarException {
    return compile(new Constraint.Schema(unquoted(schema), false, false), tokens);
  }

  /** JSON that is written with single quotes. */
  static String unquoted(String json) {
    return json.replace('\'', '"');
  }

  /** The mask of a cursor that never ends by a token. */
  static long[] mask(Cursor cursor) {
    if (!cursor.ready(() -> {}) && !cursor.ready(() -> {})) {
      throw new AssertionError("no mask");
    }
    if (cursor.failure() != null) {
      throw new AssertionError(cursor.failure());
    }
    return cursor.mask();
  }

  /** A walk by tokens chosen at random; whole if it ended by itself, or where it might. */
  static Walk walk(Grammar grammar, TokenTable tokens, Random random, int most) {
    Cursor cursor = grammar.cursor(new int[0]);
    java.io.ByteArrayOutputStream text = new java.io.ByteArrayOutputStream();
    for (int i = 0; i < most || most < 0; i++) {
      if (cursor.isLast() || (cursor.isWhole() && random.nextInt(4) == 0)) {
        return new Walk(text.toByteArray(), true);
      }
      long[] mask = mask(cursor);
      int count = 0;
      for (long word : mask) {
        count += Long.bitCount(word);
      }
      if (count == 0) {
        throw new AssertionError(
            "a dead end after " + new String(text.toByteArray(), StandardCharsets.UTF_8));
      }
      int token = nth(mask, random.nextInt(count));
      cursor.accept(token);
      byte[] bytes = tokens.bytes(token);
      text.write(bytes, 0, bytes.length);
    }
    return new Walk(text.toByteArray(), false);
  }

  record Walk(byte[] bytes, boolean whole) {
    String text() {
      return new String(bytes, StandardCharsets.UTF_8);
    }
  }

  static int nth(long[] mask, int n) {
    int left = n;
    for (int word = 0; word < mask.length; word++) {
      int bits = Long.bitCount(mask[word]);
      if (left < bits) {
        long rest = mask[word];
        for (; left > 0; left--) {
          rest &= rest - 1;
        }
        return word * 64 + Long.numberOfTrailingZeros(rest);
      }
      left -= bits;
    }
    throw new IndexOutOfBoundsException(n);
  }
}
