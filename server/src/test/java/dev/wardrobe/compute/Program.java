package dev.wardrobe.compute;

import dev.wardrobe.quant.QuantType;
import dev.wardrobe.safetensors.DType;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Every operation at odd sizes with numbers from one seed, and all their results: two backends that
 * promise the same bits must give equal programs.
 */
public final class Program {
  private final Lab lab;
  private final Map<String, float[]> results = new LinkedHashMap<>();

  private Program(Lab lab) {
    this.lab = lab;
  }

  /** Runs everything; results by what they are of. */
  public static Map<String, float[]> run(Lab lab) {
    Program program = new Program(lab);
    program.projections();
    program.adapters();
    program.mixes();
    program.rows();
    program.attention();
    program.samples();
    return program.results;
  }

  private void projections() {
    int[][] shapes = {
      {1, 64, 64},
      {15, 64, 64},
      {16, 128, 64},
      {17, 192, 64},
      {33, 256, 128},
      {20, 512, 256},
      {50, 80, 64},
      {31, 112, 64},
      {18, 96, 32},
      {65, 7, 64},
      {40, 1216, 64},
      {200, 64, 64}
    };
    DType[] dtypes = {DType.BF16, DType.F32, DType.F16};
    for (int i = 0; i < shapes.length; i++) {
      int out = shapes[i][0];
      int in = shapes[i][1];
      QuantType type = i % 3 == 1 ? QuantType.FP4 : QuantType.NF4;
      boolean nested = i % 4 != 2;
      project(
          "%s%s (%d, %d)/%d".formatted(type, nested ? "-dq" : "", out, in, shapes[i][2]),
          lab.matrix(lab.quantized(out, in, type, shapes[i][2], nested)));
      DType dtype = dtypes[i % 3];
      project("%s (%d, %d)".formatted(dtype, out, in), lab.matrix(lab.dense(dtype, out, in)));
    }
  }

  private void project(String what, Matrix w) {
    int out = w.rows();
    int in = w.cols();
    DType[] dtypes = {DType.BF16, DType.F16, DType.F32};
    List<Lora> loras = new ArrayList<>();
    for (int i = 0; i < 3; i++) {
      int rank = new int[] {1, 8, 19}[i];
      Delta.LowRank factors =
          new Delta.LowRank(lab.dense(dtypes[i], rank, in), lab.dense(dtypes[i], out, rank));
      loras.add(
          lab.lora(
              Map.of(
                  0,
                  new Delta(
                      factors,
                      1.5f,
                      i == 1 ? lab.floats(out) : null,
                      i == 2 ? lab.floats(out) : null,
                      i == 0 ? lab.floats(out) : null,
                      null)),
              Map.of(0, w)));
    }
    Linear linear = new Linear(0, w, lab.buffer(lab.floats(out), out));
    int[] sizes = out == 17 ? new int[] {1, 70} : new int[] {1, 2, 13};
    for (int tokens : sizes) {
      List<Batch.Segment> segments = new ArrayList<>();
      int from = 0;
      for (int i = 0; from < tokens; i++) {
        int to = Math.min(tokens, from + 1 + i * i);
        segments.add(new Batch.Segment(from, to, i % 4 == 0 ? null : loras.get(i % 4 - 1)));
        from = to;
      }
      Buffer y = lab.buffer(tokens, out);
      float[] x = lab.floats(tokens * in);
      if (tokens == 13) {
        x[0] = Float.NaN;
        x[in] = Float.NEGATIVE_INFINITY;
        x[2 * in] = Float.MIN_VALUE;
        x[3 * in] = -0.0f;
        x[4 * in] = 1e38f;
      }
      Step step = lab.step(tokens, segments.toArray(Batch.Segment[]::new));
      lab.backend.linear(step, List.of(linear), lab.buffer(x, in), List.of(y));
      results.put(what + " x " + tokens, lab.read(y));
      Buffer dx = lab.buffer(lab.floats(tokens * in), in);
      lab.backend.gradients().linearInput(w, tokens, y, dx);
      results.put(what + " gradient x " + tokens, lab.read(dx));
    }
  }

  /** Segments of one token and of more, at ranks and widths that fill lines and that do not. */
  private void adapters() {
    int[][] shapes = {{16, 32}, {200, 64}, {77, 131}, {5, 15}, {96, 80}, {129, 300}};
    int[] ranks = {1, 3, 4, 7, 8, 16, 21, 32, 64, 200, 256};
    DType[] dtypes = {DType.BF16, DType.F16, DType.F32};
    for (int[] shape : shapes) {
      int out = shape[0];
      int in = shape[1];
      Matrix w = lab.matrix(lab.dense(DType.BF16, out, in));
      Linear linear = new Linear(0, w, null);
      List<Batch.Segment> segments = new ArrayList<>();
      int row = 0;
      for (int i = 0; i < ranks.length; i++) {
        DType dtype = dtypes[(i + in) % 3];
        Delta.LowRank factors =
            new Delta.LowRank(lab.dense(dtype, ranks[i], in), lab.dense(dtype, out, ranks[i]));
        float[] loraBias = i % 4 == 1 ? lab.floats(out) : null;
        float[] magnitude = i % 4 == 2 ? lab.floats(out) : null;
        float[] bias = i % 4 == 3 ? lab.floats(out) : null;
        DenseMatrix replaced = i % 5 == 4 ? lab.dense(DType.BF16, out, in) : null;
        Delta delta = new Delta(factors, 0.7f, magnitude, loraBias, bias, replaced);
        Lora lora = lab.lora(Map.of(0, delta), Map.of(0, w));
        for (int count : new int[] {1, i % 7 + 1}) {
          segments.add(new Batch.Segment(row, row + count, lora));
          segments.add(new Batch.Segment(row + count, row + count + 1, null));
          row += count + 1;
        }
      }
      Buffer y = lab.buffer(row, out);
      lab.backend.linear(
          lab.step(row, segments.toArray(Batch.Segment[]::new)),
          List.of(linear),
          lab.buffer(lab.floats(row * in), in),
          List.of(y));
      results.put("adapters (%d, %d)".formatted(out, in), lab.read(y));
    }
  }

  /** Two to four adapters on the same rows, in every order of types and of ranks. */
  private void mixes() {
    int[][] shapes = {{16, 32}, {200, 64}, {77, 131}, {5, 15}};
    int[] ranks = {8, 2, 16, 3, 64, 21};
    DType[] dtypes = {DType.BF16, DType.F32, DType.F16};
    for (int[] shape : shapes) {
      int out = shape[0];
      int in = shape[1];
      Matrix w = lab.matrix(lab.dense(DType.BF16, out, in));
      Linear linear = new Linear(0, w, lab.buffer(lab.floats(out), out));
      List<Lora> loras = new ArrayList<>();
      for (int i = 0; i < 18; i++) {
        DType dtype = dtypes[i % 3];
        int rank = ranks[i / 3];
        Delta.LowRank factors =
            new Delta.LowRank(lab.dense(dtype, rank, in), lab.dense(dtype, out, rank));
        float[] loraBias = i % 5 == 4 ? lab.floats(out) : null;
        Delta delta = new Delta(factors, 0.7f, null, loraBias, null, null);
        loras.add(lab.lora(Map.of(0, delta), Map.of(0, w)));
      }
      List<Batch.Segment> segments = new ArrayList<>();
      int row = 0;
      for (int i = 0; i < 40; i++) {
        int end = row + (i % 4 == 3 ? 1 + i % 7 : 1);
        int count = 2 + i % 3;
        for (int j = 0; j < count; j++) {
          Lora lora = loras.get(lab.below(loras.size()));
          segments.add(new Batch.Segment(row, end, lora, lab.floats(1)[0]));
        }
        row = end;
      }
      Buffer y = lab.buffer(row, out);
      lab.backend.linear(
          lab.step(row, segments.toArray(Batch.Segment[]::new)),
          List.of(linear),
          lab.buffer(lab.floats(row * in), in),
          List.of(y));
      results.put("mixes (%d, %d)".formatted(out, in), lab.read(y));
    }
  }

  private void rows() {
    for (int width : new int[] {1, 3, 15, 16, 17, 40, 63, 64, 300}) {
      float[] wild = lab.floats(5 * width, 30);
      wild[0] = -200;
      wild[width] = 1e-40f;
      wild[2 * width] = 1e30f;
      Buffer residual = lab.buffer(wild, width);
      Buffer x = lab.buffer(lab.floats(5 * width), width);
      Buffer weight = lab.buffer(lab.floats(width), width);
      Buffer out = lab.buffer(5, width);
      Step step = lab.step(5);
      lab.backend.activate(step, residual, x, out);
      results.put("activate " + width, lab.read(out));
      lab.backend.norm(step, 0, residual, x, weight, 1e-5f, out);
      results.put("norm " + width, lab.read(out));
      results.put("residual " + width, lab.read(residual));
      lab.backend.normHeads(
          step,
          0,
          x,
          width % 3 == 0 ? width / 3 : width,
          lab.buffer(
              lab.floats(width % 3 == 0 ? width / 3 : width), width % 3 == 0 ? width / 3 : width),
          1e-6f);
      results.put("heads " + width, lab.read(x));
    }
  }

  private void attention() {
    for (int size : new int[] {2, 18, 32, 64, 80, 100}) {
      for (KvShape.Type type : KvShape.Type.values()) {
        for (int window : new int[] {0, 21}) {
          attention(size, type, window);
        }
      }
    }
    longAttention(new Heads(7, 1, 64, 0.125f, 0), KvShape.Type.BF16);
    longAttention(new Heads(8, 1, 96, 0.1f, 140), KvShape.Type.F32);
    longAttention(new Heads(3, 3, 40, 0.2f, 0), KvShape.Type.BF16);
  }

  /** Two sequences over some chunks of positions: prefill, then one decodes beside the other. */
  private void longAttention(Heads heads, KvShape.Type type) {
    KvCache cache = lab.cache(new KvShape(1, heads.keyValues(), heads.size(), 42, type));
    int[] one = new int[21];
    int[] two = new int[21];
    for (int i = 0; i < 21; i++) {
      one[i] = 41 - 2 * i;
      two[i] = 2 * i;
    }
    int[][] parts = {{0, 127, 0, 3}, {127, 300, 3, 5}, {300, 301, 5, 260}, {301, 302, 260, 261}};
    for (int[] part : parts) {
      int first = part[1] - part[0];
      int rows = first + part[3] - part[2];
      List<Batch.Run> runs =
          List.of(new Batch.Run(0, first, part[0], one), new Batch.Run(first, rows, part[2], two));
      Step step =
          lab.keep(
              lab.backend.step(
                  new Batch(
                      new int[rows], runs, List.of(new Batch.Segment(0, rows, null)), new int[0])));
      int half = heads.size() / 2;
      int keys = heads.keyValues() * heads.size();
      Buffer q =
          lab.buffer(
              lab.floats(rows * heads.queries() * heads.size(), 2), heads.queries() * heads.size());
      lab.backend.rope(
          step,
          heads,
          lab.buffer(lab.floats(302 * half), half),
          lab.buffer(lab.floats(302 * half), half),
          q,
          lab.buffer(lab.floats(rows * keys), keys),
          lab.buffer(lab.floats(rows * keys), keys),
          cache,
          0);
      Buffer out = lab.buffer(rows, heads.queries() * heads.size());
      lab.backend.attention(step, heads, q, cache, 0, out);
      results.put("%s %s from %d".formatted(heads, type, part[0]), lab.read(out));
    }
  }

  private void attention(int size, KvShape.Type type, int window) {
    Heads heads = new Heads(4, 2, size, 0.2f, window);
    KvCache cache = lab.cache(new KvShape(2, 2, size, 6, type));
    int[] lengths = {1, 37};
    int rows = 38;
    Batch batch =
        new Batch(
            new int[rows],
            List.of(
                new Batch.Run(0, lengths[0], 16, new int[] {4, 5}),
                new Batch.Run(1, rows, 0, new int[] {2, 0, 1})),
            List.of(new Batch.Segment(0, rows, null)),
            new int[0]);
    Step step = lab.keep(lab.backend.step(batch));
    Buffer q = lab.buffer(lab.floats(rows * 4 * size, 2), 4 * size);
    lab.backend.rope(
        step,
        heads,
        lab.buffer(lab.floats(40 * size / 2), size / 2),
        lab.buffer(lab.floats(40 * size / 2), size / 2),
        q,
        lab.buffer(lab.floats(rows * 2 * size), 2 * size),
        lab.buffer(lab.floats(rows * 2 * size), 2 * size),
        cache,
        1);
    Buffer out = lab.buffer(rows, 4 * size);
    lab.backend.attention(step, heads, q, cache, 1, out);
    String what = "attention %d %s window %d".formatted(size, type, window);
    results.put(what + " q", lab.read(q));
    results.put(what, lab.read(out));
  }

  private void samples() {
    for (int width : new int[] {1, 15, 16, 17, 1023, 1025, 3000}) {
      Buffer logits = lab.buffer(lab.floats(3 * width, 4), width);
      List<Draw> draws = new ArrayList<>();
      int[] tokens = {0, width / 2, width - 1, 0};
      for (int i = 0; i < 24; i++) {
        draws.add(
            new Draw(
                i % 3,
                i % 5 == 4 ? width / 2 : -1,
                i % 4 * 0.6f,
                i % 2 * 40,
                i % 3 == 2 ? 0.8f : 1,
                i % 6 == 5 ? 0.05f : 0,
                i % 7 == 6 ? 1.3f : 1,
                i % 8 == 7 ? 0.5f : 0,
                0,
                tokens,
                1,
                4,
                i * 0x123456789L,
                i,
                i == 0 ? Draw.ALL : i % 9));
      }
      int i = 0;
      lab.backend.sample(lab.step(1), logits, draws);
      for (Draw draw : draws) {
        Draw.Outcome outcome = draw.outcome();
        String what = "sample %d of %d".formatted(i++, width);
        results.put(what, new float[] {outcome.token(), outcome.logprob()});
        results.put(what + " top", outcome.topLogprobs());
      }
    }
  }
}
