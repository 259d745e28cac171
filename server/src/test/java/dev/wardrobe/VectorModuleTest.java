package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

/** Each test starts a JVM of its own: a module once resolved stays. */
final class VectorModuleTest {

  /** What the child JVMs run. */
  static final class Probe {
    private Probe() {}

    public static void main(String[] args) throws ReflectiveOperationException {
      VectorModule.resolve();
      Class<?> type = Class.forName("jdk.incubator.vector.FloatVector");
      System.out.print(type.getModule().getName() + " " + type.getClassLoader());
    }
  }

  @Test
  void resolve_writesNoWarning() throws Exception {
    assertThat(probe("--add-exports=java.base/jdk.internal.module=ALL-UNNAMED"))
        .isEqualTo("0: jdk.incubator.vector null");
  }

  @Test
  void resolve_whenTheCommandLineHasDoneSo() throws Exception {
    assertThat(probe("--add-modules=jdk.incubator.vector"))
        .startsWith("0: ")
        .endsWith("jdk.incubator.vector null");
  }

  @Test
  void resolve_whenRefused_saysWhatToDo() throws Exception {
    assertThat(probe("-Dunused=1"))
        .startsWith("1: ")
        .contains("start it with --add-modules=jdk.incubator.vector");
  }

  /** The exit code, and what the child wrote to its two streams. */
  private static String probe(String option) throws IOException, InterruptedException {
    Process process =
        new ProcessBuilder(
                List.of(
                    Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                    option,
                    "-cp",
                    System.getProperty("java.class.path"),
                    Probe.class.getName()))
            .redirectErrorStream(true)
            .start();
    String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertThat(process.waitFor(1, TimeUnit.MINUTES)).isTrue();
    return process.exitValue() + ": " + output;
  }
}
