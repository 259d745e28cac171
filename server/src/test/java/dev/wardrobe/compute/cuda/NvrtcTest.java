package dev.wardrobe.compute.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import dev.wardrobe.compute.UnavailableException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;

/**
 * The run-time compiler, where it is installed; it needs no device. In a process of its own: it
 * asks whatever libcuda.so.1 there is, and the emulator's does not know all that it asks.
 */
final class NvrtcTest {
  private static final String ABSENT = "absent: ";

  @Test
  void compile() throws Exception {
    Process process =
        new ProcessBuilder(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "--enable-native-access=ALL-UNNAMED",
                "-cp",
                System.getProperty(
                    "surefire.test.class.path", System.getProperty("java.class.path")),
                Probe.class.getName())
            .redirectErrorStream(true)
            .start();
    String said = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertThat(process.waitFor(1, TimeUnit.MINUTES)).isTrue();
    if (said.contains(ABSENT)) {
      Assumptions.abort("NVRTC is not installed (CUDA_HOME)");
    }
    assertThat(process.exitValue()).as(said).isZero();
    for (String source : KernelImages.SOURCES) {
      assertThat(said).contains(source + " is a cubin");
    }
    assertThat(said)
        .contains("kernels: 4 of 4")
        .contains("bad.cu does not compile for sm_80")
        .contains("\"y\" is undefined")
        .contains("none.cu does not compile for sm_1");
  }

  /** Compiles what we have, and what is wrong, and says what came of it. */
  static final class Probe {
    private Probe() {}

    public static void main(String[] arguments) {
      Nvrtc compiler;
      try {
        compiler = Nvrtc.load();
      } catch (UnavailableException e) {
        System.out.println(ABSENT + e.getMessage());
        return;
      }
      List<byte[]> images = KernelImages.compiled(compiler, "sm_90a");
      StringBuilder all = new StringBuilder();
      for (int i = 0; i < images.size(); i++) {
        String image = new String(images.get(i), StandardCharsets.ISO_8859_1);
        all.append(image);
        if (image.startsWith("\u007fELF")) {
          System.out.println(KernelImages.SOURCES.get(i) + " is a cubin");
        }
      }
      List<String> kernels = List.of("activate", "attend_long_128", "nested_8x32", "sample");
      long found = kernels.stream().filter(name -> all.indexOf(".text." + name) >= 0).count();
      System.out.printf("kernels: %d of %d%n", found, kernels.size());
      refused(compiler, "bad.cu", "int x = y;", "sm_80");
      refused(compiler, "none.cu", "", "sm_1");
    }

    private static void refused(Nvrtc compiler, String name, String source, String architecture) {
      try {
        compiler.compile(name, source, "", architecture);
      } catch (IllegalStateException e) {
        System.out.println(e.getMessage());
      }
    }
  }
}
