package dev.wardrobe.safetensors;

import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.nio.file.Files;
import java.nio.file.Path;

/** The folder of reference data that is too large for the repository. */
public final class ReferenceFolder {
  private ReferenceFolder() {}

  /**
   * A path below the folder that {@code WARDROBE_SHARED} (a system property, or else an environment
   * variable) names, by default {@code shared} beside the repository. Without it the calling test
   * is skipped.
   */
  public static Path require(String path) {
    String named = System.getProperty("WARDROBE_SHARED", System.getenv("WARDROBE_SHARED"));
    Path root = Path.of(System.getProperty("wardrobe.root", "..")).toAbsolutePath().normalize();
    Path folder = named == null ? root.resolveSibling("shared") : Path.of(named);
    Path required = folder.resolve(path);
    assumeTrue(
        Files.exists(required),
        () -> "needs " + required + "; set WARDROBE_SHARED to the reference data folder");
    return required;
  }
}
