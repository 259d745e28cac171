package dev.wardrobe.compute;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.safetensors.DType;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Rotation, the paged cache, and attention over it. */
public abstract class AttentionContract extends BackendContract {
  private static final int BLOCK = KvShape.BLOCK_TOKENS;

  /** A sequence's queries, keys and values, and the tables that rotate them. */
  private record Sequence(Heads heads, int length, float[] q, float[] k, float[] v, int[] blocks) {}

  private static Sequence sequence(Lab lab, Heads heads, int length, int firstBlock) {
    int[] blocks = new int[(length + BLOCK - 1) / BLOCK];
    for (int i = 0; i < blocks.length; i++) {
      // Not in order, as in a pool that has been used.
      blocks[i] = firstBlock + (i ^ 1);
    }
    return new Sequence(
        heads,
        length,
        lab.floats(length * heads.queries() * heads.size()),
        lab.floats(length * heads.keyValues() * heads.size()),
        lab.floats(length * heads.keyValues() * heads.size()),
        blocks);
  }

  private record Tables(float[] cos, float[] sin) {}

  private static Tables tables(int positions, int size) {
    float[] cos = new float[positions * size / 2];
    float[] sin = new float[cos.length];
    for (int p = 0; p < positions; p++) {
      for (int i = 0; i < size / 2; i++) {
        double angle = p * StrictMath.pow(10000, -2.0 * i / size);
        cos[p * size / 2 + i] = (float) StrictMath.cos(angle);
        sin[p * size / 2 + i] = (float) StrictMath.sin(angle);
      }
    }
    return new Tables(cos, sin);
  }

  /** Runs positions {@code from} to {@code to} of sequences together and appends their outputs. */
  private static void run(
      Lab lab,
      List<Sequence> sequences,
      int[] from,
      int[] to,
      KvCache cache,
      int layer,
      List<List<float[]>> outputs) {
    Heads heads = sequences.getFirst().heads;
    int queryWidth = heads.queries() * heads.size();
    int keyWidth = heads.keyValues() * heads.size();
    List<Batch.Run> runs = new ArrayList<>();
    List<Integer> owners = new ArrayList<>();
    int rows = 0;
    for (int s = 0; s < sequences.size(); s++) {
      int count = to[s] - from[s];
      if (count > 0) {
        runs.add(new Batch.Run(rows, rows + count, from[s], sequences.get(s).blocks));
        owners.add(s);
        rows += count;
      }
    }
    float[] q = new float[rows * queryWidth];
    float[] k = new float[rows * keyWidth];
    float[] v = new float[rows * keyWidth];
    int longest = 0;
    for (int i = 0; i < runs.size(); i++) {
      Sequence sequence = sequences.get(owners.get(i));
      Batch.Run run = runs.get(i);
      int count = run.to() - run.from();
      copy(sequence.q, run.position(), q, run.from(), count, queryWidth);
      copy(sequence.k, run.position(), k, run.from(), count, keyWidth);
      copy(sequence.v, run.position(), v, run.from(), count, keyWidth);
      longest = Math.max(longest, run.position() + count);
    }
    Step step =
        lab.keep(
            lab.backend.step(
                new Batch(
                    new int[rows], runs, List.of(new Batch.Segment(0, rows, null)), new int[0])));
    Tables tables = tables(longest, heads.size());
    Buffer queries = lab.buffer(q, queryWidth);
    lab.backend.rope(
        step,
        heads,
        lab.buffer(tables.cos, heads.size() / 2),
        lab.buffer(tables.sin, heads.size() / 2),
        queries,
        lab.buffer(k, keyWidth),
        lab.buffer(v, keyWidth),
        cache,
        layer);
    Buffer out = lab.buffer(rows, queryWidth);
    lab.backend.attention(step, heads, queries, cache, layer, out);
    for (int i = 0; i < runs.size(); i++) {
      for (int row = runs.get(i).from(); row < runs.get(i).to(); row++) {
        outputs.get(owners.get(i)).add(lab.backend.read(out, row, 1));
      }
    }
  }

  private static void copy(float[] from, int row, float[] to, int at, int rows, int width) {
    System.arraycopy(from, row * width, to, at * width, rows * width);
  }

  /** The same in double, keys and values rounded as stored. */
  private static double[] expected(
      Sequence sequence, Tables tables, int position, boolean bf16, int head) {
    Heads heads = sequence.heads;
    int size = heads.size();
    int kvHead = head / (heads.queries() / heads.keyValues());
    float[] q = rotated(sequence.q, position, heads.queries(), head, size, tables, position, false);
    int first = heads.window() == 0 ? 0 : Math.max(0, position - heads.window() + 1);
    double[] weights = new double[position + 1];
    double max = Double.NEGATIVE_INFINITY;
    for (int p = first; p <= position; p++) {
      float[] k = rotated(sequence.k, p, heads.keyValues(), kvHead, size, tables, p, bf16);
      double score = 0;
      for (int d = 0; d < size; d++) {
        score += (double) q[d] * k[d];
      }
      weights[p] = score * heads.scale();
      max = Math.max(max, weights[p]);
    }
    double sum = 0;
    double[] out = new double[size];
    for (int p = first; p <= position; p++) {
      double weight = StrictMath.exp(weights[p] - max);
      sum += weight;
      for (int d = 0; d < size; d++) {
        float v = sequence.v[(p * heads.keyValues() + kvHead) * size + d];
        out[d] += weight * (bf16 ? rounded(v) : v);
      }
    }
    for (int d = 0; d < size; d++) {
      out[d] /= sum;
    }
    return out;
  }

  private static float[] rotated(
      float[] x,
      int row,
      int heads,
      int head,
      int size,
      Tables tables,
      int position,
      boolean bf16) {
    float[] out = new float[size];
    int half = size / 2;
    for (int i = 0; i < half; i++) {
      float a = x[(row * heads + head) * size + i];
      float b = x[(row * heads + head) * size + half + i];
      float cos = tables.cos[position * half + i];
      float sin = tables.sin[position * half + i];
      out[i] = a * cos - b * sin;
      out[half + i] = b * cos + a * sin;
      if (bf16) {
        out[i] = rounded(out[i]);
        out[half + i] = rounded(out[half + i]);
      }
    }
    return out;
  }

  private static float rounded(float x) {
    return DType.bfloat16ToFloat(DType.floatToBfloat16(x));
  }

  @ParameterizedTest
  @CsvSource({
    "1, 1, 16, 0, F32, 1",
    "4, 2, 32, 0, F32, 17",
    "3, 1, 20, 0, F32, 33",
    "9, 3, 64, 0, BF16, 40",
    "4, 4, 18, 0, BF16, 31",
    "4, 2, 32, 8, F32, 70",
    "2, 1, 80, 17, BF16, 50",
    "2, 2, 128, 1, F32, 20",
    "16, 2, 64, 0, BF16, 129",
    "5, 1, 96, 0, F32, 257",
    "7, 1, 64, 128, BF16, 300",
    "6, 1, 34, 100, F32, 290",
    "2, 2, 256, 0, BF16, 260",
  })
  void attention_againstDouble(
      int queries, int keyValues, int size, int window, KvShape.Type type, int length) {
    try (Lab lab = lab(length)) {
      Heads heads = new Heads(queries, keyValues, size, (float) (1 / Math.sqrt(size)), window);
      Sequence sequence = sequence(lab, heads, length, 2);
      List<float[]> outputs = outputs(lab, sequence, type, length);
      int[] positions = {0, 15, 16, length / 2, 127, 128, 255, 256, length - 1};
      for (int position : positions) {
        if (position < length) {
          checkAgainstDouble(lab, sequence, type, position, outputs.get(position));
        }
      }
    }
  }

  /** The outputs of a sequence that goes through the backend in pieces that end at {@code cuts}. */
  private static List<float[]> outputs(Lab lab, Sequence sequence, KvShape.Type type, int... cuts) {
    Heads heads = sequence.heads;
    int blocks = sequence.blocks.length + 4;
    List<float[]> outputs = new ArrayList<>();
    try (KvCache cache =
        lab.backend.kvCache(new KvShape(2, heads.keyValues(), heads.size(), blocks, type))) {
      int from = 0;
      for (int to : cuts) {
        run(lab, List.of(sequence), new int[] {from}, new int[] {to}, cache, 1, List.of(outputs));
        from = to;
      }
    }
    return outputs;
  }

  private static void checkAgainstDouble(
      Lab lab, Sequence sequence, KvShape.Type type, int position, float[] actual) {
    int size = sequence.heads.size();
    Tables tables = tables(position + 1, size);
    for (int head = 0; head < sequence.heads.queries(); head++) {
      double[] expected = expected(sequence, tables, position, type == KvShape.Type.BF16, head);
      // Scores of this size come out of exp with an error of 1e-6 relative.
      lab.assertProducts(
          "%s position %d head %d".formatted(sequence.heads, position, head),
          Lab.rows(actual, size, head, head + 1),
          expected,
          Lab.fill(size, 5));
    }
  }

  /** Heads, windows, lengths and pieces at random: close to double, whole as piece by piece. */
  @Test
  void attention_random() {
    long seed = System.nanoTime();
    for (int i = 0; i < 12; i++) {
      try (Lab lab = lab(seed + i)) {
        int keyValues = 1 + lab.below(3);
        int size = 2 * (1 + lab.below(70));
        int window = lab.below(2) * (1 + lab.below(300));
        float scale = (float) (1 / Math.sqrt(size));
        Heads heads = new Heads(keyValues * (1 + lab.below(8)), keyValues, size, scale, window);
        KvShape.Type type = KvShape.Type.values()[lab.below(2)];
        int length = 1 + lab.below(400);
        Sequence sequence = sequence(lab, heads, length, 2);
        List<float[]> whole = outputs(lab, sequence, type, length);
        int[] cuts = new int[length];
        int count = 0;
        for (int to = 0; to < length; ) {
          to = Math.min(length, to + 1 + lab.below(3) * lab.below(90));
          cuts[count++] = to;
        }
        List<float[]> pieces = outputs(lab, sequence, type, Arrays.copyOf(cuts, count));
        for (int position = 0; position < length; position++) {
          lab.assertSame(
              "%s %s position %d".formatted(heads, type, position),
              pieces.get(position),
              whole.get(position));
        }
        for (int position : new int[] {lab.below(length), length - 1}) {
          checkAgainstDouble(lab, sequence, type, position, whole.get(position));
        }
      }
    }
  }

  /** One position after the other gives the bits of all at once, over the chunks' borders. */
  @ParameterizedTest
  @CsvSource({
    "8, 1, 64, 0, BF16", "1, 1, 64, 0, BF16", "3, 1, 32, 0, F32", "5, 1, 18, 90, BF16",
    "7, 1, 80, 0, BF16", "6, 3, 64, 128, F32", "4, 2, 128, 129, BF16", "2, 1, 64, 1, F32"
  })
  void attention_oneByOne(int queries, int keyValues, int size, int window, KvShape.Type type) {
    try (Lab lab = lab(size)) {
      int length = 262;
      Heads heads = new Heads(queries, keyValues, size, 0.1f, window);
      Sequence sequence = sequence(lab, heads, length, 0);
      int[] singly = new int[length];
      Arrays.setAll(singly, i -> i + 1);
      List<float[]> reference = outputs(lab, sequence, type, singly);
      for (int[] cuts :
          new int[][] {{length}, {127, 128, 129, 255, 257, length}, {64, 200, length}}) {
        List<float[]> outputs = outputs(lab, sequence, type, cuts);
        for (int position = 0; position < length; position++) {
          lab.assertSame(
              "position %d, cuts %s".formatted(position, Arrays.toString(cuts)),
              outputs.get(position),
              reference.get(position));
        }
      }
    }
  }

  /** Numbers that are not finite reach the rows that see them and no others. */
  @ParameterizedTest
  @CsvSource({"0, F32", "0, BF16", "40, BF16"})
  void attention_notFinite(int window, KvShape.Type type) {
    try (Lab lab = lab(6)) {
      Heads heads = new Heads(3, 1, 32, 0.2f, window);
      int length = 150;
      int bad = 70;
      Sequence clean = sequence(lab, heads, length, 0);
      Sequence neighbour = sequence(lab, heads, length, 12);
      Arrays.fill(neighbour.k, Float.NaN);
      Arrays.fill(neighbour.v, Float.NEGATIVE_INFINITY);
      List<float[]> reference = outputs(lab, clean, type, length);
      KvCache cache = lab.cache(new KvShape(1, 1, 32, 24, type));
      clean.v[bad * 32 + 5] = Float.POSITIVE_INFINITY;
      clean.v[bad * 32 + 6] = Float.NaN;
      List<List<float[]>> outputs = List.of(new ArrayList<>(), new ArrayList<>());
      int[] from = {0, 0};
      for (int[] to : new int[][] {{30, 17}, {length, length}}) {
        run(lab, List.of(neighbour, clean), from, to, cache, 0, outputs);
        from = to;
      }
      for (int position = 0; position < length; position++) {
        float[] actual = outputs.get(1).get(position);
        boolean sees = position >= bad && (window == 0 || position < bad + window);
        if (sees) {
          assertThat(actual[5]).as("position %d", position).isEqualTo(Float.POSITIVE_INFINITY);
          assertThat(actual[6]).as("position %d", position).isNaN();
          actual[5] = reference.get(position)[5];
          actual[6] = reference.get(position)[6];
          for (int head = 1; head < 3; head++) {
            actual[head * 32 + 5] = reference.get(position)[head * 32 + 5];
            actual[head * 32 + 6] = reference.get(position)[head * 32 + 6];
          }
        }
        lab.assertSame("position " + position, actual, reference.get(position));
        assertThat(outputs.get(0).get(position)[0]).isNaN();
      }
    }
  }

  @Test
  void rope_matchesRotationBitForBit() {
    try (Lab lab = lab(2)) {
      Heads heads = new Heads(2, 1, 6, 1, 0);
      KvCache cache = lab.cache(new KvShape(1, 1, 6, 1, KvShape.Type.F32));
      float[] q = lab.floats(3 * 12);
      Tables tables = tables(8, 6);
      Buffer queries = lab.buffer(q, 12);
      Step step =
          lab.keep(
              lab.backend.step(
                  new Batch(
                      new int[3],
                      List.of(new Batch.Run(0, 3, 5, new int[] {0})),
                      List.of(new Batch.Segment(0, 3, null)),
                      new int[0])));
      lab.backend.rope(
          step,
          heads,
          lab.buffer(tables.cos, 3),
          lab.buffer(tables.sin, 3),
          queries,
          lab.buffer(lab.floats(18), 6),
          lab.buffer(lab.floats(18), 6),
          cache,
          0);
      float[] actual = lab.read(queries);
      for (int row = 0; row < 3; row++) {
        for (int head = 0; head < 2; head++) {
          float[] expected = rotated(q, row, 2, head, 6, tables, 5 + row, false);
          lab.assertSame(
              "row " + row, Lab.rows(actual, 6, row * 2 + head, row * 2 + head + 1), expected);
        }
      }
    }
  }

  /**
   * A sequence's outputs have the same bits however its prefill is cut and whoever is beside it.
   */
  @ParameterizedTest
  @CsvSource({"0, F32", "0, BF16", "11, F32"})
  void attention_chunksAndNeighbours(int window, KvShape.Type type) {
    try (Lab lab = lab(3)) {
      Heads heads = new Heads(4, 2, 24, 0.2f, window);
      Sequence one = sequence(lab, heads, 53, 0);
      Sequence two = sequence(lab, heads, 37, 4);
      List<List<float[]>> reference = null;
      int[][] cuts = {{53}, {1, 53}, {16, 32, 48, 53}, {17, 18, 40, 53}, {7, 14, 21, 28, 52, 53}};
      for (int[] cut : cuts) {
        KvCache cache = lab.cache(new KvShape(1, 2, 24, 8, type));
        List<List<float[]>> outputs = List.of(new ArrayList<>(), new ArrayList<>());
        int from = 0;
        for (int to : cut) {
          // The neighbour takes part in every other step, in pieces of its own.
          int first = Math.min(37, from);
          int last = Math.min(37, to);
          run(
              lab,
              List.of(two, one),
              new int[] {first, from},
              new int[] {last, to},
              cache,
              0,
              List.of(outputs.get(1), outputs.get(0)));
          from = to;
        }
        if (reference == null) {
          KvCache alone = lab.cache(new KvShape(1, 2, 24, 8, type));
          reference = List.of(new ArrayList<>(), new ArrayList<>());
          run(lab, List.of(one), new int[] {0}, new int[] {53}, alone, 0, reference);
          run(
              lab,
              List.of(two),
              new int[] {0},
              new int[] {37},
              alone,
              0,
              List.of(reference.get(1)));
        }
        for (int s = 0; s < 2; s++) {
          assertThat(outputs.get(s)).hasSameSizeAs(reference.get(s));
          for (int p = 0; p < outputs.get(s).size(); p++) {
            lab.assertSame(
                "sequence %d position %d cut %s".formatted(s, p, Arrays.toString(cut)),
                outputs.get(s).get(p),
                reference.get(s).get(p));
          }
        }
      }
    }
  }

  /** What an earlier owner left in a block, NaN even, never shows. */
  @Test
  void attention_staleBlocks() {
    try (Lab lab = lab(4)) {
      Heads heads = new Heads(1, 1, 16, 1, 5);
      KvCache cache = lab.cache(new KvShape(1, 1, 16, 2, KvShape.Type.F32));
      Sequence stale = sequence(lab, heads, 32, 0);
      Arrays.fill(stale.k, Float.NaN);
      Arrays.fill(stale.v, Float.POSITIVE_INFINITY);
      run(lab, List.of(stale), new int[] {0}, new int[] {32}, cache, 0, List.of(new ArrayList<>()));
      Sequence fresh = sequence(lab, heads, 20, 0);
      List<List<float[]>> outputs = List.of(new ArrayList<>());
      run(lab, List.of(fresh), new int[] {0}, new int[] {20}, cache, 0, outputs);
      for (float[] row : outputs.get(0)) {
        for (float x : row) {
          assertThat(x).isFinite();
        }
      }
    }
  }

  @Test
  void attention_tablesThatDoNotFit() {
    try (Lab lab = lab(5)) {
      Heads heads = new Heads(1, 1, 4, 1, 0);
      KvCache cache = lab.cache(new KvShape(1, 1, 4, 1, KvShape.Type.F32));
      Buffer row = lab.buffer(1, 4);
      Buffer table = lab.buffer(4, 2);
      for (Batch.Run run :
          List.of(
              new Batch.Run(0, 1, 0, new int[] {1}),
              new Batch.Run(0, 1, 0, new int[] {-1}),
              new Batch.Run(0, 1, 4, new int[] {0}))) {
        Step step =
            lab.keep(
                lab.backend.step(
                    new Batch(
                        new int[1],
                        List.of(run),
                        List.of(new Batch.Segment(0, 1, null)),
                        new int[0])));
        assertThatThrownBy(
                () -> lab.backend.rope(step, heads, table, table, row, row, row, cache, 0))
            .isInstanceOf(IllegalArgumentException.class);
      }
      assertThatThrownBy(
              () ->
                  lab.backend.attention(lab.step(1), new Heads(1, 1, 6, 1, 0), row, cache, 0, row))
          .isInstanceOf(IllegalArgumentException.class);
      assertThatThrownBy(
              () -> lab.backend.attention(lab.step(1), heads, row, cache, 1, lab.buffer(1, 4)))
          .isInstanceOf(IllegalArgumentException.class);
    }
  }
}
