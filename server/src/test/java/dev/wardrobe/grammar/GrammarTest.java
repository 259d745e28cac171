package dev.wardrobe.grammar;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.text.TokenBytes;
import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Masks against brute force, and walks that must never be stuck. */
final class GrammarTest {
  private static final String[] SAMPLES = {
    "{'name': 'Zoë', 'tags': ['a', 'b'], 'n': -12.5e3, 'ok': true, 'x': null}",
    "{\n  'a': {\n    'b': [1, 2, 30]\n  }\n}",
    "the quick brown fox, jumps over 12 lazy dogs; \\u00e9 \\n 'quoted' 日本語 😀",
    "aaaaabbbbbabababcccc0123456789",
  };

  /** Whether each token's bytes keep the text a beginning, found out byte by byte. */
  private static void compareWithBruteForce(
      Grammar grammar, TokenTable tokens, Random random, String what) {
    for (int round = 0; round < 6; round++) {
      Cursor cursor = grammar.cursor(new int[0]);
      ByteArrayOutputStream text = new ByteArrayOutputStream();
      for (int step = 0; step < 25 && !cursor.isLast(); step++) {
        long[] mask = Vocabularies.mask(cursor);
        for (int token = 0; token < tokens.vocabulary; token++) {
          byte[] whole = concat(text.toByteArray(), tokens.bytes(token));
          boolean viable = viable(grammar, whole);
          boolean allowed = (mask[token >> 6] >> token & 1) != 0;
          assertThat(allowed)
              .as(
                  "%s: token '%s' after '%s'",
                  what,
                  new String(tokens.bytes(token), StandardCharsets.UTF_8),
                  text.toString(StandardCharsets.UTF_8))
              .isEqualTo(viable);
        }
        int count = 0;
        for (long word : mask) {
          count += Long.bitCount(word);
        }
        int token = Vocabularies.nth(mask, random.nextInt(count));
        cursor.accept(token);
        text.writeBytes(tokens.bytes(token));
      }
    }
  }

  private static boolean viable(Grammar grammar, byte[] text) {
    return grammar.after(grammar.first(), text) != Frames.DEAD;
  }

  private static byte[] concat(byte[] one, byte[] other) {
    byte[] both = java.util.Arrays.copyOf(one, one.length + other.length);
    System.arraycopy(other, 0, both, one.length, other.length);
    return both;
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "(the|a) (quick|slow)( brown)? fox",
        "[a-c]{3,40}!",
        "\\x22[^\\x22\\\\]*\\x22",
        "[\\p{L} ]{1,12}[.!?]",
        "(é|日本|😀)+x",
        "-?\\d{1,3}(\\.\\d+)?",
        "(a|b)*abb",
        ".{0,3}",
        "[^ab]+"
      })
  void regexMask_isBruteForce(String regex) throws Exception {
    for (int seed = 0; seed < 3; seed++) {
      Random random = new Random(seed);
      TokenTable tokens = Vocabularies.cut(random, 150, SAMPLES);
      Grammar grammar = Vocabularies.regex(regex, tokens);
      compareWithBruteForce(grammar, tokens, random, "seed " + seed + ", " + regex);
    }
  }

  /** What Java's matcher calls a beginning: it matches, or might if more came. */
  @ParameterizedTest
  @ValueSource(
      strings = {
        "(the|a) (quick|slow)( brown)? fox",
        "[a-c]{3,40}!",
        "(\\w+ ){2}dogs?",
        "-?\\d{1,3}(\\.\\d+)?",
        "(a|b)*abb",
        "(ab?c?)+",
      })
  void viablePrefix_isJavas(String regex) throws Exception {
    TokenTable tokens = Vocabularies.of();
    Grammar grammar = Vocabularies.regex(regex, tokens);
    Pattern java = Pattern.compile(regex);
    Random random = new Random(5);
    String alphabet = "the a quick slow brown fox dogs abc!012.-";
    for (int i = 0; i < 3_000; i++) {
      StringBuilder text = new StringBuilder();
      Vocabularies.Walk walk = Vocabularies.walk(grammar, tokens, random, random.nextInt(12));
      text.append(walk.text());
      if (random.nextBoolean()) {
        text.append(alphabet.charAt(random.nextInt(alphabet.length())));
      }
      Matcher matcher = java.matcher(text);
      boolean whole = matcher.matches();
      boolean viable = whole || matcher.hitEnd();
      Frames state =
          grammar.after(grammar.first(), text.toString().getBytes(StandardCharsets.UTF_8));
      assertThat(state != Frames.DEAD).as("%s: '%s'", regex, text).isEqualTo(viable);
      assertThat(state.bottom).as("%s: '%s'", regex, text).isEqualTo(whole);
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "{'type':'object','properties':{'name':{'type':'string','maxLength':5},'tags':{'type':'array','items':{'enum':['a','b','ab']}},'n':{'type':'number'}},'required':['name']}",
        "{'type':'string','minLength':2,'maxLength':60}",
        "{'type':'string','minLength':30,'maxLength':31}",
        "{'type':'string','pattern':'^[a-z ]+,'}",
        "{'$ref':'#/$defs/t','$defs':{'t':{'anyOf':[{'type':'integer'},{'type':'array','items':{'$ref':'#/$defs/t'},'maxItems':30},{'type':'array','items':{'$ref':'#/$defs/t'},'minItems':20}]}}}",
        "{'type':'array','items':{'type':'string','minLength':20},'minItems':18,'maxItems':40}",
        "true"
      })
  void schemaMask_isBruteForce(String schema) throws Exception {
    for (int seed = 0; seed < 3; seed++) {
      Random random = new Random(seed);
      TokenTable tokens = Vocabularies.cut(random, 150, SAMPLES);
      Grammar grammar = Vocabularies.schema(schema, tokens);
      compareWithBruteForce(grammar, tokens, random, "seed " + seed + ", " + schema);
    }
  }

  @Test
  void countersFarFromTheirBounds_shareMasks() throws Exception {
    TokenTable tokens = Vocabularies.of("ab", "abc");
    Grammar grammar =
        Vocabularies.schema("{'type':'string','minLength':1000,'maxLength':9000}", tokens);
    Cursor cursor = grammar.cursor(new int[0]);
    Vocabularies.mask(cursor);
    cursor.accept('"');
    long[] first = Vocabularies.mask(cursor);
    for (int i = 0; i < 500; i++) {
      cursor.accept('x');
      assertThat(Vocabularies.mask(cursor)).isSameAs(first);
    }
  }

  @Test
  void longNesting_endsWithinTheLimit() throws Exception {
    TokenTable tokens = Vocabularies.of("[[", "[[[[");
    Grammar grammar = Vocabularies.compile(new Constraint.Json(false, true), tokens);
    Cursor cursor = grammar.cursor(new int[0]);
    int depth = 0;
    while ((Vocabularies.mask(cursor)['[' >> 6] >> '[' & 1) != 0) {
      cursor.accept('[');
      depth++;
    }
    assertThat(depth).isBetween(Machine.DEEPEST - 2, Machine.DEEPEST + 1);
    for (int i = 0; i < depth; i++) {
      assertThat(cursor.isLast()).isFalse();
      Vocabularies.mask(cursor);
      cursor.accept(']');
    }
    assertThat(cursor.isLast()).isTrue();
  }

  @Test
  void ambiguousRecursion_staysSmall() throws Exception {
    // Each level may be one of two kinds of list: 2^200 ways to read 200 brackets.
    TokenTable tokens = Vocabularies.of("[[[[[[[[");
    String schema =
        "{'$ref':'#/$defs/t','$defs':{'t':{'anyOf':[{'type':'integer'},{'type':'array','items':{'$ref':'#/$defs/t'},'maxItems':3},{'type':'array','items':{'$ref':'#/$defs/t'},'minItems':2}]}}}";
    Grammar grammar = Vocabularies.schema(schema, tokens);
    Cursor cursor = grammar.cursor(new int[0]);
    for (int i = 0; i < 100; i++) {
      Vocabularies.mask(cursor);
      cursor.accept('[');
    }
    Vocabularies.mask(cursor);
    cursor.accept('1');
    for (int i = 0; i < 100; i++) {
      Vocabularies.mask(cursor);
      cursor.accept(']');
    }
    assertThat(cursor.isLast()).isTrue();
  }

  @Test
  void forgetting_changesNothing() throws Exception {
    TokenTable tokens = Vocabularies.cut(new Random(1), 200, SAMPLES);
    Constraint constraint = new Constraint.Json(false, false);
    Grammar roomy =
        Constraint.compile(constraint, tokens, Long.MAX_VALUE, Vocabularies.LANES, new Budget());
    Grammar tight =
        Constraint.compile(constraint, tokens, 20_000, Vocabularies.LANES, new Budget());
    for (int seed = 0; seed < 30; seed++) {
      Vocabularies.Walk one = Vocabularies.walk(roomy, tokens, new Random(seed), 60);
      Vocabularies.Walk other = Vocabularies.walk(tight, tokens, new Random(seed), 60);
      assertThat(other.text()).as("seed %d", seed).isEqualTo(one.text());
    }
    assertThat(tight.bytes()).isLessThan(roomy.bytes());
  }

  @Test
  void ends_areAllowedWhereTheTextIsWhole() throws Exception {
    TokenTable tokens = Vocabularies.of("ab", "</s>");
    int end = 257;
    Cursor cursor = Vocabularies.regex("ab?|</s>", tokens).cursor(new int[] {end});
    // It has a text that the expression allows, but stands for the end.
    assertThat(allows(cursor, end)).isFalse();
    assertThat(allows(cursor, 'a')).isTrue();
    assertThat(allows(cursor, 256)).isTrue();
    cursor.accept('a');
    assertThat(allows(cursor, end)).isTrue();
    assertThat(allows(cursor, 'b')).isTrue();
    assertThat(cursor.isLast()).isFalse();
    cursor.accept('b');
    assertThat(cursor.isWhole()).isTrue();
    assertThat(cursor.isLast()).isTrue();
  }

  @Test
  void accept_tokenThatMayNotCome_isRefused() throws Exception {
    Cursor cursor = Vocabularies.regex("ab", Vocabularies.of()).cursor(new int[0]);
    assertThatThrownBy(() -> cursor.accept('b')).hasMessageContaining("may not come next");
    cursor.accept('a');
  }

  @Test
  void vocabularyWithoutAByte_leavesOutWhatNeedsIt() throws Exception {
    // No token is "x" alone, so after "ab" nothing could follow for "abx": not even begun.
    List<byte[]> tokens = List.of(bytes("a"), bytes("b"), bytes("c"), bytes("xy"), bytes("ab"));
    TokenTable table = Vocabularies.table(tokens);
    Grammar grammar = Vocabularies.regex("abx|ac", table);
    Cursor cursor = grammar.cursor(new int[0]);
    assertThat(Vocabularies.mask(cursor)).containsExactly(0b00001);
    cursor.accept(0);
    assertThat(Vocabularies.mask(cursor)).containsExactly(0b00100);
    assertThatThrownBy(() -> Vocabularies.regex("ax", table))
        .isInstanceOf(GrammarException.class)
        .hasMessageContaining("no text is allowed");
  }

  /** What is kept is bounded by bytes, those of the constraints themselves included. */
  @Test
  void refusedConstraints_takeBoundedMemory() throws Exception {
    TokenBytes bytes = TokenBytes.of(new byte[][] {{'a'}});
    try (Grammars grammars = new Grammars(() -> bytes, 1, 4 << 20, Thread::new)) {
      for (int i = 0; i < 40; i++) {
        Constraint tooLong = new Constraint.Pattern(i + "a".repeat(250_000));
        assertThat(grammars.get(tooLong).handle((grammar, failure) -> failure).get()).isNotNull();
      }
      assertThat(grammars.size()).isBetween(1, 8);
    }
  }

  /** What takes long waits for its like alone, and only so many of it do. */
  @Test
  void slowConstraints_delayNoOthers() throws Exception {
    TokenBytes bytes = TokenBytes.of(new byte[][] {{'a'}, {'b'}});
    CountDownLatch gate = new CountDownLatch(1);
    ThreadFactory held =
        work ->
            new Thread(
                () -> {
                  try {
                    gate.await();
                  } catch (InterruptedException e) {
                    return;
                  }
                  work.run();
                });
    try (Grammars grammars = new Grammars(() -> bytes, 2, 4 << 20, held)) {
      List<CompletableFuture<Grammar>> slow = new ArrayList<>();
      for (int i = 0; i < Grammars.MOST_SLOW; i++) {
        slow.add(grammars.get(slow(i)));
      }
      assertThat(grammars.get(new Constraint.Pattern("a|b")).get(60, TimeUnit.SECONDS)).isNotNull();
      assertThat(slow).noneMatch(CompletableFuture::isDone);

      Constraint tooMany = slow(Grammars.MOST_SLOW);
      assertThatThrownBy(() -> grammars.get(tooMany).get(60, TimeUnit.SECONDS))
          .cause()
          .isInstanceOf(GrammarException.class)
          .hasMessageContaining("try again later")
          .extracting(e -> ((GrammarException) e).retryAfter())
          .isNotNull();

      gate.countDown();
      for (CompletableFuture<Grammar> each : slow) {
        assertThat(each.get(60, TimeUnit.SECONDS)).isNotNull();
      }
      assertThat(grammars.get(tooMany).get(60, TimeUnit.SECONDS)).isNotNull();
    }
  }

  /** One that takes more than a little work, and less than too much. */
  private static Constraint slow(int i) {
    return new Constraint.Pattern("b{%d}(a|b)*a(a|b){14}".formatted(i));
  }

  @Test
  void manyAlternatives_areLeftToOtherThreads() throws Exception {
    StringBuilder schema = new StringBuilder("{'anyOf':[");
    for (int i = 0; i < 300; i++) {
      schema.append("{'type':'string','maxLength':%d},".formatted(1000 + i));
    }
    schema.setLength(schema.length() - 1);
    TokenTable tokens = Vocabularies.of("ab", "abc");
    Grammar grammar = Vocabularies.schema(schema.append("]}").toString(), tokens);
    Frames inside = grammar.after(grammar.first(), bytes("\""));
    long before = grammar.bytes();

    assertThat(grammar.quickMask(inside, false)).isNull();
    // No step was taken.
    assertThat(grammar.bytes()).isEqualTo(before);
    grammar.makeMask(inside, false, () -> {});
    assertThat(grammar.knownMask(inside, false)).isNotNull();
  }

  @Test
  void onlyTheEmptyText_isRefused() {
    assertThatThrownBy(() -> Vocabularies.regex("", Vocabularies.of()))
        .hasMessageContaining("no text but the empty one");
  }

  @Test
  void choice_givesOneOfThem() throws Exception {
    TokenTable tokens = Vocabularies.cut(new Random(3), 100, SAMPLES);
    List<String> texts = List.of("the fox", "the quick brown fox", "日本語", "the");
    Grammar grammar = Vocabularies.compile(new Constraint.Choice(texts), tokens);
    for (int seed = 0; seed < 100; seed++) {
      assertThat(texts).contains(Vocabularies.walk(grammar, tokens, new Random(seed), -1).text());
    }
  }

  private static boolean allows(Cursor cursor, int token) {
    return (Vocabularies.mask(cursor)[token >> 6] >> token & 1) != 0;
  }

  private static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }
}
