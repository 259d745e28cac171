package dev.wardrobe.text;

import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.safetensors.ReferenceFolder;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The stream's window against the rule itself, which decodes everything at each token. */
class TokenStreamTest {

  private static final long SEED = 20260105;

  /** The rule without a window, up to the first text that a later token changed. */
  private static List<String> rule(Tokenizer tokenizer, int[] ids) {
    List<String> increments = new ArrayList<>();
    String given = "";
    for (int i = 1; i <= ids.length; i++) {
      String text = tokenizer.decode(Arrays.copyOf(ids, i), true);
      if (text.endsWith("\ufffd")) {
        increments.add("");
        continue;
      }
      if (!text.startsWith(given)) {
        return increments;
      }
      increments.add(text.substring(given.length()));
      given = text;
    }
    return increments;
  }

  private static void check(Tokenizer tokenizer, int[] ids) {
    List<String> expected = rule(tokenizer, ids);
    TokenStream stream = tokenizer.stream();
    List<String> actual = new ArrayList<>();
    for (int id : ids) {
      actual.add(stream.next(id));
    }
    assertThat(actual.subList(0, expected.size()))
        .as("seed %d, ids %s", SEED, Arrays.toString(ids))
        .isEqualTo(expected);
    String whole = tokenizer.decode(ids, true);
    String given = String.join("", actual);
    if (whole.startsWith(given)) {
      assertThat(given + stream.flush()).isEqualTo(whole);
      assertThat(stream.flush()).isEmpty();
    }
  }

  private static void checkRandom(Tokenizer tokenizer, int rounds) {
    Random random = new Random(SEED);
    int size = tokenizer.vocabularySize();
    for (int round = 0; round < rounds; round++) {
      int[] ids = new int[random.nextInt(1, 100)];
      // Low ids are mostly bytes and special tokens, so that characters come in parts.
      int bound = round % 3 == 0 ? size : Math.min(size, 300);
      for (int i = 0; i < ids.length; i++) {
        boolean repeat = i > 0 && random.nextInt(8) == 0;
        ids[i] = repeat ? ids[i - 1] : random.nextInt(bound);
      }
      check(tokenizer, ids);
    }
    for (int round = 0; round < rounds; round++) {
      StringBuilder text = new StringBuilder();
      while (text.length() < 120) {
        switch (random.nextInt(5)) {
          case 0 -> text.append(" ".repeat(random.nextInt(1, 5)));
          case 1 -> text.append("\n".repeat(random.nextInt(1, 30)));
          case 2 -> text.appendCodePoint(0x1f300 + random.nextInt(0x300));
          case 3 -> text.appendCodePoint(0x1780 + random.nextInt(0x60));
          default -> text.append("the answer is ").append(random.nextInt(10_000));
        }
      }
      check(tokenizer, tokenizer.encode(text.toString(), round % 2 == 0));
    }
  }

  @Test
  void next_equalsRule() throws Exception {
    try (Tokenizer tokenizer = Tokenizer.load(Golden.resource("tokenizers/own"))) {
      checkRandom(tokenizer, 60);
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"llama2", "llama3_1", "qwen3"})
  void next_equalsRule(String name, @TempDir Path folder) throws Exception {
    Golden.unpack(
        ReferenceFolder.require("golden/tokenizers/real/" + name + ".tokenizer.json.gz"),
        folder.resolve("tokenizer.json"));
    try (Tokenizer tokenizer = Tokenizer.load(folder)) {
      checkRandom(tokenizer, 25);
    }
  }

  @Test
  void next_costDoesNotGrow() throws Exception {
    try (Tokenizer tokenizer = Tokenizer.load(Golden.resource("tokenizers/own"))) {
      AtomicLong decoded = new AtomicLong();
      TokenStream stream =
          new TokenStream(
              ids -> {
                decoded.addAndGet(ids.length);
                return tokenizer.decode(ids, true);
              },
              id -> false,
              true);
      int[] ids =
          tokenizer.encode("All of this is one long text, 🙂 and more. ".repeat(200), false);
      StringBuilder text = new StringBuilder();
      for (int id : ids) {
        text.append(stream.next(id));
      }
      assertThat(text + stream.flush()).isEqualTo(tokenizer.decode(ids, true));
      assertThat(decoded.get()).isLessThan(16L * ids.length);
    }
  }

  @Test
  void next_damagedForever_givesUpHoldingBack() {
    // Ids are bytes of no text: the decoder has a replacement character for each.
    TokenStream stream = new TokenStream(ids -> "\ufffd".repeat(ids.length), id -> false, true);
    StringBuilder text = new StringBuilder();
    for (int i = 0; i < 5000; i++) {
      text.append(stream.next(i));
    }
    assertThat(text).hasSizeGreaterThan(3000);
    assertThat(text + stream.flush()).isEqualTo("\ufffd".repeat(5000));
  }

  @Test
  void next_textChanged_goesOnBehindIt() {
    // After the third id, the first two turn out to be damaged.
    TokenStream stream =
        new TokenStream(
            ids -> ids.length < 3 ? "ab".substring(0, ids.length) : "a?" + "c".repeat(ids.length),
            id -> false,
            false);
    assertThat(stream.next(0)).isEqualTo("a");
    assertThat(stream.next(0)).isEqualTo("b");
    for (int i = 0; i < TokenStream.PATIENCE; i++) {
      assertThat(stream.next(0)).isEmpty();
    }
    int ids = TokenStream.PATIENCE + 3;
    assertThat(stream.next(0)).isEqualTo("?" + "c".repeat(ids));
    assertThat(stream.next(0)).isEqualTo("c");
  }

  @Test
  void flush_givesWhatWasHeld() throws Exception {
    try (Tokenizer tokenizer = Tokenizer.load(Golden.resource("tokenizers/own"))) {
      int[] ids = tokenizer.encode("ក", false);
      assertThat(ids).hasSizeGreaterThan(1);
      TokenStream stream = tokenizer.stream();
      assertThat(stream.next(ids[0])).isEmpty();
      assertThat(stream.flush()).isEqualTo("\ufffd");
    }
  }

  @Test
  void next_specialTokensAreSilent() throws Exception {
    try (Tokenizer tokenizer = Tokenizer.load(Golden.resource("tokenizers/own"))) {
      TokenStream stream = tokenizer.stream();
      int[] ids = tokenizer.encode("ក", false);
      StringBuilder text = new StringBuilder();
      for (int id : ids) {
        text.append(stream.next(4)).append(stream.next(id));
      }
      assertThat(text).hasToString("ក");
      assertThat(stream.next(-1)).isEmpty();
      assertThat(stream.next(Integer.MAX_VALUE)).isEmpty();
      assertThat(stream.flush()).isEmpty();
    }
  }
}
