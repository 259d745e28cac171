package dev.wardrobe.compute.cpu;

import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.compute.KvCache;
import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.Lab;
import dev.wardrobe.compute.Matrix;
import dev.wardrobe.compute.PackedMatrix;
import dev.wardrobe.quant.QuantType;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

/** Exact mode computes where Java was started without native access. */
final class NativeAccessTest {
  @Test
  void denied_keepsToJava() throws Exception {
    Process process =
        new ProcessBuilder(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "--add-modules=jdk.incubator.vector",
                "--illegal-native-access=deny",
                "-cp",
                System.getProperty(
                    "surefire.test.class.path", System.getProperty("java.class.path")),
                Probe.class.getName())
            .redirectErrorStream(true)
            .start();
    try {
      String text = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
      assertThat(process.waitFor(2, TimeUnit.MINUTES)).isTrue();
      assertThat(process.exitValue()).as(text).isZero();
      assertThat(text).contains("CPU, ").doesNotContain("generated");
    } finally {
      process.destroyForcibly();
    }
  }

  /** What the child JVM runs. */
  static final class Probe {
    private Probe() {}

    public static void main(String[] args) {
      try (Lab lab = Labs.cpu(1)) {
        Matrix w = lab.matrix(lab.quantized(40, 128, QuantType.NF4, 64, true));
        PackedMatrix stored = w.stored();
        lab.keep(lab.backend.matrix(stored));
        lab.backend.trim();
        KvCache cache = lab.cache(new KvShape(1, 1, 2, 3, KvShape.Type.F32));
        cache.decommit(1);
        cache.commit(1);
        System.out.println(lab.backend.describe());
      }
    }
  }
}
