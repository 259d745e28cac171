package dev.wardrobe.bench;

import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Batch;
import dev.wardrobe.compute.Buffer;
import dev.wardrobe.compute.Draw;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.Lora;
import dev.wardrobe.compute.LoraMix;
import dev.wardrobe.compute.Step;
import dev.wardrobe.model.Decoder;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/**
 * Sequences side by side that take steps together, as the engine's do: forward pass, logits of the
 * rows that are wanted, greedy draw. Each has its own blocks of the cache and may have its own
 * adapter.
 */
final class Streams {
  private final Decoder decoder;
  private final Backend backend;
  private final List<@Nullable LoraMix> adapters = new ArrayList<>();
  private final int[][] tokens;
  private final int[][] blocks;

  private final List<Draw> draws = new ArrayList<>();
  private final List<Draw> drawn = new ArrayList<>();
  private final Batch batch = new Batch();
  private final int prompt;

  /** Tokens of each that the cache holds; the next step's first position. */
  private int computed;

  /** Tokens of each that are known: the prompt, and what was drawn. */
  private int length;

  /**
   * Sequences with random prompts.
   *
   * @param adapters one for each sequence; null is the base alone
   * @param prompt tokens of each prompt
   * @param capacity most tokens of each
   * @param firstBlock of the cache, from which on they use {@link #blocks} of them
   */
  Streams(
      Decoder decoder,
      Backend backend,
      List<? extends @Nullable Lora> adapters,
      int prompt,
      int capacity,
      int firstBlock,
      int vocabulary,
      long seed) {
    this.decoder = decoder;
    this.backend = backend;
    for (@Nullable Lora adapter : adapters) {
      this.adapters.add(adapter == null ? null : LoraMix.of(adapter));
    }
    this.prompt = prompt;
    this.length = prompt;
    tokens = new int[adapters.size()][capacity + 1];
    blocks = new int[adapters.size()][];
    SplittableRandom random = new SplittableRandom(seed);
    int each = blocks(1, capacity);
    for (int i = 0; i < tokens.length; i++) {
      for (int j = 0; j < prompt; j++) {
        tokens[i][j] = random.nextInt(vocabulary);
      }
      int first = firstBlock + i * each;
      blocks[i] = IntStream.range(first, first + each).toArray();
      draws.add(new Draw(0, -1, 0, 0, 1, 0, 1, 0, 0, tokens[i], prompt, prompt, seed, prompt, 0));
    }
  }

  /** Blocks of the cache that {@code streams} of {@code capacity} tokens take. */
  static int blocks(int streams, int capacity) {
    return streams * Math.ceilDiv(capacity, KvShape.BLOCK_TOKENS);
  }

  /** Goes back to where {@code depth} tokens of each were computed, and one more was known. */
  void rewind(int depth) {
    computed = depth;
    length = depth + 1;
  }

  /** Goes back to before the first token. */
  void restart() {
    computed = 0;
    length = prompt;
  }

  /** Computes the prompts, {@code chunk} tokens a step, and draws each one's first token. */
  void prefill(int chunk) {
    int share = Math.max(1, chunk / tokens.length);
    while (computed < prompt) {
      step(Math.min(share, prompt - computed));
    }
  }

  /** One step of the next token of each. */
  void decode() {
    step(1);
  }

  /** Takes {@code share} tokens of each through the model; draws if those were the last known. */
  private void step(int share) {
    boolean last = computed + share == length;
    batch.clear();
    for (int i = 0; i < tokens.length; i++) {
      batch.add(tokens[i], computed, share, blocks[i], adapters.get(i));
      if (last) {
        batch.want(batch.size() - 1);
      }
    }
    try (Step step = backend.step(batch)) {
      decoder.forward(step);
      for (int from = 0; from < batch.outputs(); from += decoder.maxLogitRows()) {
        draw(step, from, Math.min(from + decoder.maxLogitRows(), batch.outputs()));
      }
    }
    computed += share;
    if (last) {
      length++;
    }
  }

  private void draw(Step step, int from, int to) {
    Buffer logits = decoder.logits(step, from, to);
    drawn.clear();
    for (int i = from; i < to; i++) {
      draws.get(i).next(i - from, length);
      drawn.add(draws.get(i));
    }
    backend.sample(step, logits, drawn);
    for (int i = from; i < to; i++) {
      tokens[i][length] = draws.get(i).outcome().token();
    }
  }
}
