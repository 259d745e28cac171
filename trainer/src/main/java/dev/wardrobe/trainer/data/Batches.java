package dev.wardrobe.trainer.data;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Which rows each step of a run takes, and how they lie in micro-batches. All of it follows from
 * the rows, the options, the seed and the step's number, counted from 0 through all epochs; nothing
 * is remembered, so that a run can be resumed anywhere. An epoch takes each row once, and its last
 * step what is left.
 *
 * <p>May be used from several threads.
 */
public final class Batches {
  /** Steps whose rows are sorted by length together; as many as transformers takes. */
  private static final int MEGA = 50;

  /** An epoch's units in order. */
  @SuppressWarnings("ArrayRecordComponent")
  private record Epoch(long number, int[] order) {}

  private final Rows rows;
  private final BatchOptions options;
  private final long seed;

  /** Rows that stay together, each list of them a unit; null if each row is one. */
  private final int @Nullable [][] packs;

  private volatile @Nullable Epoch cached;

  public Batches(Rows rows, BatchOptions options, long seed) {
    this.rows = rows;
    this.options = options;
    this.seed = seed;
    this.packs = options.packing() == 0 ? null : Packing.pack(rows, inOrder(), options.packing());
  }

  /**
   * Batches for an evaluation: all rows once, in the files' order, a micro-batch a step.
   *
   * @param batchSize rows of a micro-batch
   */
  public static Batches evaluation(Rows rows, int batchSize) {
    return new Batches(rows, BatchOptions.of(batchSize, 1).order(BatchOptions.Order.SEQUENTIAL), 0);
  }

  /** Packs are made once, of rows in the first epoch's order; later epochs shuffle the packs. */
  private int[] inOrder() {
    int[] order = new int[rows.size()];
    Arrays.setAll(order, i -> i);
    return options.order() == BatchOptions.Order.SEQUENTIAL
        ? order
        : Shuffle.of(order.length, seed, Shuffle.PACKING, 0);
  }

  /** Steps of an epoch, the last of which may be smaller. */
  public long stepsPerEpoch() {
    return ceilDiv(units(), perStep());
  }

  /** Steps of so many epochs, which need not be a whole number. */
  public long totalSteps(double epochs) {
    if (!(epochs > 0 && epochs <= 1e9)) {
      throw new IllegalArgumentException("epochs: expected more than 0, got " + epochs);
    }
    return (long) Math.ceil(epochs * stepsPerEpoch());
  }

  /** How many epochs are over before a step. */
  public double epoch(long step) {
    return (double) step / stepsPerEpoch();
  }

  /** How many tokens are learned in a step: its loss is the mean over them. */
  public long targets(long step) {
    long targets = 0;
    for (int[] batch : rowsOf(step)) {
      for (int row : batch) {
        targets += rows.targets(row);
      }
    }
    return targets;
  }

  /** How many tokens go through the model in a step. */
  public long tokens(long step) {
    long tokens = 0;
    for (int[] batch : rowsOf(step)) {
      for (int row : batch) {
        tokens += rows.length(row);
      }
    }
    return tokens;
  }

  /**
   * Tokens that no micro-batch has more of: those of the longest rows, or packs, if they met in
   * one.
   */
  public int mostTokens() {
    int[] lengths = new int[units()];
    Arrays.setAll(lengths, unit -> packs == null ? rows.length(unit) : length(packs[unit]));
    Arrays.sort(lengths);
    long most = 0;
    for (int i = Math.max(0, lengths.length - options.batchSize()); i < lengths.length; i++) {
      most += lengths[i];
    }
    return (int) Math.min(Integer.MAX_VALUE, most);
  }

  private int length(int[] pack) {
    int length = 0;
    for (int row : pack) {
      length += rows.length(row);
    }
    return length;
  }

  /** A step's micro-batches, in order. */
  public List<MicroBatch> step(long step) {
    List<MicroBatch> batches = new ArrayList<>();
    for (int[] batch : rowsOf(step)) {
      batches.add(rows.batch(batch));
    }
    return batches;
  }

  /** The rows of each of a step's micro-batches. */
  List<int[]> rowsOf(long step) {
    if (step < 0) {
      throw new IllegalArgumentException("step: expected at least 0, got " + step);
    }
    long steps = stepsPerEpoch();
    int[] order = order(step / steps);
    long from = step % steps * perStep();
    long to = Math.min(order.length, from + perStep());
    List<int[]> batches = new ArrayList<>();
    for (long at = from; at < to; at += options.batchSize()) {
      int end = (int) Math.min(to, at + options.batchSize());
      batches.add(rowsOf(Arrays.copyOfRange(order, (int) at, end)));
    }
    return batches;
  }

  private int[] rowsOf(int[] units) {
    if (packs == null) {
      return units;
    }
    int[] rows = new int[0];
    for (int unit : units) {
      int[] pack = packs[unit];
      int before = rows.length;
      rows = Arrays.copyOf(rows, before + pack.length);
      System.arraycopy(pack, 0, rows, before, pack.length);
    }
    return rows;
  }

  private int[] order(long epoch) {
    Epoch known = cached;
    if (known == null || known.number() != epoch) {
      known = new Epoch(epoch, make(epoch));
      cached = known;
    }
    return known.order();
  }

  private int[] make(long epoch) {
    int units = units();
    if (options.order() == BatchOptions.Order.SEQUENTIAL) {
      int[] order = new int[units];
      Arrays.setAll(order, i -> i);
      return order;
    }
    int[] order = Shuffle.of(units, seed, Shuffle.EPOCH, epoch);
    return options.groupByLength() ? grouped(order, epoch) : order;
  }

  /**
   * Sorts by length within stretches of some steps, then shuffles the steps; the longest row's
   * comes first, so that what does not fit into memory shows at once.
   */
  private int[] grouped(int[] order, long epoch) {
    long stretch = MEGA * perStep();
    for (long from = 0; from < order.length; from += stretch) {
      sortByLength(order, (int) from, (int) Math.min(order.length, from + stretch));
    }
    long perStep = perStep();
    int steps = (int) stepsPerEpoch();
    int whole = (int) (order.length / perStep);
    int[] shuffled = Shuffle.of(whole, seed, Shuffle.GROUPS, epoch);
    int longest = 0;
    for (int i = 1; i < whole; i++) {
      int length = rows.length(order[(int) (shuffled[i] * perStep)]);
      longest = length > rows.length(order[(int) (shuffled[longest] * perStep)]) ? i : longest;
    }
    int[] grouped = new int[order.length];
    int at = 0;
    for (int i = 0; i < steps; i++) {
      int group = i >= whole ? i : shuffled[i == 0 ? longest : i == longest ? 0 : i];
      int from = (int) (group * perStep);
      int to = (int) Math.min(order.length, from + perStep);
      System.arraycopy(order, from, grouped, at, to - from);
      at += to - from;
    }
    return grouped;
  }

  /** Longest first; rows of one length stay in the order that was drawn. */
  private void sortByLength(int[] order, int from, int to) {
    long[] keys = new long[to - from];
    for (int i = from; i < to; i++) {
      keys[i - from] = (long) -rows.length(order[i]) << 32 | (i - from);
    }
    Arrays.sort(keys);
    int[] before = Arrays.copyOfRange(order, from, to);
    for (int i = from; i < to; i++) {
      order[i] = before[(int) keys[i - from]];
    }
  }

  private int units() {
    return packs == null ? rows.size() : packs.length;
  }

  private long perStep() {
    return (long) options.batchSize() * options.accumulation();
  }

  private static long ceilDiv(long a, long b) {
    return (a + b - 1) / b;
  }
}
