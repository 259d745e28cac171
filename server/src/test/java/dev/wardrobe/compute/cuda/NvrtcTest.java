package dev.wardrobe.compute.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.compute.UnavailableException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** The run-time compiler, where it is installed; it needs no device. */
final class NvrtcTest {
  private Nvrtc compiler;

  @BeforeEach
  void load() {
    try {
      compiler = Nvrtc.load();
    } catch (UnavailableException e) {
      Assumptions.abort("NVRTC is not installed (CUDA_HOME): " + e.getMessage());
    }
  }

  @Test
  void compile_allKernels() {
    List<byte[]> images = KernelImages.compiled(compiler, "sm_90a");
    assertThat(images).hasSameSizeAs(KernelImages.SOURCES);
    for (byte[] image : images) {
      // A cubin is an ELF file.
      assertThat(new String(image, 0, 4, StandardCharsets.ISO_8859_1)).isEqualTo("\u007fELF");
    }
    assertThat(new String(images.getFirst(), StandardCharsets.ISO_8859_1)).contains("activate");
  }

  @Test
  void compile_saysWhatIsWrong() {
    assertThatThrownBy(() -> compiler.compile("bad.cu", "int x = y;", "", "sm_80"))
        .isInstanceOf(IllegalStateException.class)
        .hasMessageContaining("bad.cu")
        .hasMessageContaining("\"y\" is undefined");
  }

  @Test
  void compile_unknownArchitecture() {
    assertThatThrownBy(() -> compiler.compile("none.cu", "", "", "sm_1"))
        .isInstanceOf(IllegalStateException.class)
        .hasMessageContaining("sm_1");
  }
}
