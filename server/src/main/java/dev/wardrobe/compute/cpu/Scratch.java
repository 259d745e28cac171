package dev.wardrobe.compute.cpu;

import org.jspecify.annotations.Nullable;

/** One worker's working memory; grows, and is kept from call to call. */
final class Scratch {
  /** Tokens for which a tile of weights is used before the next is decoded. */
  static final int TOKENS = 64;

  /**
   * Names the inputs of several calls as one and the same, so that what was made of them may be
   * used again; 0 if nothing is known of them.
   */
  long inputs;

  /** What is read after the panels that are worked on. */
  final Ahead ahead = new Ahead();

  /** What is shrunk by many adapters at once. */
  final Shrinks shrinks = new Shrinks();

  /** A tile: {@code (inputs of a unit, 32 rows)}. */
  final float[] tile = new float[Panels.UNIT * Panels.HEIGHT];

  /** Sums of a unit's inputs: {@code (inputs of a unit, tokens)}. */
  final float[] gradients = new float[Panels.UNIT * TOKENS];

  /** Sums of a panel: {@code (tokens, 32 rows)}. */
  final float[] sums = new float[TOKENS * Panels.HEIGHT];

  /** Codes of a tile. */
  final int[] words = new int[Panels.UNIT / NibblePanels.GROUP * Panels.HEIGHT];

  /** Two chains of a panel's rows. */
  final float[] chains = new float[2 * Panels.HEIGHT];

  /** What a panel's rows scale their scales by. */
  final float[] outer = new float[Panels.HEIGHT];

  /** Lanes of up to eight sums. */
  final float[] lanes = new float[8 * Elementary.LANES];

  /** What a random number is mixed of. */
  final int[] counter = new int[4];

  /** Where sums of what was read only to be near go, so that it is read. */
  long touched;

  private Avx512Projections.@Nullable Frame frame;
  private Bfloat16Projections.@Nullable Frame fastFrame;
  private Avx512Tiles.@Nullable Frame tilesFrame;
  private Avx512Adapters.@Nullable Frame adapterFrame;
  private InputGradients.@Nullable Frame gradientsFrame;
  private Avx512Products.@Nullable Frame productsFrame;
  private Avx512Attention.@Nullable Frame attentionFrame;
  private Avx512Rows.@Nullable Frame rowsFrame;
  private float[] scales = new float[0];
  private float[] scores = new float[0];
  private float[] chunk = new float[0];
  private float[] queries = new float[0];
  private float[] states = new float[0];
  private float[] row = new float[0];
  private int[] marks = new int[0];
  private int[] tokens = new int[0];
  private double[] sums64 = new double[0];
  private long[] order = new long[0];
  private int[] turns = new int[0];
  private byte[] bytes = new byte[0];
  private short[] shorts = new short[0];

  /** What generated code takes and gives. */
  Avx512Projections.Frame frame() {
    Avx512Projections.Frame frame = this.frame;
    if (frame == null) {
      frame = new Avx512Projections.Frame();
      this.frame = frame;
    }
    return frame;
  }

  /** What generated code of the fast mode takes. */
  Bfloat16Projections.Frame fastFrame() {
    Bfloat16Projections.Frame frame = fastFrame;
    if (frame == null) {
      frame = new Bfloat16Projections.Frame();
      fastFrame = frame;
    }
    return frame;
  }

  /** What generated code for tiles takes. */
  Avx512Tiles.Frame tilesFrame() {
    Avx512Tiles.Frame frame = tilesFrame;
    if (frame == null) {
      frame = new Avx512Tiles.Frame();
      tilesFrame = frame;
    }
    return frame;
  }

  /** The same for adapters. */
  Avx512Adapters.Frame adapterFrame() {
    Avx512Adapters.Frame frame = adapterFrame;
    if (frame == null) {
      frame = new Avx512Adapters.Frame();
      adapterFrame = frame;
    }
    return frame;
  }

  /** The same for input gradients. */
  InputGradients.Frame gradientsFrame() {
    InputGradients.Frame frame = gradientsFrame;
    if (frame == null) {
      frame = new InputGradients.Frame();
      gradientsFrame = frame;
    }
    return frame;
  }

  /** The same for products of factors. */
  Avx512Products.Frame productsFrame() {
    Avx512Products.Frame frame = productsFrame;
    if (frame == null) {
      frame = new Avx512Products.Frame();
      productsFrame = frame;
    }
    return frame;
  }

  /** The same for attention over whole sequences. */
  Avx512Attention.Frame attentionFrame() {
    Avx512Attention.Frame frame = attentionFrame;
    if (frame == null) {
      frame = new Avx512Attention.Frame();
      attentionFrame = frame;
    }
    return frame;
  }

  /** The same for single elements and rows. */
  Avx512Rows.Frame rowsFrame() {
    Avx512Rows.Frame frame = rowsFrame;
    if (frame == null) {
      frame = new Avx512Rows.Frame();
      rowsFrame = frame;
    }
    return frame;
  }

  /** Scales of a panel. */
  float[] scales(int count) {
    if (scales.length < count) {
      scales = new float[count];
    }
    return scales;
  }

  /** Attention scores, then weights: {@code (queries, positions of a chunk)}. */
  float[] scores(int count) {
    if (scores.length < count) {
      scores = new float[count];
    }
    return scores;
  }

  /** Keys of a chunk, then values, in float32. */
  float[] chunk(int count) {
    if (chunk.length < count) {
      chunk = new float[count];
    }
    return chunk;
  }

  /** Queries of a tile, scaled. */
  float[] queries(int count) {
    if (queries.length < count) {
      queries = new float[count];
    }
    return queries;
  }

  /** What the queries of a tile have seen. */
  float[] states(int count) {
    if (states.length < count) {
      states = new float[count];
    }
    return states;
  }

  /** A row of weights or logits. */
  float[] row(int count) {
    if (row.length < count) {
      row = new float[count];
    }
    return row;
  }

  /** Counts by token, all zero; whoever takes them leaves them so. */
  int[] marks(int count) {
    if (marks.length < count) {
      marks = new int[count];
    }
    return marks;
  }

  /** Token ids. */
  int[] tokens(int count) {
    if (tokens.length < count) {
      tokens = new int[count];
    }
    return tokens;
  }

  /** Sums in double precision. */
  double[] sums(int count) {
    if (sums64.length < count) {
      sums64 = new double[count];
    }
    return sums64;
  }

  /** Tokens to be sorted; twice the room, since another draw may have some more. */
  long[] order(int count) {
    if (order.length < count) {
      order = new long[2 * count];
    }
    return order;
  }

  /** Where rows of a panel turn to the next of the values that scale their scales. */
  int[] turns(int count) {
    if (turns.length < count) {
      turns = new int[count];
    }
    return turns;
  }

  /** Codes of scales. */
  byte[] bytes(int count) {
    if (bytes.length < count) {
      bytes = new byte[count];
    }
    return bytes;
  }

  /** 16-bit floats. */
  short[] shorts(int count) {
    if (shorts.length < count) {
      shorts = new short[count];
    }
    return shorts;
  }
}
