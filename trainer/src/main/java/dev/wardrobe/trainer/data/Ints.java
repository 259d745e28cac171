package dev.wardrobe.trainer.data;

import java.util.AbstractList;
import java.util.Arrays;
import java.util.RandomAccess;
import org.jspecify.annotations.Nullable;

/** A list of whole numbers as JSON has them, without an object for each. */
final class Ints extends AbstractList<@Nullable Object> implements RandomAccess {
  private int[] values = new int[16];
  private int size;

  void append(int value) {
    if (size == values.length) {
      values = Arrays.copyOf(values, 2 * size);
    }
    values[size++] = value;
  }

  int[] toInts() {
    return Arrays.copyOf(values, size);
  }

  @Override
  public Object get(int index) {
    if (index >= size) {
      throw new IndexOutOfBoundsException(index);
    }
    return values[index];
  }

  @Override
  public int size() {
    return size;
  }
}
