package dev.wardrobe.trainer;

import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.net.URISyntaxException;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;

/** Reference results: those in the repository, and further ones beside it. */
public final class Golden {
  private Golden() {}

  /**
   * A path below {@code golden}, from the test resources if it is there, else from the folder that
   * {@code WARDROBE_SHARED} (a system property, or else an environment variable) names, by default
   * {@code shared} beside the repository. Without either the calling test is skipped.
   */
  public static Path path(String path) {
    URL resource = Golden.class.getResource("/golden/" + path);
    if (resource != null) {
      try {
        return Path.of(resource.toURI());
      } catch (URISyntaxException e) {
        throw new AssertionError(e);
      }
    }
    return shared("golden/" + path);
  }

  /** A path in the folder of reference data; without it the calling test is skipped. */
  public static Path shared(String path) {
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
