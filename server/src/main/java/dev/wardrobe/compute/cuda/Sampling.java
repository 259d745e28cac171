package dev.wardrobe.compute.cuda;

import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_LONG_UNALIGNED;

import dev.wardrobe.compute.Draw;
import dev.wardrobe.compute.NotFiniteException;
import dev.wardrobe.compute.TokenBias;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import java.util.StringJoiner;
import org.jspecify.annotations.Nullable;

/**
 * Drawing and scoring tokens (sampling.cu). The draws are written to a table that never moves, so
 * that the operation is the same from step to step and a graph can hold it. What is of different
 * length lies where the table says: histories, biases and masks, the most probable tokens, and what
 * the kernel works in.
 */
final class Sampling implements AutoCloseable {
  /** Draws of one launch. */
  static final int MOST_DRAWS = 256;

  /** Blocks of one launch: each has {@link #SCRATCH_WORDS} of memory for each token. */
  static final int MOST_BLOCKS = 64;

  /** The kernel keeps a sum of every 1,024 numbers in shared memory. */
  static final int MOST_TOKENS = 1 << 20;

  /** What tables and results may take: 1 GiB each. */
  private static final long MOST_WORDS = 1 << 28;

  private static final int SCRATCH_WORDS = 4;
  private static final int MOST_THREADS = 1024;

  // SampleTable, Draw and Drawn in sampling.cu.
  private static final int HEADER_BYTES = 32;
  private static final int DRAW_BYTES = 96;
  private static final int DRAWN_BYTES = 8;
  private static final int CHANGED = 1;
  private static final int BIASED = 2;
  private static final int NO_MASK = -1;

  private final Gpu gpu;
  private final Gpu.Memory table;
  private final Gpu.Pinned pinnedTable;
  private final Gpu.Memory drawn;
  private final Gpu.Pinned pinnedDrawn;
  private final Growing words;
  private final Growing tops;
  private Gpu.@Nullable Memory scratch;
  private int[] marks = new int[0];

  /** Where the next of the draws' words go, and the next of the results. */
  private int nextWord;

  private int nextTop;

  /** Words on the device, and the same in pinned memory. */
  private static final class Growing implements AutoCloseable {
    private final Gpu gpu;
    private final String what;
    private Gpu.@Nullable Memory memory;
    private Gpu.@Nullable Pinned pinned;

    Growing(Gpu gpu, String what) {
      this.gpu = gpu;
      this.what = what;
    }

    /** Makes room; what was there may be lost. Nothing that is queued may still use it. */
    void reserve(long count) {
      if (memory == null || memory.bytes() < 4 * count) {
        close();
        long bytes = Long.highestOneBit(Math.max(1024, 4 * count) - 1) << 1;
        // Both or neither.
        Gpu.Pinned host = gpu.pinned(bytes);
        try {
          memory = gpu.workspace(what, bytes);
          pinned = host;
        } finally {
          if (pinned == null) {
            host.close();
          }
        }
      }
    }

    long address() {
      return memory == null ? 0 : memory.address();
    }

    Gpu.Pinned pinned() {
      if (pinned == null) {
        throw new IllegalStateException(what + ": no room was made");
      }
      return pinned;
    }

    @Override
    public void close() {
      if (memory != null) {
        memory.close();
        memory = null;
      }
      if (pinned != null) {
        pinned.close();
        pinned = null;
      }
    }
  }

  /** The operation; how many draws there are, and of what kind, is in the table. */
  private record Sample(Sampling sampling, CudaBuffer logits, int draws) implements Op {
    @Override
    public void launch(Gpu gpu, CudaStep step) {
      gpu.arguments()
          .address(sampling.table.address())
          .address(logits.address())
          .address(sampling.drawn.address())
          .number(logits.width());
      int blocks = Math.min(MOST_BLOCKS, draws);
      gpu.launch("sample", blocks, threads(logits.width()));
      gpu.downloadInOrder(
          sampling.drawn.address(), sampling.pinnedDrawn, 0, (long) DRAWN_BYTES * draws);
    }
  }

  Sampling(Gpu gpu) {
    this.gpu = gpu;
    long tableBytes = HEADER_BYTES + (long) MOST_DRAWS * DRAW_BYTES;
    table = gpu.workspace("draws", tableBytes);
    pinnedTable = gpu.pinned(tableBytes);
    drawn = gpu.workspace("drawn tokens", (long) MOST_DRAWS * DRAWN_BYTES);
    gpu.clear(drawn);
    pinnedDrawn = gpu.pinned((long) MOST_DRAWS * DRAWN_BYTES);
    words = new Growing(gpu, "tables of draws");
    tops = new Growing(gpu, "the most probable tokens");
  }

  /** Threads of a block: some tokens for each. They show in no bit of what comes out. */
  private static int threads(int vocabulary) {
    return Math.clamp(rounded(Math.ceilDiv(vocabulary, 32)), 32, MOST_THREADS);
  }

  /** The next power of two. */
  private static int rounded(int count) {
    return count <= 1 ? 1 : Integer.highestOneBit(count - 1) << 1;
  }

  /**
   * Draws and scores, waits, and writes outcomes.
   *
   * @throws NotFiniteException if rows hold NaN or infinity, or leave no token
   */
  void sample(CudaStep step, CudaBuffer logits, List<Draw> draws) {
    int vocabulary = logits.width();
    if (vocabulary > MOST_TOKENS) {
      throw new IllegalArgumentException(
          "sample: a vocabulary of %d tokens; expected at most %d"
              .formatted(vocabulary, MOST_TOKENS));
    }
    for (int from = 0; from < draws.size(); from += MOST_DRAWS) {
      List<Draw> part = draws.subList(from, Math.min(draws.size(), from + MOST_DRAWS));
      // As many as the step has outputs, whatever became of some of them: so the operation stays
      // the same.
      int launched = Math.max(rounded(part.size()), Math.min(MOST_DRAWS, step.outputs()));
      write(part, vocabulary, Math.min(MOST_BLOCKS, launched));
      step.tape().add(new Sample(this, logits, launched));
      step.tape().flush();
      if (nextTop > 0) {
        gpu.downloadInOrder(tops.address(), tops.pinned(), 0, 4L * nextTop);
      }
      gpu.await();
      read(part, vocabulary);
    }
    refuse(logits, draws);
  }

  private void write(List<Draw> draws, int vocabulary, int blocks) {
    long wordsNeeded = 0;
    long topsNeeded = 0;
    boolean scratchNeeded = false;
    for (Draw draw : draws) {
      wordsNeeded += mostWords(draw, vocabulary);
      topsNeeded += topWords(draw, vocabulary);
      scratchNeeded |=
          (draw.score() < 0 && (draw.temperature() != 0 || changed(draw)))
              || (draw.top() != 0 && draw.top() != Draw.ALL);
    }
    if (Math.max(wordsNeeded, topsNeeded) > MOST_WORDS) {
      throw new IllegalArgumentException(
          "sample: histories, masks or log-probabilities of more than 1 GiB; give fewer draws at"
              + " once");
    }
    words.reserve(wordsNeeded);
    tops.reserve(topsNeeded);
    long scratchBytes = 4L * SCRATCH_WORDS * vocabulary * blocks;
    if (scratchNeeded && (scratch == null || scratch.bytes() < scratchBytes)) {
      if (scratch != null) {
        scratch.close();
        scratch = null;
      }
      scratch = gpu.workspace("room to draw tokens in", scratchBytes);
    }
    nextWord = 0;
    nextTop = 0;
    MemorySegment to = pinnedTable.segment();
    to.set(JAVA_LONG, 0, scratch == null ? 0 : scratch.address());
    to.set(JAVA_LONG, 8, words.address());
    to.set(JAVA_LONG, 16, tops.address());
    to.set(JAVA_INT, 24, draws.size());
    for (int i = 0; i < draws.size(); i++) {
      write(draws.get(i), vocabulary, to, HEADER_BYTES + (long) DRAW_BYTES * i);
    }
    if (nextWord > 0) {
      gpu.uploadInOrder(words.pinned(), 0, words.address(), 4L * nextWord);
    }
    gpu.uploadInOrder(
        pinnedTable, 0, table.address(), HEADER_BYTES + (long) DRAW_BYTES * draws.size());
  }

  private static boolean penalized(Draw draw) {
    return draw.repetition() != 1 || draw.presence() != 0 || draw.frequency() != 0;
  }

  private static boolean changed(Draw draw) {
    return penalized(draw) || draw.bias() != null || draw.mask() != null;
  }

  private static long mostWords(Draw draw, int vocabulary) {
    long count = penalized(draw) ? 3L * draw.length() : 0;
    TokenBias bias = draw.bias();
    count += bias == null ? 0 : 2L * bias.tokens().length + bias.held().length;
    return count + (draw.mask() == null ? 0 : 2L * Math.ceilDiv(vocabulary, 64));
  }

  private static int topWords(Draw draw, int vocabulary) {
    return draw.top() == Draw.ALL ? vocabulary : 2 * Math.min(draw.top(), vocabulary);
  }

  private void write(Draw draw, int vocabulary, MemorySegment to, long at) {
    to.set(JAVA_LONG, at, draw.seed());
    to.set(JAVA_INT, at + 8, draw.row());
    to.set(JAVA_INT, at + 12, draw.score());
    to.set(JAVA_FLOAT, at + 16, draw.temperature());
    to.set(JAVA_INT, at + 20, draw.topK());
    to.set(JAVA_FLOAT, at + 24, draw.topP());
    to.set(JAVA_FLOAT, at + 28, draw.minP());
    to.set(JAVA_FLOAT, at + 32, draw.repetition());
    to.set(JAVA_FLOAT, at + 36, draw.presence());
    to.set(JAVA_FLOAT, at + 40, draw.frequency());
    to.set(JAVA_INT, at + 44, draw.position());
    to.set(JAVA_INT, at + 48, draw.top());
    to.set(JAVA_INT, at + 52, nextTop);
    nextTop += topWords(draw, vocabulary);
    TokenBias bias = draw.bias();
    to.set(JAVA_INT, at + 56, (changed(draw) ? CHANGED : 0) | (bias == null ? 0 : BIASED));
    MemorySegment list = words.pinned().segment();
    int begin = nextWord;
    if (bias != null) {
      int count = bias.tokens().length;
      MemorySegment.copy(bias.tokens(), 0, list, JAVA_INT, 4L * nextWord, count);
      MemorySegment.copy(bias.values(), 0, list, JAVA_FLOAT, 4L * (nextWord + count), count);
      nextWord += 2 * count;
    }
    to.set(JAVA_INT, at + 60, begin);
    to.set(JAVA_INT, at + 64, (nextWord - begin) / 2);
    begin = nextWord;
    if (bias != null && draw.length() - draw.promptLength() < bias.least()) {
      for (int token : bias.held()) {
        if (token >= 0 && token < vocabulary) {
          list.setAtIndex(JAVA_INT, nextWord++, token);
        }
      }
    }
    to.set(JAVA_INT, at + 68, begin);
    to.set(JAVA_INT, at + 72, nextWord - begin);
    if (marks.length < vocabulary) {
      marks = new int[vocabulary];
    }
    begin = nextWord;
    if (draw.repetition() != 1) {
      writeRepeated(draw, list);
    }
    to.set(JAVA_INT, at + 76, begin);
    to.set(JAVA_INT, at + 80, nextWord - begin);
    begin = nextWord;
    if (draw.presence() != 0 || draw.frequency() != 0) {
      writeCounted(draw, list);
    }
    to.set(JAVA_INT, at + 84, begin);
    to.set(JAVA_INT, at + 88, (nextWord - begin) / 2);
    long[] mask = draw.mask();
    to.set(JAVA_INT, at + 92, mask == null ? NO_MASK : nextWord);
    if (mask != null) {
      int longs = Math.ceilDiv(vocabulary, 64);
      MemorySegment.copy(mask, 0, list, JAVA_LONG_UNALIGNED, 4L * nextWord, longs);
      nextWord += 2 * longs;
    }
  }

  /** All tokens so far, each once. */
  private void writeRepeated(Draw draw, MemorySegment list) {
    int[] tokens = draw.tokens();
    for (int i = 0; i < draw.length(); i++) {
      if (marks[tokens[i]]++ == 0) {
        list.setAtIndex(JAVA_INT, nextWord++, tokens[i]);
      }
    }
    for (int i = 0; i < draw.length(); i++) {
      marks[tokens[i]] = 0;
    }
  }

  /** Generated tokens, each once with how often it was. */
  private void writeCounted(Draw draw, MemorySegment list) {
    int[] tokens = draw.tokens();
    for (int i = draw.promptLength(); i < draw.length(); i++) {
      marks[tokens[i]]++;
    }
    for (int i = draw.promptLength(); i < draw.length(); i++) {
      int token = tokens[i];
      if (marks[token] > 0) {
        list.setAtIndex(JAVA_INT, nextWord++, token);
        list.setAtIndex(JAVA_INT, nextWord++, marks[token]);
        marks[token] = 0;
      }
    }
  }

  private void read(List<Draw> draws, int vocabulary) {
    MemorySegment from = pinnedDrawn.segment();
    int top = 0;
    for (int i = 0; i < draws.size(); i++) {
      Draw draw = draws.get(i);
      int token = from.get(JAVA_INT, (long) DRAWN_BYTES * i);
      draw.outcome()
          .set(token, token < 0 ? Float.NaN : from.get(JAVA_FLOAT, (long) DRAWN_BYTES * i + 4));
      if (token >= 0) {
        readTop(draw, vocabulary, top);
      }
      top += topWords(draw, vocabulary);
    }
  }

  private void readTop(Draw draw, int vocabulary, int at) {
    Draw.Outcome outcome = draw.outcome();
    int logprobs = draw.top() == Draw.ALL ? vocabulary : Math.min(draw.top(), vocabulary);
    int tokens = draw.top() == Draw.ALL ? 0 : logprobs;
    outcome.room(tokens, logprobs);
    if (logprobs > 0) {
      MemorySegment from = tops.pinned().segment();
      MemorySegment.copy(from, JAVA_INT, 4L * at, outcome.topTokens(), 0, tokens);
      MemorySegment.copy(from, JAVA_FLOAT, 4L * (at + tokens), outcome.topLogprobs(), 0, logprobs);
    }
  }

  private void refuse(CudaBuffer logits, List<Draw> draws) {
    List<Integer> failed = new ArrayList<>();
    StringJoiner problems = new StringJoiner("; ");
    for (int i = 0; i < draws.size(); i++) {
      if (draws.get(i).outcome().token() < 0) {
        failed.add(i);
        int row = draws.get(i).row();
        float[] values = new float[logits.width()];
        gpu.download(logits.address() + 4L * row * values.length, MemorySegment.ofArray(values));
        problems.add(
            "row %d: %s".formatted(row, NotFiniteException.problem(values, 0, values.length)));
      }
    }
    if (!failed.isEmpty()) {
      throw new NotFiniteException(
          "logits: " + problems, failed.stream().mapToInt(i -> i).toArray());
    }
  }

  @Override
  public void close() {
    words.close();
    tops.close();
    if (scratch != null) {
      scratch.close();
      scratch = null;
    }
    table.close();
    pinnedTable.close();
    drawn.close();
    pinnedDrawn.close();
  }
}
