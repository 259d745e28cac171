package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.PackedMatrix;
import java.lang.foreign.MemorySegment;
import java.nio.BufferUnderflowException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;

/** Reading and writing of the forms of packed matrices: a kind, then what its class puts there. */
final class PackedForm {
  static final int NIBBLES = 4;
  static final int DENSE = 16;

  private PackedForm() {}

  /** The panels of a packed matrix. */
  static Panels panels(PackedMatrix packed, NativeMemory.Region region) {
    ByteBuffer form = packed.form().asByteBuffer().order(ByteOrder.LITTLE_ENDIAN);
    List<MemorySegment> parts = new ArrayList<>();
    for (MemorySegment part : packed.parts()) {
      check(part.isNative() && part.address() % PackedMatrix.ALIGNMENT == 0);
      parts.add(plain(part));
    }
    try {
      return switch (form.getInt()) {
        case NIBBLES -> new NibblePanels(form, parts, region);
        case DENSE -> new DensePanels(form, parts, region);
        default -> throw malformed();
      };
    } catch (BufferUnderflowException e) {
      throw new IllegalArgumentException("packed matrix: its form ends too early", e);
    }
  }

  /**
   * The same memory in the class that allocated memory has. A mapping has one of its own: kernels
   * that were compiled for the one would be thrown away at the first weight of the other.
   */
  @SuppressWarnings("restricted") // The size stays, and so does the scope.
  private static MemorySegment plain(MemorySegment part) {
    try {
      return part.reinterpret(part.byteSize());
    } catch (IllegalCallerException e) {
      // Java was started without native access: the first request is slower.
      return part;
    }
  }

  /** A form of a kind, with room for {@code bytes} more. */
  static ByteBuffer of(int kind, int bytes) {
    return ByteBuffer.allocate(4 + bytes).order(ByteOrder.LITTLE_ENDIAN).putInt(kind);
  }

  static PackedMatrix matrix(ByteBuffer form, List<MemorySegment> parts) {
    return new PackedMatrix(MemorySegment.ofBuffer(form.flip()), parts);
  }

  static void put(ByteBuffer form, float[] values) {
    for (float value : values) {
      form.putFloat(value);
    }
  }

  static float[] floats(ByteBuffer form, int count) {
    float[] values = new float[count];
    for (int i = 0; i < count; i++) {
      values[i] = form.getFloat();
    }
    return values;
  }

  static void check(boolean met) {
    if (!met) {
      throw malformed();
    }
  }

  static void size(MemorySegment part, long bytes) {
    if (part.byteSize() != bytes) {
      throw new IllegalArgumentException(
          "packed matrix: expected a part of %d bytes, got %d".formatted(bytes, part.byteSize()));
    }
  }

  static IllegalArgumentException malformed() {
    return new IllegalArgumentException("packed matrix: form and parts do not fit each other");
  }
}
