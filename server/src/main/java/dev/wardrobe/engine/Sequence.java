package dev.wardrobe.engine;

import dev.wardrobe.compute.Draw;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.LoraMix;
import dev.wardrobe.compute.TokenBias;
import dev.wardrobe.grammar.Cursor;
import dev.wardrobe.sampling.SamplingParams;
import java.util.Arrays;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * One task's mutable state. Belongs to the engine's thread, but for {@link #cancelled}.
 *
 * <p>Its tokens are the prompt, then what was generated. Keys and values of the first {@link
 * #computed} are in the cache; a sequence with one token left to compute decodes, one with more
 * prefills.
 */
final class Sequence extends Heap.Entry<Sequence> {
  private static final int[] NONE = {};

  final GenerationTask task;
  final TokenListener listener;
  final SamplingParams sampling;
  final Siblings siblings;

  /** With whom it may share blocks. */
  final Identity identity;

  /** Whose blocks it shares. */
  private final Identity sharing;

  final int promptLength;

  /** Submission order; the oldest goes first, and is the last to lose its pages. */
  final long arrival;

  final long submitted;
  volatile boolean cancelled;

  /** With room for all that it may generate once it is admitted: a step allocates nothing. */
  int[] tokens;

  int length;
  int computed;

  /** Prompt tokens whose score was delivered; the first one has none. */
  int scored = 1;

  int[] blocks = NONE;
  int blockCount;

  /** How many blocks, from the first on, are indexed. */
  private int indexed;

  /** Prompt tokens that it took from others instead of computing them. */
  int cached;

  /** What its prompt's hidden states come to, if its listener wants them. */
  final @Nullable Pooled pooled;

  private final int[] eos;
  private final int[] stopTokens;
  private @Nullable Draw draw;

  /** Where it is in the text that it must be, or null if it may be any. */
  final @Nullable Cursor cursor;

  /** Where it queues; set once it is in the queue. */
  FairQueue.@Nullable Line line;

  /** The step at which it first had to wait for others to leave memory, or -1. */
  long roomlessSince = -1;

  /** The step at which it first had to wait for others to leave the batch, or -1. */
  long placelessSince = -1;

  /** Whether its prompt was charged to its tenant. */
  boolean charged;

  /** What it adds to the base, or null; set once it is in the queue. */
  @Nullable EffectiveAdapter adapter;

  /** Whether {@link #adapter} was told that it is in use. */
  private boolean using;

  /** When its adapters had come into memory, as it joined the batch for the first time. */
  private long readyAt;

  /** Whether its listener takes tokens, as asked for the coming step. */
  boolean ready;

  /** What it cannot go on for, as {@link #look} found; it is to end. */
  @Nullable Throwable broken;

  /** Tokens that it computes in the coming step. */
  int share;

  boolean admitted;
  boolean ended;
  long admittedAt;
  long firstTokenAt;

  /** When its latest token was generated. */
  long tokenAt;

  int steps;
  int maxStepSequences;
  int maxStepAdapters;
  int preemptions;

  /**
   * @param choice its number among its siblings, from 0
   * @param sharing its blocks are shared where this is equal
   */
  Sequence(
      GenerationTask task,
      TokenListener listener,
      Siblings siblings,
      int choice,
      Identity identity,
      Identity sharing,
      long arrival,
      long now) {
    this.task = task;
    this.listener = listener;
    this.siblings = siblings;
    this.identity = identity;
    this.sharing = sharing;
    this.sampling = task.sampling().forChoice(choice);
    if (choice > 0) {
      // The first one's scores are all of theirs.
      scored = task.prompt().length;
    }
    this.arrival = arrival;
    this.submitted = now;
    this.promptLength = task.prompt().length;
    Pooling pooling = listener.pooling();
    this.pooled = pooling == null ? null : new Pooled(pooling, promptLength);
    this.tokens = task.prompt().clone();
    this.length = promptLength;
    this.eos = task.eos().stream().mapToInt(token -> token).toArray();
    this.stopTokens = task.stopTokens().stream().mapToInt(token -> token).toArray();
    this.cursor = task.grammar() == null ? null : task.grammar().cursor(eos, stopTokens);
  }

  /** Makes room for all tokens and blocks that it may ever have. */
  void makeRoom() {
    int most = promptLength + task.maxTokens();
    if (tokens.length < most) {
      tokens = Arrays.copyOf(tokens, most);
    }
    if (blocks.length == 0) {
      blocks = new int[blocks(most)];
    }
  }

  FairQueue.Line line() {
    return Objects.requireNonNull(line);
  }

  /** Tokens that it may have computed yet, its prompt's included. */
  int left() {
    return promptLength + task.maxTokens() - computed;
  }

  /** Sequences of equal numbers share an adapter; the base is 0. */
  int adapterNumber() {
    return adapter == null ? 0 : adapter.number;
  }

  @Nullable LoraMix mix() {
    return adapter == null ? null : adapter.mix();
  }

  /** Whether its adapters are in memory. */
  boolean adapted() {
    return adapter == null || adapter.ready();
  }

  /** Which part of the time until {@code begun} it waited for its adapters. */
  long swapInNanos(long begun) {
    if (adapter == null || (!admitted && !adapter.ready())) {
      return adapter == null ? 0 : begun - submitted;
    }
    return Math.clamp(readyAt - submitted, 0, begun - submitted);
  }

  /** It joins the batch: its adapters stay in memory from now on. */
  void hold() {
    if (adapter != null && !using) {
      using = true;
      if (!admitted) {
        readyAt = adapter.readyAt();
      }
      adapter.use();
    }
  }

  /** It leaves the batch. */
  private void loosen() {
    if (adapter != null && using) {
      using = false;
      adapter.leave();
    }
  }

  boolean endsAsEos(int token) {
    return contains(eos, token);
  }

  boolean endsAsStop(int token) {
    return contains(stopTokens, token);
  }

  private static boolean contains(int[] tokens, int token) {
    for (int each : tokens) {
      if (each == token) {
        return true;
      }
    }
    return false;
  }

  /** The draw of its next token, or the score of one that it has, from a row of logits. */
  Draw draw(int row, int position) {
    if (position < length) {
      return draw(row, position, tokens[position]);
    }
    if (draw == null) {
      draw = draw(row, position, -1);
    }
    draw.next(row, position);
    if (cursor != null) {
      draw.masked(cursor.mask());
    }
    return draw;
  }

  /**
   * Whether it can take part in a step: its listener takes tokens, and those that it may draw are
   * known; if not, {@code wake} is called once they are.
   */
  private boolean isReady(Runnable wake) {
    return listener.ready() && (cursor == null || cursor.ready(wake));
  }

  /** Asks anew whether it is {@link #ready}, or {@link #broken}. */
  void look(Runnable wake) {
    try {
      ready = isReady(wake);
      String failure = cursor == null ? null : cursor.failure();
      if (failure != null) {
        broken = new EngineException(EngineException.Reason.CONSTRAINT, failure);
      }
    } catch (Throwable e) {
      ready = false;
      broken = e;
    }
  }

  /** In the order of deadlines. */
  @Override
  boolean before(Sequence other) {
    return task.deadline() - other.task.deadline() < 0;
  }

  /** Takes the token that was drawn into the text that it must be; true if that is complete. */
  boolean completes(int token) {
    if (cursor == null) {
      return false;
    }
    cursor.accept(token);
    return cursor.isLast();
  }

  private Draw draw(int row, int position, int score) {
    return new Draw(
            row,
            score,
            sampling.temperature(),
            sampling.topK(),
            sampling.topP(),
            sampling.minP(),
            sampling.repetition(),
            sampling.presence(),
            sampling.frequency(),
            tokens,
            promptLength,
            length,
            sampling.seed(),
            position,
            task.top())
        .biased(score < 0 ? bias(sampling) : null);
  }

  /** What its choices are biased by, or null. */
  private @Nullable TokenBias bias(SamplingParams sampling) {
    int least = eos.length + stopTokens.length == 0 ? 0 : sampling.minTokens();
    if (sampling.logitBias().isEmpty() && least == 0) {
      return null;
    }
    int[] held = Arrays.copyOf(eos, eos.length + stopTokens.length);
    System.arraycopy(stopTokens, 0, held, eos.length, stopTokens.length);
    return TokenBias.of(sampling.logitBias(), held, least);
  }

  int generated() {
    return length - promptLength;
  }

  /** Tokens left to compute. */
  int pending() {
    return length - computed;
  }

  void append(int token) {
    tokens[length++] = token;
  }

  /** Makes sure of blocks for the first {@code positions}; false when the pool is empty. */
  boolean reserve(PagePool pool, int positions) {
    int needed = blocks(positions);
    while (blockCount < needed) {
      int block = pool.take();
      if (block == PagePool.NONE) {
        return false;
      }
      blocks[blockCount++] = block;
    }
    return true;
  }

  /** Whether its prompt is yet to be scored, for which all of it must be computed. */
  private boolean scores() {
    return task.echo() && scored < promptLength;
  }

  /** Tokens that may be found in the index; at least the last one is always computed. */
  int shareable() {
    boolean all = scores() || (pooled != null && pooled.wantsAll());
    return all ? 0 : (length - 1) / KvShape.BLOCK_TOKENS * KvShape.BLOCK_TOKENS;
  }

  /**
   * Takes the blocks that hold its next tokens, as far as others have computed them; also in place
   * of one that it has begun itself.
   *
   * @return tokens that need not be computed any more
   */
  int adopt(PagePool pool) {
    int before = computed;
    while ((indexed + 1) * KvShape.BLOCK_TOKENS <= shareable()) {
      int block = pool.index().find(sharing, last(), tokens, indexed * KvShape.BLOCK_TOKENS);
      if (block == PagePool.NONE) {
        break;
      }
      take(block, pool);
      computed = indexed * KvShape.BLOCK_TOKENS;
    }
    return computed - before;
  }

  /** Takes an indexed block as the next one of its prefix. */
  private void take(int block, PagePool pool) {
    pool.share(block);
    if (indexed < blockCount) {
      pool.give(blocks[indexed]);
    } else {
      blockCount++;
    }
    blocks[indexed++] = block;
  }

  /** Tokens that it would have to compute if it were admitted now. */
  int uncached(PagePool pool) {
    int at = computed;
    int last = last();
    while (at % KvShape.BLOCK_TOKENS == 0 && at < shareable()) {
      int block = pool.index().find(sharing, last, tokens, at);
      if (block == PagePool.NONE) {
        break;
      }
      last = block;
      at += KvShape.BLOCK_TOKENS;
    }
    return length - at;
  }

  /** Has the blocks that are complete by now indexed, or takes others' that hold the same. */
  void index(PagePool pool) {
    while ((indexed + 1) * KvShape.BLOCK_TOKENS <= computed) {
      int position = indexed * KvShape.BLOCK_TOKENS;
      int block = pool.index().find(sharing, last(), tokens, position);
      if (block == PagePool.NONE) {
        pool.index().add(sharing, last(), tokens, position, blocks[indexed]);
        indexed++;
      } else {
        take(block, pool);
      }
    }
    if (indexed >= (promptLength - 1) / KvShape.BLOCK_TOKENS) {
      siblings.share();
    }
  }

  /** The last block of its prefix that is indexed. */
  private int last() {
    return indexed == 0 ? PagePool.NONE : blocks[indexed - 1];
  }

  /** Gives its blocks back; those that are indexed may be found again. */
  void release(PagePool pool) {
    pool.give(blocks, blockCount);
    blockCount = 0;
    indexed = 0;
    computed = 0;
    loosen();
  }

  boolean expired(long now) {
    return task.deadline() != GenerationTask.NO_DEADLINE && now - task.deadline() >= 0;
  }

  static int blocks(int positions) {
    return Math.ceilDiv(positions, KvShape.BLOCK_TOKENS);
  }
}
