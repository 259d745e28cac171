package dev.wardrobe.trainer.optim;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatExceptionOfType;
import static org.assertj.core.api.Assertions.assertThatIllegalArgumentException;
import static org.assertj.core.api.Assertions.offset;
import static org.assertj.core.api.Assertions.within;

import dev.wardrobe.quant.DynamicMap;
import dev.wardrobe.safetensors.SafetensorsException;
import dev.wardrobe.trainer.backward.Parameter;
import dev.wardrobe.trainer.backward.Parameter.Role;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

final class OptimizerTest {
  private static final int STEPS = 6;

  @TempDir Path folder;

  /** What a run leaves: parameters and the digest of all state. */
  private record Outcome(List<float[]> values, String digest, PagerStats paging, PagePlan plan) {}

  @ParameterizedTest
  @ValueSource(strings = {"adamw", "lion", "sgd", "momentum"})
  void rules_asInDoublePrecision(String name) throws IOException {
    OptimizerOptions options = options(name).withWeightDecay(0.05);
    options = options.withGroup(Role.B, new OptimizerOptions.Group(4, 0.01));
    try (Trained trained = new Trained(2, 5, Trained.SHAPES);
        Optimizer optimizer =
            new Optimizer(trained.parameters, options, trained.backend, PagerOptions.RESIDENT)) {
      DoubleReference[] references = new DoubleReference[Trained.SHAPES.length];
      for (int i = 0; i < references.length; i++) {
        references[i] = new DoubleReference(trained.values(i));
      }
      for (int step = 0; step < STEPS; step++) {
        trained.gradients(step);
        optimizer.step(1e-3 * (step + 1));
        for (int i = 0; i < references.length; i++) {
          boolean second = trained.parameters.get(i).role() == Role.B;
          references[i].step(
              name,
              trained.gradient(i),
              1e-3 * (step + 1) * (second ? 4 : 1),
              second ? 0.01 : 0.05);
          float[] got = trained.values(i);
          for (int j = 0; j < got.length; j++) {
            // Lion's step is a sign, which turns where the sum is nearly nothing.
            assertThat((double) got[j])
                .as("step %d, parameter %d, element %d", step, i, j)
                .isCloseTo(references[i].p[j], within(2e-6 + 1e-6 * Math.abs(references[i].p[j])));
          }
        }
      }
      assertThat(optimizer.steps()).isEqualTo(STEPS);
    }
  }

  /** The rules in double precision, without blocks. */
  private static final class DoubleReference {
    final double[] p;
    final double[] m;
    final double[] v;
    int steps;

    DoubleReference(float[] values) {
      p = new double[values.length];
      m = new double[values.length];
      v = new double[values.length];
      for (int i = 0; i < values.length; i++) {
        p[i] = values[i];
      }
    }

    void step(String name, float[] gradient, double rate, double decay) {
      steps++;
      for (int i = 0; i < p.length; i++) {
        double g = gradient[i];
        switch (name) {
          case "adamw" -> {
            p[i] *= 1 - rate * decay;
            m[i] = 0.9 * m[i] + 0.1 * g;
            v[i] = 0.999 * v[i] + 0.001 * g * g;
            double mean = m[i] / (1 - Math.pow(0.9, steps));
            double square = v[i] / (1 - Math.pow(0.999, steps));
            p[i] -= rate * mean / (Math.sqrt(square) + 1e-8);
          }
          case "lion" -> {
            p[i] *= 1 - rate * decay;
            p[i] -= rate * Math.signum(0.9 * m[i] + 0.1 * g);
            m[i] = 0.99 * m[i] + 0.01 * g;
          }
          default -> {
            m[i] = (name.equals("sgd") ? 0 : 0.9) * m[i] + g + decay * p[i];
            p[i] -= rate * m[i];
          }
        }
      }
    }
  }

  /** 8-bit Lion: by the definition of its codes, in float32 as the rule says. */
  @Test
  void lion8_codesAreTheNearest() throws IOException {
    OptimizerOptions options = OptimizerOptions.named("lion8bit").withLeastEightBit(0);
    try (Trained trained = new Trained(1, 8, new int[] {3, 300});
        Optimizer optimizer =
            new Optimizer(trained.parameters, options, trained.backend, PagerOptions.RESIDENT)) {
      float[] p = trained.values(0);
      float[] m = new float[p.length];
      float[] map = DynamicMap.SIGNED.values();
      for (int step = 0; step < STEPS; step++) {
        trained.gradients(step);
        float[] g = trained.gradient(0);
        optimizer.step(1e-3);
        for (int from = 0; from < p.length; from += 256) {
          int to = Math.min(p.length, from + 256);
          float largest = 0;
          for (int i = from; i < to; i++) {
            float sum = (float) 0.9 * m[i] + (float) (1 - 0.9) * g[i];
            p[i] = p[i] - (float) 1e-3 * Math.signum(sum);
            m[i] = (float) 0.99 * m[i] + (float) (1 - 0.99) * g[i];
            largest = Math.max(largest, Math.abs(m[i]));
          }
          for (int i = from; i < to; i++) {
            int nearest = 0;
            for (int code = 1; code < 256; code++) {
              float v = m[i] / largest;
              if (Math.abs((double) map[code] - v) < Math.abs((double) map[nearest] - v)) {
                nearest = code;
              }
            }
            m[i] = map[nearest] * largest;
          }
        }
        assertThat(trained.values(0)).as("step %d", step).isEqualTo(p);
      }
    }
  }

  /** Tensors below the limit have the 32-bit rule's bits, those above do not. */
  @Test
  void eightBit_sparesSmallTensors() throws IOException {
    Outcome plain = run("adamw", 2, PagerOptions.RESIDENT);
    Outcome small = run("adamw8bit", 2, PagerOptions.RESIDENT);
    for (int i = 0; i < Trained.SHAPES.length; i++) {
      int size = Trained.SHAPES[i][0] * Trained.SHAPES[i][1];
      boolean same = Arrays.equals(plain.values.get(i), small.values.get(i));
      assertThat(same).as("%d elements", size).isEqualTo(size < 4096);
    }
    assertThat(OptimizerOptions.named("adamw8bit").stateBytes(4095)).isEqualTo(16 * 2048);
    assertThat(OptimizerOptions.named("adamw8bit").stateBytes(4097)).isEqualTo(17 * 520);
  }

  @ParameterizedTest
  @CsvSource({
    "paged_adamw_32bit, 2048", "paged_adamw_32bit, 6000", "paged_adamw_8bit, 2048",
    "paged_adamw_8bit, 5001", "paged_lion_32bit, 4096", "paged_lion_8bit, 3333"
  })
  void bits_dependOnNothingButTheInput(String name, int pageBytes) throws IOException {
    Outcome expected = run(name, 1, PagerOptions.RESIDENT);
    long state = expected.paging.residentBytes();
    for (int threads = 1; threads <= 3; threads += 2) {
      for (long budget : new long[] {state, state / 2, state / 10, 1}) {
        for (long host : new long[] {0, state / 4}) {
          PagerOptions paging = new PagerOptions(budget, pageBytes, 3, host, folder);
          Outcome got = run(name, threads, paging);
          String what = "%s, %d threads, %d of %d bytes".formatted(name, threads, budget, state);
          for (int i = 0; i < expected.values.size(); i++) {
            assertThat(got.values.get(i)).as(what).isEqualTo(expected.values.get(i));
          }
          assertThat(got.digest).as(what).isEqualTo(expected.digest);
          PagePlan plan = got.plan;
          assertThat(got.paging.pagesIn())
              .as(what)
              .isEqualTo(plan.firstIn() + (STEPS - 1L) * plan.in());
          assertThat(got.paging.pagesOut()).as(what).isEqualTo((long) STEPS * plan.out());
          if (budget < state) {
            assertThat(got.paging.residentBytes()).isBetween(1L, Math.max(budget, pageBytes));
            assertThat(plan.streaming()).isPositive();
            assertThat(got.paging.hostBytes() + got.paging.fileBytes()).isPositive();
          }
          if (host > 0 && budget < state) {
            assertThat(got.paging.hostBytes()).isPositive().isLessThanOrEqualTo(host);
          }
        }
      }
    }
    assertThat(folder).isEmptyDirectory();
  }

  @Test
  void spikes_betweenSteps_changeNoBit() throws IOException {
    Outcome expected = run("adamw", 2, PagerOptions.RESIDENT);
    try (Trained trained = new Trained(2, 7, Trained.SHAPES);
        Optimizer optimizer =
            new Optimizer(
                trained.parameters,
                OptimizerOptions.named("paged_adamw"),
                trained.backend,
                new PagerOptions(100_000, 4096, 2, 0, folder.resolve("pages")))) {
      for (int step = 0; step < STEPS; step++) {
        trained.gradients(step);
        if (step % 2 == 1) {
          assertThat(optimizer.makeRoom(60_000)).isEqualTo(15 * 4096);
        }
        optimizer.step(0.01);
        optimizer.restore();
      }
      assertThat(optimizer.save(folder.resolve("state"))).isEqualTo(expected.digest);
      for (int i = 0; i < expected.values.size(); i++) {
        assertThat(trained.values(i)).isEqualTo(expected.values.get(i));
      }
    }
  }

  @Test
  void saved_goesOnWithOtherPages() throws IOException {
    for (String name : OptimizerOptions.NAMES) {
      Outcome expected = run(name, 2, PagerOptions.RESIDENT);
      Path file = folder.resolve(name);
      PagerOptions first = new PagerOptions(40_000, 4096, 2, 0, folder.resolve("pages"));
      PagerOptions second = new PagerOptions(9_000, 2600, 4, 8192, folder.resolve("pages"));
      List<float[]> halfway;
      String digest;
      try (Trained trained = new Trained(2, 7, Trained.SHAPES);
          Optimizer optimizer =
              new Optimizer(trained.parameters, options(name), trained.backend, first)) {
        steps(trained, optimizer, 0, 3);
        digest = optimizer.save(file);
        halfway = trained.values();
      }
      try (Trained trained = new Trained(1, 9, Trained.SHAPES);
          Optimizer optimizer =
              new Optimizer(trained.parameters, options(name), trained.backend, second)) {
        // What it holds before does not matter.
        steps(trained, optimizer, 20, 22);
        for (int i = 0; i < halfway.size(); i++) {
          trained.backend.write(trained.parameters.get(i).value(), 0, halfway.get(i));
        }
        assertThat(optimizer.load(file)).isEqualTo(digest);
        assertThat(optimizer.steps()).isEqualTo(3);
        Trained sameGradients = trained;
        for (int step = 3; step < STEPS; step++) {
          copyGradients(step, sameGradients);
          optimizer.step(0.01);
        }
        for (int i = 0; i < expected.values.size(); i++) {
          assertThat(trained.values(i)).as(name).isEqualTo(expected.values.get(i));
        }
        assertThat(optimizer.save(file)).isEqualTo(expected.digest);
      }
    }
  }

  private static void copyGradients(int step, Trained to) {
    try (Trained from = new Trained(1, 7, Trained.SHAPES)) {
      from.gradients(step);
      for (int i = 0; i < from.parameters.size(); i++) {
        to.backend.write(to.parameters.get(i).gradient(), 0, from.gradient(i));
      }
    }
  }

  @Test
  void load_ofSomethingElse_changesNothing() throws IOException {
    Path file = folder.resolve("state");
    try (Trained trained = new Trained(2, 7, Trained.SHAPES);
        Trained fewer = new Trained(2, 7, Arrays.copyOf(Trained.SHAPES, 4));
        Optimizer optimizer =
            new Optimizer(
                trained.parameters,
                options("paged_adamw"),
                trained.backend,
                new PagerOptions(20_000, 4096, 2, 0, folder.resolve("pages")));
        Optimizer small =
            new Optimizer(
                trained.parameters, options("adamw8bit"), trained.backend, PagerOptions.RESIDENT);
        Optimizer lion =
            new Optimizer(
                trained.parameters, options("lion"), trained.backend, PagerOptions.RESIDENT);
        Optimizer others =
            new Optimizer(
                fewer.parameters, options("adamw"), fewer.backend, PagerOptions.RESIDENT)) {
      steps(trained, optimizer, 0, 2);
      String digest = optimizer.save(file);

      assertThatExceptionOfType(OptimizerException.class)
          .isThrownBy(() -> small.load(file))
          .withMessageContaining("expected U8 [19, 520], got U8 [19, 2048]");
      assertThatExceptionOfType(OptimizerException.class)
          .isThrownBy(() -> lion.load(file))
          .withMessageContaining("rule=lion")
          .withMessageContaining("rule=adamw");
      assertThatExceptionOfType(OptimizerException.class)
          .isThrownBy(() -> others.load(file))
          .withMessageContaining("which is not trained here");

      byte[] bytes = Files.readAllBytes(file);
      for (int at : new int[] {bytes.length / 2, bytes.length - 1}) {
        byte[] damaged = bytes.clone();
        damaged[at] ^= 1;
        Path other = Files.write(folder.resolve("damaged"), damaged);
        assertThatExceptionOfType(OptimizerException.class)
            .isThrownBy(() -> optimizer.load(other))
            .withMessageContaining("its digest does not match");
      }
      Path cut = Files.write(folder.resolve("cut"), Arrays.copyOf(bytes, bytes.length - 5));
      assertThatExceptionOfType(SafetensorsException.class).isThrownBy(() -> optimizer.load(cut));
      assertThatExceptionOfType(IOException.class)
          .isThrownBy(() -> optimizer.load(folder.resolve("none")));

      assertThat(optimizer.steps()).isEqualTo(2);
      assertThat(optimizer.save(file)).isEqualTo(digest);
    }
  }

  @Test
  void clip_asPyTorch() throws IOException {
    try (Trained trained = new Trained(2, 7, new int[] {2, 2}, new int[] {1, 3});
        Optimizer optimizer =
            new Optimizer(
                trained.parameters, options("sgd"), trained.backend, PagerOptions.RESIDENT)) {
      Parameter first = trained.parameters.get(0);
      Parameter second = trained.parameters.get(1);
      trained.backend.write(first.gradient(), 0, new float[] {3, 0, 0, 0});
      trained.backend.write(second.gradient(), 0, new float[] {0, -4, 0});
      assertThat(optimizer.gradientNorm()).isEqualTo(5);
      assertThat(optimizer.clip(5.1)).isEqualTo(5);
      assertThat(trained.gradient(0)).containsExactly(3, 0, 0, 0);
      assertThat(optimizer.clip(1)).isEqualTo(5);
      float factor = (float) (1 / (5 + 1e-6));
      assertThat(trained.gradient(0)).containsExactly(3 * factor, 0, 0, 0);
      assertThat(trained.gradient(1)).containsExactly(0, -4 * factor, 0);
      for (float bad : new float[] {Float.NaN, Float.NEGATIVE_INFINITY}) {
        trained.backend.write(first.gradient(), 0, new float[] {3, bad, 0, 0});
        assertThat(optimizer.clip(1)).isNotFinite();
        assertThat(trained.gradient(1)).containsExactly(0, -4 * factor, 0);
      }
      assertThatIllegalArgumentException().isThrownBy(() -> optimizer.clip(0));
      assertThatIllegalArgumentException().isThrownBy(() -> optimizer.step(Double.NaN));
      assertThat(optimizer.steps()).isZero();
    }
  }

  @Test
  void groups_haveRatesAndDecaysOfTheirOwn() throws IOException {
    OptimizerOptions options = OptimizerOptions.named("sgd").withWeightDecay(0.5).withLoraPlus(16);
    options = options.withGroup(Role.MAGNITUDE, new OptimizerOptions.Group(2, 0));
    try (Trained trained = new Trained(1, 3, new int[] {1, 1}, new int[] {1, 1}, new int[] {1, 1});
        Optimizer optimizer =
            new Optimizer(trained.parameters, options, trained.backend, PagerOptions.RESIDENT)) {
      for (Parameter parameter : trained.parameters) {
        trained.backend.write(parameter.value(), 0, new float[] {2});
        trained.backend.write(parameter.gradient(), 0, new float[] {1});
      }
      optimizer.step(0.01);
      assertThat(trained.values(0)[0]).isCloseTo(2 - 0.01f * 2, offset(1e-6f));
      assertThat(trained.values(1)[0]).isCloseTo(2 - 0.16f * 2, offset(1e-6f));
      assertThat(trained.values(2)[0]).isCloseTo(2 - 0.02f, offset(1e-6f));
    }
  }

  @Test
  void named_takesEveryNameOfItsList_andTransformers() {
    for (String name : OptimizerOptions.NAMES) {
      OptimizerOptions options = OptimizerOptions.named(name);
      assertThat(options.paged()).as(name).isEqualTo(name.startsWith("paged"));
      assertThat(options.eightBit()).as(name).isEqualTo(name.contains("8"));
    }
    assertThat(OptimizerOptions.named("adamw_bnb_8bit"))
        .isEqualTo(OptimizerOptions.named("adamw8bit"));
    assertThatIllegalArgumentException()
        .isThrownBy(() -> OptimizerOptions.named("adafactor"))
        .withMessage(
            "optimizer: expected one of adamw, adamw8bit, paged_adamw_32bit, paged_adamw_8bit,"
                + " lion, lion8bit, paged_lion_32bit, paged_lion_8bit, sgd, got 'adafactor'");
    assertThatIllegalArgumentException()
        .isThrownBy(() -> OptimizerOptions.named("adamw").withBetas(1, 0.9));
  }

  @Test
  void noRoomOnTheDisk_isSaidBeforeAnythingElse() {
    assertThatExceptionOfType(OptimizerException.class)
        .isThrownBy(() -> new PageFile(folder, 1 << 30, 1 << 30).close())
        .withMessageMatching(
            "optimizer state: [\\d,]+ bytes are to be paged to .*, which has room for [\\d,]+; free"
                + " space, choose another folder, raise the paging budget or use an 8-bit"
                + " optimizer");
  }

  @Test
  void close_freesEverything() throws IOException {
    Trained trained = new Trained(2, 7, Trained.SHAPES);
    PagerStats open;
    Optimizer optimizer =
        new Optimizer(
            trained.parameters,
            options("paged_adamw"),
            trained.backend,
            new PagerOptions(20_000, 4096, 2, 8192, folder));
    steps(trained, optimizer, 0, 2);
    open = optimizer.paging();
    optimizer.close();
    optimizer.close();
    assertThat(open.residentBytes()).isEqualTo(4 * 4096);
    assertThat(open.hostBytes()).isEqualTo(8192);
    assertThat(open.fileBytes()).isPositive();
    assertThat(optimizer.paging().residentBytes()).isZero();
    assertThat(optimizer.paging().hostBytes()).isZero();
    assertThat(optimizer.paging().fileBytes()).isZero();
    assertThat(folder).isEmptyDirectory();
    trained.close();
    assertThat(trained.backend.liveBytes()).isZero();
  }

  private static OptimizerOptions options(String name) {
    return name.equals("momentum")
        ? OptimizerOptions.named("sgd").withMomentum(0.9)
        : OptimizerOptions.named(name);
  }

  private Outcome run(String name, int threads, PagerOptions paging) throws IOException {
    try (Trained trained = new Trained(threads, 7, Trained.SHAPES);
        Optimizer optimizer =
            new Optimizer(trained.parameters, options(name), trained.backend, paging)) {
      steps(trained, optimizer, 0, STEPS);
      PagerStats stats = optimizer.paging();
      Path file = folder.resolve("outcome");
      String digest = optimizer.save(file);
      Files.delete(file);
      return new Outcome(trained.values(), digest, stats, optimizer.plan());
    }
  }

  private static void steps(Trained trained, Optimizer optimizer, int from, int to)
      throws OptimizerException {
    for (int step = from; step < to; step++) {
      trained.gradients(step);
      optimizer.step(0.01);
    }
  }
}
