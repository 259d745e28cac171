package dev.wardrobe.engine;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;

final class HeapTest {
  private static final class Number extends Heap.Entry<Number> {
    final int value;

    Number(int value) {
      this.value = value;
    }

    @Override
    boolean before(Number other) {
      return value < other.value;
    }
  }

  @Test
  void first_isTheLeast_whateverLeaves() {
    for (int seed = 0; seed < 50; seed++) {
      Random random = new Random(seed);
      Heap<Number> heap = new Heap<>();
      List<Number> in = new ArrayList<>();
      for (int i = 0; i < 400; i++) {
        if (random.nextInt(5) < 3) {
          Number number = new Number(random.nextInt(100));
          assertThat(heap.contains(number)).isFalse();
          heap.add(number);
          in.add(number);
          assertThat(heap.contains(number)).isTrue();
        } else if (!in.isEmpty()) {
          Number number = in.remove(random.nextInt(in.size()));
          heap.remove(number);
          heap.remove(number);
          assertThat(heap.contains(number)).isFalse();
        }
        Number first = heap.first();
        if (in.isEmpty()) {
          assertThat(first).isNull();
        } else {
          int least = in.stream().min(Comparator.comparingInt(n -> n.value)).orElseThrow().value;
          assertThat(first).as("seed %d, step %d", seed, i).isNotNull();
          assertThat(first.value).as("seed %d, step %d", seed, i).isEqualTo(least);
        }
      }
    }
  }
}
