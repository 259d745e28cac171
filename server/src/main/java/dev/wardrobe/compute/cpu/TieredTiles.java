package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.DenseMatrix;
import dev.wardrobe.quant.FloatSource;
import dev.wardrobe.quant.QuantException;
import dev.wardrobe.quant.QuantOptions;
import dev.wardrobe.quant.QuantType;
import dev.wardrobe.quant.QuantizedMatrix;
import dev.wardrobe.safetensors.DType;
import java.lang.foreign.MemorySegment;
import java.time.Duration;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/**
 * Tiles in plain Java until those on the Vector API are compiled and faster, as {@link
 * TieredKernels}, and {@link Avx512Tiles} from the start for weights that it takes. They are
 * drilled by themselves, so that only who asks for the fast mode waits for them.
 */
final class TieredTiles implements Tiles {
  /** After this others may have the compiler: under load a turn is not always enough. */
  private static final Duration TURN = Duration.ofSeconds(10);

  /** What a turn shrinks to when it has been in vain. */
  private static final Duration SHORTEST_TURN = Duration.ofMillis(50);

  /** What the pause between turns grows to. */
  private static final Duration LONGEST_PAUSE = Duration.ofMinutes(1);

  /** How seldom the plain code runs beside the vector code. */
  private static final int PLAIN_EVERY = 16;

  /** Times in a row that the vector code must win. */
  private static final int WINS = 5;

  private final Tiles plain = new ScalarTiles();
  private final Tiles vector = new VectorTiles();
  private final @Nullable Avx512Tiles generated = Avx512Tiles.load();
  private final CountDownLatch drilled = new CountDownLatch(1);
  private volatile Tiles tiles = plain;

  private TieredTiles() {}

  /** One for the whole process, as its compiled code is. */
  static TieredTiles shared() {
    return Shared.TILES;
  }

  private static final class Shared {
    static final TieredTiles TILES = new TieredTiles();

    static {
      Thread thread = new Thread(TILES::drill, "wardrobe-warm-up-tiles");
      thread.setDaemon(true);
      thread.start();
    }
  }

  /** Waits until the vector code is in use; false if it is not after that time. */
  boolean awaitDrilled(long nanos) throws InterruptedException {
    return drilled.await(nanos, TimeUnit.NANOSECONDS);
  }

  private void drill() {
    NativeMemory.Region region = new NativeMemory().region();
    try {
      int inputs = 256;
      float[] numbers = new float[150 * inputs];
      for (int i = 0; i < numbers.length; i++) {
        numbers[i] = i * 37 % 101 / 50f - 1;
      }
      List<Panels> panels =
          List.of(
              quantized(numbers, 150, inputs, region),
              quantized(numbers, 20, 80, region),
              dense(DType.BF16, numbers, 150, inputs, region),
              dense(DType.F16, numbers, 20, 131, region));
      MemorySegment tile = region.allocate("drill", 2L * OneDnn.TILE_ROWS * inputs);
      Scratch scratch = new Scratch();
      Duration turn = TURN;
      Duration pause = Duration.ofSeconds(1);
      while (!wins(panels, numbers, tile, scratch, turn)) {
        Thread.sleep(pause);
        turn = Collections.max(List.of(SHORTEST_TURN, turn.dividedBy(2)));
        pause = Collections.min(List.of(LONGEST_PAUSE, pause.multipliedBy(2)));
      }
      tiles = vector;
      drilled.countDown();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    } finally {
      region.close();
    }
  }

  /** Whether the vector code wins a few times in a row before the turn is over. */
  private boolean wins(
      List<Panels> panels, float[] numbers, MemorySegment tile, Scratch scratch, Duration turn) {
    long end = System.nanoTime() + turn.toNanos();
    long limit = Long.MAX_VALUE;
    int wins = 0;
    for (int round = 0; wins < WINS && end - System.nanoTime() > 0; round++) {
      long start = System.nanoTime();
      if (round % PLAIN_EVERY == 0) {
        exercise(plain, panels, numbers, tile, scratch);
        long between = System.nanoTime();
        limit = Math.min(limit, between - start);
        start = between;
      }
      exercise(vector, panels, numbers, tile, scratch);
      wins = System.nanoTime() - start < limit ? wins + 1 : 0;
    }
    return wins == WINS;
  }

  private static void exercise(
      Tiles tiles, List<Panels> panels, float[] numbers, MemorySegment tile, Scratch scratch) {
    for (Panels w : panels) {
      for (int panel = 0; panel < w.panels(); panel++) {
        tiles.pairs(w, panel, 0, w.cols(), tile, 0, scratch);
        tiles.columns(w, panel, 0, Math.min(Panels.UNIT, w.cols()), tile, 0, 64, scratch);
      }
      tiles.round(numbers, 0, 1999, tile, 0);
    }
  }

  private static Panels quantized(float[] numbers, int rows, int cols, NativeMemory.Region region) {
    try {
      return new NibblePanels(
          QuantizedMatrix.quantize(
              FloatSource.of("drill", Arrays.copyOf(numbers, rows * cols)),
              rows,
              cols,
              new QuantOptions(QuantType.NF4, 64, true),
              "float32"),
          region);
    } catch (QuantException e) {
      throw new IllegalStateException(e);
    }
  }

  private static Panels dense(
      DType dtype, float[] numbers, int rows, int cols, NativeMemory.Region region) {
    MemorySegment data = MemorySegment.ofArray(new byte[rows * cols * dtype.bytes()]);
    dtype.narrow(numbers, 0, rows * cols, data, 0);
    return new DensePanels(new DenseMatrix(dtype, rows, cols, data), region);
  }

  @Override
  public void round(float[] x, int from, int count, MemorySegment to, long at) {
    tiles.round(x, from, count, to, at);
  }

  @Override
  public void pairs(
      Panels w, int panel, int k, int count, MemorySegment tile, long at, Scratch scratch) {
    if (generated != null && w instanceof NibblePanels n && Avx512Tiles.takes(n, count)) {
      generated.pairs(n, panel, k, count, tile, at, scratch);
    } else {
      tiles.pairs(w, panel, k, count, tile, at, scratch);
    }
  }

  @Override
  public void columns(
      Panels w,
      int panel,
      int k,
      int count,
      MemorySegment tile,
      long at,
      long stride,
      Scratch scratch) {
    boolean whole = (panel + 1) * Panels.HEIGHT <= w.rows();
    if (generated != null && whole && w instanceof NibblePanels n && Avx512Tiles.takes(n, count)) {
      generated.columns(n, panel, k, count, tile, at, stride, scratch);
    } else {
      tiles.columns(w, panel, k, count, tile, at, stride, scratch);
    }
  }
}
