package dev.wardrobe.trainer.optim;

import dev.wardrobe.compute.cpu.CpuBackend;
import dev.wardrobe.trainer.backward.Parameter;
import dev.wardrobe.trainer.backward.Parameter.Role;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;

/** Parameters of odd shapes on a backend, with gradients that are a function of the step. */
final class Trained implements AutoCloseable {
  /** From one element to several pages; some below the limit for 8 bits. */
  static final int[][] SHAPES = {
    {1, 1}, {8, 64}, {3, 85}, {1, 257}, {37, 129}, {64, 65}, {5, 1000}, {16, 256}, {91, 97},
    {1, 4096}
  };

  final CpuBackend backend;
  final List<Parameter> parameters = new ArrayList<>();
  private final long seed;

  Trained(int threads, long seed, int[]... shapes) {
    backend = new CpuBackend(threads);
    this.seed = seed;
    Random random = new Random(seed);
    for (int i = 0; i < shapes.length; i++) {
      int rows = shapes[i][0];
      int width = shapes[i][1];
      Parameter parameter =
          new Parameter(
              "module.%d.lora".formatted(i),
              Role.values()[i % Role.values().length],
              backend.buffer(rows, width),
              backend.buffer(rows, width));
      backend.write(parameter.value(), 0, floats(random, rows * width, 0.1));
      parameters.add(parameter);
    }
  }

  /** Sets each gradient to what it is at a step: of all magnitudes, and in places 0. */
  void gradients(int step) {
    Random random = new Random(seed * 1000 + step);
    for (Parameter parameter : parameters) {
      float[] values = floats(random, (int) parameter.size(), 1e-3);
      for (int i = 0; i < values.length; i++) {
        values[i] *= i % 11 == 3 ? 0 : i % 7 == 2 ? 1e-4f : i % 301 == 5 ? 100 : 1;
      }
      backend.write(parameter.gradient(), 0, values);
    }
  }

  private static float[] floats(Random random, int count, double scale) {
    float[] values = new float[count];
    for (int i = 0; i < count; i++) {
      values[i] = (float) (random.nextGaussian() * scale);
    }
    return values;
  }

  float[] values(int parameter) {
    Parameter chosen = parameters.get(parameter);
    return backend.read(chosen.value(), 0, chosen.value().rows());
  }

  List<float[]> values() {
    List<float[]> all = new ArrayList<>();
    for (int i = 0; i < parameters.size(); i++) {
      all.add(values(i));
    }
    return all;
  }

  float[] gradient(int parameter) {
    Parameter chosen = parameters.get(parameter);
    return backend.read(chosen.gradient(), 0, chosen.gradient().rows());
  }

  @Override
  public void close() {
    for (Parameter parameter : parameters) {
      parameter.value().close();
      parameter.gradient().close();
    }
    backend.close();
  }
}
