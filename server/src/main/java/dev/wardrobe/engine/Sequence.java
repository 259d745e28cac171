package dev.wardrobe.engine;

import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.Lora;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * One task's mutable state. Belongs to the engine's thread, but for {@link #cancelled}.
 *
 * <p>Its tokens are the prompt, then what was generated. Keys and values of the first {@link
 * #computed} are in the cache; a sequence with one token left to compute decodes, one with more
 * prefills.
 */
final class Sequence {
  private static final int[] NO_BLOCKS = {};

  final GenerationTask task;
  final TokenListener listener;
  final @Nullable Lora lora;
  final int promptLength;

  /** Submission order; the oldest goes first, and is the last to lose its pages. */
  final long arrival;

  final long submitted;
  volatile boolean cancelled;

  int[] tokens;
  int length;
  int computed;

  /** Prompt tokens whose score was delivered; the first one has none. */
  int scored = 1;

  int[] blocks = NO_BLOCKS;
  int blockCount;

  /** Number of its adapter among those in use; the base is 0. */
  int adapter;

  /** Whether its listener takes tokens, as asked for the coming step. */
  boolean ready;

  /** Tokens that it computes in the coming step. */
  int share;

  boolean admitted;
  boolean ended;
  long admittedAt;
  long firstTokenAt;
  int steps;
  int maxStepSequences;
  int maxStepAdapters;
  int preemptions;

  Sequence(GenerationTask task, TokenListener listener, long arrival, long now) {
    this.task = task;
    this.listener = listener;
    this.arrival = arrival;
    this.submitted = now;
    this.lora = task.lease() == null ? null : task.lease().lora();
    this.promptLength = task.prompt().length;
    this.tokens = Arrays.copyOf(task.prompt(), promptLength + Math.min(task.maxTokens(), 64));
    this.length = promptLength;
  }

  int generated() {
    return length - promptLength;
  }

  /** Tokens left to compute. */
  int pending() {
    return length - computed;
  }

  void append(int token) {
    if (length == tokens.length) {
      tokens = Arrays.copyOf(tokens, 2 * length);
    }
    tokens[length++] = token;
  }

  /** Makes sure of blocks for the first {@code positions}; false when the pool is empty. */
  boolean reserve(PagePool pool, int positions) {
    int needed = blocks(positions);
    if (needed > blocks.length) {
      // A new array: the step before may still read the old one.
      blocks = Arrays.copyOf(blocks, Math.max(needed, 2 * blocks.length));
    }
    while (blockCount < needed) {
      int block = pool.take();
      if (block == PagePool.NONE) {
        return false;
      }
      blocks[blockCount++] = block;
    }
    return true;
  }

  void release(PagePool pool) {
    pool.give(blocks, blockCount);
    blocks = NO_BLOCKS;
    blockCount = 0;
    computed = 0;
  }

  boolean expired(long now) {
    return task.deadline() != GenerationTask.NO_DEADLINE && now - task.deadline() >= 0;
  }

  static int blocks(int positions) {
    return Math.ceilDiv(positions, KvShape.BLOCK_TOKENS);
  }
}
