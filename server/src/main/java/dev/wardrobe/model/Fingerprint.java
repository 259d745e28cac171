package dev.wardrobe.model;

import dev.wardrobe.quant.QuantizedMatrix;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;

/**
 * The identity of a quantized base: SHA-256 over its quantized weights in the order of their names.
 *
 * <p>Each weight contributes, without separators:
 *
 * <ol>
 *   <li>the length of its tensor's name in UTF-8 bytes, 4 bytes little-endian, and the name, such
 *       as {@code model.layers.0.mlp.down_proj.weight};
 *   <li>rows and columns, 4 bytes little-endian each;
 *   <li>3 bytes of ASCII: {@code nf4} or {@code fp4};
 *   <li>the block size, 4 bytes little-endian;
 *   <li>the packed codes, {@code (rows · columns + 1) / 2} bytes, the even element in the high
 *       nibble; the low nibble that pads an odd count counts as 0.
 * </ol>
 *
 * <p>Names are ordered as their UTF-8 bytes. Statistics take no part, nor does how the checkpoint
 * is cut into files or in which type it stores the codes.
 */
final class Fingerprint {
  private static final int CHUNK = 1 << 20;

  private final MessageDigest digest;
  private String last = "";

  Fingerprint() {
    try {
      digest = MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException e) {
      throw new AssertionError("every Java platform has SHA-256", e);
    }
  }

  /** Adds a weight, whose name must come after all names before it. */
  void add(String name, QuantizedMatrix matrix) {
    if (name.compareTo(last) <= 0) {
      throw new IllegalArgumentException(name + " after " + last);
    }
    last = name;
    byte[] utf8 = name.getBytes(StandardCharsets.UTF_8);
    ByteBuffer head = ByteBuffer.allocate(utf8.length + 19).order(ByteOrder.LITTLE_ENDIAN);
    head.putInt(utf8.length).put(utf8).putInt(matrix.rows()).putInt(matrix.cols());
    head.put(matrix.type().id().getBytes(StandardCharsets.US_ASCII)).putInt(matrix.blockSize());
    digest.update(head.flip());

    MemorySegment packed = matrix.packed();
    long whole = matrix.elements() / 2;
    for (long from = 0; from < whole; from += CHUNK) {
      digest.update(packed.asSlice(from, Math.min(CHUNK, whole - from)).asByteBuffer());
    }
    if (matrix.elements() % 2 == 1) {
      digest.update((byte) (matrix.code(matrix.elements() - 1) << 4));
    }
  }

  /** 64 hexadecimal digits, or "" if no weight was added. */
  String hex() {
    return last.isEmpty() ? "" : HexFormat.of().formatHex(digest.digest());
  }
}
