package dev.wardrobe.compute;

import com.google.errorprone.annotations.FormatMethod;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * The tokens of one step: those of many sequences and many adapters, side by side.
 *
 * <p>A table that its owner fills anew for each step ({@link #clear}, then {@link #add} and {@link
 * #want}), because a step is to allocate nothing. What it says, its runs and segments included,
 * holds until then.
 */
public final class Batch {
  private int[] tokens;
  private int size;
  private int[] outputs;
  private int outputCount;
  private final List<Run> runs = new ArrayList<>();
  private final List<Run> spareRuns = new ArrayList<>();
  private final Segments segments = new Segments();
  private final Segments outputSegments = new Segments();

  /** The adapters of the last run; their segments are the last ones. */
  private @Nullable LoraMix lastMix;

  private final List<Run> runsView = Collections.unmodifiableList(runs);

  /** Consecutive tokens of one sequence. */
  public static final class Run {
    private int from;
    private int to;
    private int position;
    private int[] blocks;

    /**
     * @param from first row in the batch
     * @param to one past the last row
     * @param position the first token's position in its sequence
     * @param blocks the sequence's block table: block {@code blocks[p / 16]} holds position p;
     *     covers all positions up to the run's last
     */
    public Run(int from, int to, int position, int[] blocks) {
      this.from = from;
      this.to = to;
      this.position = position;
      this.blocks = blocks;
    }

    public int from() {
      return from;
    }

    public int to() {
      return to;
    }

    public int position() {
      return position;
    }

    public int[] blocks() {
      return blocks;
    }

    /**
     * Checks the blocks of positions {@code first} to {@code end} (exclusive).
     *
     * @throws IllegalArgumentException if one is not of a cache of so many
     */
    public void checkBlocks(int first, int end, int cacheBlocks) {
      for (int i = first / KvShape.BLOCK_TOKENS; i * KvShape.BLOCK_TOKENS < end; i++) {
        if (blocks[i] < 0 || blocks[i] >= cacheBlocks) {
          throw new IllegalArgumentException(
              "block table: block %d of a cache of %d".formatted(blocks[i], cacheBlocks));
        }
      }
    }
  }

  /**
   * Rows {@code from} to {@code to} (exclusive) that use {@code lora}, its deltas scaled; null is
   * the base alone. The adapters of a {@link LoraMix} have a segment each, with the same rows, one
   * after the other in the mix's order; other segments have no row in common.
   */
  public static final class Segment {
    private int from;
    private int to;
    private @Nullable Lora lora;
    private float scale;

    public Segment(int from, int to, @Nullable Lora lora) {
      this(from, to, lora, 1);
    }

    public Segment(int from, int to, @Nullable Lora lora, float scale) {
      this.from = from;
      this.to = to;
      this.lora = lora;
      this.scale = scale;
    }

    public int from() {
      return from;
    }

    public int to() {
      return to;
    }

    public @Nullable Lora lora() {
      return lora;
    }

    /** By what the adapter's own scale is multiplied. */
    public float scale() {
      return scale;
    }
  }

  /** Segments, and those of earlier steps to be used again. */
  private static final class Segments {
    private final List<Segment> used = new ArrayList<>();
    private final List<Segment> spare = new ArrayList<>();
    private final List<Segment> view = Collections.unmodifiableList(used);

    void clear() {
      while (!used.isEmpty()) {
        Segment last = used.removeLast();
        last.lora = null;
        spare.add(last);
      }
    }

    void add(int from, int to, @Nullable Lora lora, float scale) {
      if (spare.isEmpty()) {
        spare.add(new Segment(0, 0, null, 1));
      }
      Segment next = spare.removeLast();
      next.from = from;
      next.to = to;
      next.lora = lora;
      next.scale = scale;
      used.add(next);
    }
  }

  /** An empty table. */
  public Batch() {
    tokens = new int[64];
    outputs = new int[64];
  }

  /**
   * A table that is given whole.
   *
   * @param tokens input token ids
   * @param runs the sequences' shares, in order, covering {@code tokens} without gaps
   * @param segments runs of neighbouring tokens with one adapter, in order, covering {@code tokens}
   *     without gaps; a segment's borders are run borders; see {@link Segment} for mixes
   * @param outputs rows of {@code tokens} whose logits are wanted, ascending
   */
  public Batch(int[] tokens, List<Run> runs, List<Segment> segments, int[] outputs) {
    this.tokens = tokens;
    this.outputs = outputs;
    size = tokens.length;
    outputCount = outputs.length;
    this.runs.addAll(runs);
    this.segments.used.addAll(segments);
  }

  /** Empties the table. */
  public void clear() {
    size = 0;
    outputCount = 0;
    while (!runs.isEmpty()) {
      spareRuns.add(runs.removeLast());
    }
    segments.clear();
    outputSegments.clear();
    lastMix = null;
  }

  /**
   * Adds a sequence's run of {@code count} tokens, {@code tokens[position]} on. Neighbours of equal
   * mixes share their segments.
   *
   * @param tokens the sequence's tokens by position
   * @param blocks its block table, see {@link Run}
   * @param mix its adapters, or null for the base
   */
  public void add(int[] tokens, int position, int count, int[] blocks, @Nullable LoraMix mix) {
    int end = Math.addExact(size, count);
    if (end > this.tokens.length) {
      this.tokens = Arrays.copyOf(this.tokens, Math.max(end, 2 * size));
    }
    System.arraycopy(tokens, position, this.tokens, size, count);
    Run run = spareRuns.isEmpty() ? new Run(0, 0, 0, blocks) : spareRuns.removeLast();
    run.from = size;
    run.to = end;
    run.position = position;
    run.blocks = blocks;
    runs.add(run);
    int adapters = mix == null ? 1 : mix.size();
    int segmentCount = segments.used.size();
    if (segmentCount > 0 && Objects.equals(mix, lastMix)) {
      for (int i = segmentCount - adapters; i < segmentCount; i++) {
        segments.used.get(i).to = end;
      }
    } else if (mix == null) {
      segments.add(size, end, null, 1);
    } else {
      for (int i = 0; i < adapters; i++) {
        segments.add(size, end, mix.lora(i), mix.scale(i));
      }
    }
    lastMix = mix;
    size = end;
  }

  /** Asks for a row's logits; rows ascend. */
  public void want(int row) {
    if (outputCount == outputs.length) {
      outputs = Arrays.copyOf(outputs, 2 * outputCount);
    }
    outputs[outputCount++] = row;
  }

  /**
   * Checks that the table holds together, and that its adapters are of one backend.
   *
   * @param own the backend's adapters
   * @throws IllegalArgumentException if not, saying what does not fit
   */
  public void check(Class<? extends Lora> own) {
    checkRuns();
    checkSegments(own);
    int before = -1;
    for (int i = 0; i < outputCount; i++) {
      if (outputs[i] <= before || outputs[i] >= size) {
        throw refused(
            "outputs: expected ascending rows below %d, got %d after %d", size, outputs[i], before);
      }
      before = outputs[i];
    }
  }

  private void checkRuns() {
    int row = 0;
    for (int i = 0; i < runs.size(); i++) {
      Run run = runs.get(i);
      if (run.from != row || run.to <= row || run.to > size) {
        throw refused(
            "run %d: expected rows from %d within %d, got %d to %d",
            i, row, size, run.from, run.to);
      }
      if (run.position < 0) {
        throw refused("run %d: position %d", i, run.position);
      }
      long end = (long) run.position + run.to - run.from;
      long covered = (long) run.blocks.length * KvShape.BLOCK_TOKENS;
      if (end > covered) {
        throw refused("run %d: positions up to %d, but its block table covers %d", i, end, covered);
      }
      row = run.to;
    }
    if (row != size) {
      throw refused("runs: expected to cover %d rows, got %d", size, row);
    }
  }

  private void checkSegments(Class<? extends Lora> own) {
    int row = 0;
    int run = 0;
    for (int i = 0; i < segments.used.size(); i++) {
      Segment segment = segments.used.get(i);
      if (i > 0 && segment.from == segments.used.get(i - 1).from) {
        checkMixed(i, segments.used.get(i - 1), segment, own);
        continue;
      }
      if (segment.from != row || segment.to <= row || segment.to > size) {
        throw refused(
            "segment %d: expected rows from %d within %d, got %d to %d",
            i, row, size, segment.from, segment.to);
      }
      while (run < runs.size() && runs.get(run).from < row) {
        run++;
      }
      if (run == runs.size() || runs.get(run).from != row) {
        throw refused("segment %d: begins at row %d within a run", i, row);
      }
      checkLora(i, segment, own);
      row = segment.to;
    }
    if (row != size) {
      throw refused("segments: expected to cover %d rows, got %d", size, row);
    }
  }

  private static void checkLora(int i, Segment segment, Class<? extends Lora> own) {
    Lora lora = segment.lora;
    if (lora != null && !own.isInstance(lora)) {
      throw refused("segment %d: the adapter is of another backend", i);
    }
    if (!Float.isFinite(segment.scale)) {
      throw refused("segment %d: a scale of %s", i, segment.scale);
    }
    if (segment.scale != 1 && lora != null && !lora.additive()) {
      throw refused(
          "segment %d: a scale of %s for an adapter that can be used at scale 1 only",
          i, segment.scale);
    }
  }

  /** A segment that shares its rows with the one before it. */
  private static void checkMixed(
      int i, Segment before, Segment segment, Class<? extends Lora> own) {
    if (segment.to != before.to) {
      throw refused(
          "segment %d: expected the rows of the one before it, %d to %d, got %d to %d",
          i, before.from, before.to, segment.from, segment.to);
    }
    checkLora(i, segment, own);
    if (!adds(before) || !adds(segment)) {
      throw refused("segment %d: shares its rows, which only deltas that can be summed may", i);
    }
  }

  private static boolean adds(Segment segment) {
    return segment.lora != null && segment.lora.additive();
  }

  @FormatMethod
  private static IllegalArgumentException refused(String message, Object... arguments) {
    return new IllegalArgumentException(message.formatted(arguments));
  }

  /** Tokens in all. */
  public int size() {
    return size;
  }

  /** The input token of a row. */
  public int token(int row) {
    return tokens[row];
  }

  /** The sequences' shares, in order. */
  public List<Run> runs() {
    return runsView;
  }

  /** Runs of neighbouring rows with one adapter, in order; see {@link Segment} for mixes. */
  public List<Segment> segments() {
    return segments.view;
  }

  /** How many rows' logits are wanted. */
  public int outputs() {
    return outputCount;
  }

  /** The row of the {@code i}th wanted logits; they ascend. */
  public int output(int i) {
    return outputs[i];
  }

  /**
   * The segments of outputs {@code from} to {@code to} (exclusive), counted in outputs from {@code
   * from} on; until the next call.
   */
  public List<Segment> segments(int from, int to) {
    outputSegments.clear();
    int first = from;
    int next = from;
    for (int i = 0; i < segments.used.size(); i++) {
      Segment segment = segments.used.get(i);
      // The adapters of a mix share their rows.
      if (i == 0 || segment.from != segments.used.get(i - 1).from) {
        first = next;
        while (next < to && outputs[next] < segment.to) {
          next++;
        }
      }
      if (next > first) {
        outputSegments.add(first - from, next - from, segment.lora, segment.scale);
      }
    }
    return outputSegments.view;
  }
}
