package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.PackedMatrix;
import dev.wardrobe.quant.QuantizedMatrix;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * A 4-bit matrix: panel by panel, within a panel for each group of 8 inputs 32 ints, one a row,
 * with input j of the group in bits 4j to 4j+3. The scales stay as stored, 8-bit codes where they
 * are doubly quantized, and are decoded when used.
 *
 * <p>Where blocks end with the rows ({@link #aligned}), a panel's scales lie together, for each
 * block those of 32 rows; else they keep their order.
 */
final class NibblePanels implements Panels {
  /** Inputs of an int. */
  static final int GROUP = 8;

  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfByte BYTE = ValueLayout.JAVA_BYTE;

  private final int rows;
  private final int cols;
  private final int groups;
  private final int blockSize;
  private final boolean aligned;
  private final float[] codebook;
  private final MemorySegment packed;
  private final MemorySegment absmax;
  private final @Nullable Nested nested;
  private final NativeMemory.Region region;

  /** What decodes an 8-bit scale: {@code map[code] · absmax[i / blockSize] + offset}. */
  private record Nested(
      MemorySegment absmax, float[] map, short[] halves, int blockSize, float offset) {
    Nested(MemorySegment absmax, float[] map, int blockSize, float offset) {
      this(absmax, map, new short[2 * map.length], blockSize, offset);
      for (int i = 0; i < map.length; i++) {
        int bits = Float.floatToRawIntBits(map[i]);
        halves[i] = (short) (bits >>> 16);
        halves[map.length + i] = (short) bits;
      }
    }
  }

  NibblePanels(QuantizedMatrix source, NativeMemory.Region region) {
    rows = source.rows();
    cols = source.cols();
    blockSize = source.blockSize();
    groups = (cols + GROUP - 1) / GROUP;
    aligned = cols % blockSize == 0 && blockSize % 32 == 0;
    codebook = source.codebook();
    this.region = region;
    String what = "%s matrix (%d, %d)".formatted(source.type(), rows, cols);

    packed = region.allocate(what, NativeMemory.multiply(what, panels(), groups, HEIGHT, 4));
    pack(source.packed());

    boolean doubleQuant = source.doubleQuant();
    int size = doubleQuant ? 1 : 4;
    MemorySegment stored = doubleQuant ? source.absmaxCodes() : source.absmaxPlain();
    if (aligned) {
      int blocks = blocksPerRow();
      absmax = region.allocate(what, NativeMemory.multiply(what, panels(), blocks, HEIGHT, size));
      for (int row = 0; row < rows; row++) {
        long first = (long) row * blocks;
        for (int block = 0; block < blocks; block++) {
          long to = panelOrder(row, block);
          if (doubleQuant) {
            absmax.set(BYTE, to, stored.get(BYTE, first + block));
          } else {
            absmax.set(FLOAT, 4 * to, stored.get(FLOAT, 4 * (first + block)));
          }
        }
      }
    } else {
      absmax = region.allocate(what, stored.byteSize());
      absmax.copyFrom(stored);
    }
    if (doubleQuant) {
      float[] values = source.nestedAbsmax();
      MemorySegment resident = region.allocate(what, 4L * values.length);
      MemorySegment.copy(values, 0, resident, FLOAT, 0, values.length);
      nested =
          new Nested(resident, source.nestedMap(), source.nestedBlockSize(), source.nestedOffset());
    } else {
      nested = null;
    }
  }

  /**
   * The matrix that {@link #stored()} gave, over its parts as they lie there.
   *
   * @param form what follows the kind in the packed matrix's form
   * @throws IllegalArgumentException if the parts are not of the sizes that the form asks for
   */
  NibblePanels(ByteBuffer form, List<MemorySegment> parts, NativeMemory.Region region) {
    rows = form.getInt();
    cols = form.getInt();
    blockSize = form.getInt();
    boolean doubleQuant = form.getInt() == 1;
    PackedForm.check(rows > 0 && cols > 0 && blockSize >= 32 && Integer.bitCount(blockSize) == 1);
    groups = (cols + GROUP - 1) / GROUP;
    aligned = cols % blockSize == 0 && blockSize % 32 == 0;
    codebook = PackedForm.floats(form, 16);
    this.region = region;
    String what = "packed matrix (%d, %d)".formatted(rows, cols);
    PackedForm.check(parts.size() == (doubleQuant ? 3 : 2));
    packed = parts.get(0);
    PackedForm.size(packed, NativeMemory.multiply(what, panels(), groups, HEIGHT, 4));
    absmax = parts.get(1);
    long blocks = ((long) rows * cols + blockSize - 1) / blockSize;
    long scales = aligned ? NativeMemory.multiply(what, panels(), blocksPerRow(), HEIGHT) : blocks;
    PackedForm.size(absmax, doubleQuant ? scales : 4 * scales);
    if (doubleQuant) {
      int nestedBlockSize = form.getInt();
      PackedForm.check(nestedBlockSize > 0);
      float offset = form.getFloat();
      nested = new Nested(parts.get(2), PackedForm.floats(form, 256), nestedBlockSize, offset);
      PackedForm.size(nested.absmax, 4 * ((blocks + nestedBlockSize - 1) / nestedBlockSize));
    } else {
      nested = null;
    }
    PackedForm.check(!form.hasRemaining());
    parts.forEach(region::adopt);
  }

  @Override
  public PackedMatrix stored() {
    ByteBuffer form = PackedForm.of(PackedForm.NIBBLES, 4 * (4 + 16 + 2 + 256));
    form.putInt(rows).putInt(cols).putInt(blockSize).putInt(nested == null ? 0 : 1);
    PackedForm.put(form, codebook);
    if (nested == null) {
      return PackedForm.matrix(form, List.of(packed, absmax));
    }
    form.putInt(nested.blockSize).putFloat(nested.offset);
    PackedForm.put(form, nested.map);
    return PackedForm.matrix(form, List.of(packed, absmax, nested.absmax));
  }

  private void pack(MemorySegment from) {
    // A panel at a time and by way of arrays: the source may be a file that is read once, in order.
    int[] row = new int[groups];
    int[] panel = new int[Math.multiplyExact(groups, HEIGHT)];
    for (int first = 0; first < rows; first += HEIGHT) {
      int live = Math.min(HEIGHT, rows - first);
      for (int lane = 0; lane < HEIGHT; lane++) {
        if (lane >= live) {
          Arrays.fill(row, 0);
        } else if (cols % GROUP == 0) {
          readWhole(from, first + lane, row);
        } else {
          readSingly(from, first + lane, row);
        }
        for (int group = 0; group < groups; group++) {
          panel[group * HEIGHT + lane] = row[group];
        }
      }
      MemorySegment.copy(panel, 0, packed, INT, 4 * word(first / HEIGHT, 0), panel.length);
    }
  }

  private void readWhole(MemorySegment from, int row, int[] words) {
    MemorySegment.copy(from, INT, (long) row * cols / 2, words, 0, groups);
    for (int group = 0; group < groups; group++) {
      // Stored with the even element in the high half of each byte.
      int pairs = words[group];
      words[group] = ((pairs & 0x0f0f0f0f) << 4) | ((pairs >>> 4) & 0x0f0f0f0f);
    }
  }

  private void readSingly(MemorySegment from, int row, int[] words) {
    Arrays.fill(words, 0);
    for (int k = 0; k < cols; k++) {
      long index = (long) row * cols + k;
      int pair = from.get(BYTE, index / 2);
      int code = index % 2 == 0 ? (pair >>> 4) & 15 : pair & 15;
      words[k / GROUP] |= code << (4 * (k % GROUP));
    }
  }

  @Override
  public int rows() {
    return rows;
  }

  @Override
  public int cols() {
    return cols;
  }

  /** Where the codes are: ints. */
  MemorySegment packed() {
    return packed;
  }

  /** The 16 values of the codes. */
  float[] codebook() {
    return codebook;
  }

  /** Whether blocks end with the rows, so that a unit has one scale a row. */
  boolean aligned() {
    return aligned;
  }

  int blockSize() {
    return blockSize;
  }

  /** Whether scales are 8-bit codes. */
  boolean doubleQuant() {
    return nested != null;
  }

  /** Where the scales are: 8-bit codes or floats. */
  MemorySegment absmax() {
    return absmax;
  }

  /** The values of 8-bit scales. */
  float[] map() {
    return Objects.requireNonNull(nested).map;
  }

  /** The values of 8-bit scales: the upper halves of their bits, then the lower. */
  short[] halves() {
    return Objects.requireNonNull(nested).halves;
  }

  /** What is added to each decoded scale. */
  float offset() {
    return Objects.requireNonNull(nested).offset;
  }

  int blocksPerRow() {
    return cols / blockSize;
  }

  /** Index in ints of the first of the 32 that hold {@code group} of {@code panel}. */
  long word(int panel, int group) {
    return ((long) panel * groups + group) * HEIGHT;
  }

  @Override
  public int unit() {
    return aligned ? Math.min(UNIT, blockSize) : UNIT;
  }

  private long panelOrder(int row, int block) {
    return ((long) (row / HEIGHT) * blocksPerRow() + block) * HEIGHT + row % HEIGHT;
  }

  /** Floats that {@link #scales} writes. */
  int scaleCount() {
    return aligned ? blocksPerRow() * HEIGHT : 0;
  }

  /** Decodes the scales of a panel to {@code out[at + block · 32 + row]}; {@link #aligned} only. */
  void scales(int panel, Scratch scratch, float[] out, int at) {
    int blocks = blocksPerRow();
    int count = blocks * HEIGHT;
    long from = (long) panel * count;
    Nested nested = this.nested;
    if (nested == null) {
      MemorySegment.copy(absmax, FLOAT, 4 * from, out, at, count);
      return;
    }
    byte[] codes = scratch.bytes(count);
    MemorySegment.copy(absmax, BYTE, from, codes, 0, count);
    lookUp(codes, nested.map, count, out, at);
    int[] turns = scratch.turns(maxTurns());
    int turnCount = turns(panel, scratch.outer, turns);
    int block = 0;
    for (int turn = 0; turn <= turnCount; turn++) {
      int end = turn == turnCount ? blocks : turns[turn] / HEIGHT;
      decode(out, at + block * HEIGHT, at + end * HEIGHT, scratch.outer, nested.offset);
      block = end;
      if (turn < turnCount) {
        turn(panel, turns[turn], scratch.outer);
      }
    }
  }

  /** What {@link #turns} may find. */
  int maxTurns() {
    return nested == null ? 0 : scaleCount() / nested.blockSize + 2;
  }

  /**
   * Leaves in {@code outer} what each row of a panel scales the scale of its first block by, and in
   * {@code turns}, ascending, each {@code block · 32 + row} where a row goes on to the next value;
   * returns how many. Rows beyond the last take any value.
   */
  int turns(int panel, float[] outer, int[] turns) {
    int blocks = blocksPerRow();
    Nested nested = Objects.requireNonNull(this.nested);
    long first = (long) panel * HEIGHT * blocks;
    int live = Math.min(HEIGHT, rows - panel * HEIGHT);
    long end = first + (long) live * blocks;
    long at = first / nested.blockSize;
    // The next index at which a value ends.
    long next = (at + 1) * nested.blockSize;
    float value = nested.absmax.get(FLOAT, 4 * at);
    int count = 0;
    int row = 0;
    for (long start = first; start < end; start += blocks) {
      while (next <= start) {
        value = nested.absmax.get(FLOAT, 4 * ++at);
        next += nested.blockSize;
      }
      outer[row] = value;
      for (long turn = next; turn < start + blocks; turn += nested.blockSize) {
        turns[count++] = (int) (turn - start) * HEIGHT + row;
      }
      row++;
    }
    Arrays.sort(turns, 0, count);
    return count;
  }

  /** Lets a row go on to its next value. */
  void turn(int panel, int turn, float[] outer) {
    Nested nested = Objects.requireNonNull(this.nested);
    int row = turn % HEIGHT;
    long index = (long) (panel * HEIGHT + row) * blocksPerRow() + turn / HEIGHT;
    outer[row] = nested.absmax.get(FLOAT, 4 * (index / nested.blockSize));
  }

  /** Decodes the scales of a block of a panel; {@link #aligned} only. */
  void scales(int panel, int block, float[] out) {
    int blocks = blocksPerRow();
    int live = Math.min(HEIGHT, rows - panel * HEIGHT);
    for (int row = 0; row < live; row++) {
      out[row] = scale((long) (panel * HEIGHT + row) * blocks + block);
    }
  }

  private static void lookUp(byte[] codes, float[] map, int count, float[] out, int at) {
    for (int i = 0; i < count; i++) {
      out[at + i] = map[codes[i] & 0xff];
    }
  }

  private static void decode(float[] out, int from, int to, float[] outer, float offset) {
    for (int at = from; at < to; at += HEIGHT) {
      for (int row = 0; row < HEIGHT; row++) {
        // Two roundings, never fused.
        float centred = out[at + row] * outer[row];
        out[at + row] = centred + offset;
      }
    }
  }

  /** The scale of a block by its place in storage. */
  private float scale(long block) {
    long at = block;
    if (aligned) {
      at = panelOrder((int) (block / blocksPerRow()), (int) (block % blocksPerRow()));
    }
    if (nested == null) {
      return absmax.get(FLOAT, 4 * at);
    }
    float centred =
        nested.map[absmax.get(BYTE, at) & 0xff]
            * nested.absmax.get(FLOAT, 4 * (block / nested.blockSize));
    return centred + nested.offset;
  }

  @Override
  public void row(int row, float[] out, int at) {
    row(row, 0, cols, out, at, 1);
  }

  /**
   * Writes weights {@code from} to {@code to} of a row, one every {@code stride} floats from {@code
   * at} on: {@code float32(code · absmax)}.
   */
  void row(int row, int from, int to, float[] out, int at, int stride) {
    long first = (long) row * cols;
    int panel = row / HEIGHT;
    int lane = row % HEIGHT;
    int k = from;
    while (k < to) {
      long block = (first + k) / blockSize;
      float scale = scale(block);
      int end = (int) Math.min(to, (block + 1) * blockSize - first);
      for (; k < end; k++) {
        int word = packed.get(INT, 4 * (word(panel, k / GROUP) + lane));
        out[at + (k - from) * stride] = codebook[(word >>> (4 * (k % GROUP))) & 15] * scale;
      }
    }
  }

  /** Writes inputs {@code k} to {@code k + count} of a panel, as {@code (count, 32 rows)}. */
  void weights(int panel, int k, int count, float[] tile) {
    int live = Math.min(HEIGHT, rows - panel * HEIGHT);
    for (int row = 0; row < HEIGHT; row++) {
      if (row < live) {
        row(panel * HEIGHT + row, k, k + count, tile, row, HEIGHT);
      } else {
        for (int i = 0; i < count; i++) {
          tile[i * HEIGHT + row] = 0;
        }
      }
    }
  }

  @Override
  public Footprint footprint() {
    return new Footprint(
        packed.byteSize(), absmax.byteSize(), nested == null ? 0 : nested.absmax.byteSize(), 0);
  }

  @Override
  public void close() {
    region.close();
  }
}
