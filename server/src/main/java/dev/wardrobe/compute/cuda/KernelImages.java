package dev.wardrobe.compute.cuda;

import dev.wardrobe.compute.UnavailableException;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * The kernels as the driver loads them: what nvcc made of them in the build, or NVRTC makes now.
 */
final class KernelImages {
  /** The sources, without their suffix; also what the images are named after. */
  static final List<String> SOURCES =
      List.of("adapters", "attention", "library", "projections", "rows", "sampling");

  /** Names an image of all kernels that is loaded instead: one under work, or for an emulator. */
  static final String FILE = "wardrobe.cuda.image";

  private KernelImages() {}

  /**
   * Images of all kernels for a device.
   *
   * @throws UnavailableException if the build had no nvcc and there is no NVRTC
   */
  static List<byte[]> of(Gpu gpu) throws UnavailableException {
    String file = System.getProperty(FILE);
    if (file != null) {
      try {
        return List.of(Files.readAllBytes(Path.of(file)));
      } catch (IOException e) {
        throw new UnavailableException("-D%s: %s".formatted(FILE, e), e);
      }
    }
    List<byte[]> images = new ArrayList<>();
    for (String source : SOURCES) {
      try (InputStream image = KernelImages.class.getResourceAsStream(source + ".fatbin")) {
        if (image != null) {
          images.add(image.readAllBytes());
        }
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }
    return images.size() == SOURCES.size()
        ? images
        : compiled(Nvrtc.load(), architecture(gpu.architecture()));
  }

  /**
   * What this build has, a line for each source.
   *
   * @throws UnavailableException if one was not compiled
   */
  static List<String> inventory() throws UnavailableException {
    List<String> lines = new ArrayList<>();
    for (String source : SOURCES) {
      try (InputStream image = KernelImages.class.getResourceAsStream(source + ".fatbin")) {
        if (image == null) {
          throw new UnavailableException(
              "%s.cu was not compiled in this build: build with nvcc (CUDA_HOME)"
                  .formatted(source));
        }
        lines.add("%s.fatbin, %d bytes".formatted(source, image.readAllBytes().length));
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }
    return lines;
  }

  /** Compiles all sources now. */
  static List<byte[]> compiled(Nvrtc compiler, String architecture) {
    String header = text("wardrobe.cuh");
    List<byte[]> images = new ArrayList<>();
    for (String source : SOURCES) {
      String name = source + ".cu";
      images.add(compiler.compile(name, text(name), header, architecture));
    }
    return images;
  }

  /** Hopper's own instructions are in sm_90a only. */
  static String architecture(int capability) {
    return "sm_" + capability + (capability == 90 ? "a" : "");
  }

  private static String text(String resource) {
    try (InputStream source = KernelImages.class.getResourceAsStream(resource)) {
      if (source == null) {
        throw new IllegalStateException("this build lacks the kernels' source " + resource);
      }
      return new String(source.readAllBytes(), StandardCharsets.UTF_8);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
