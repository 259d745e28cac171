package dev.wardrobe.compute.cuda;

import dev.wardrobe.compute.UnavailableException;
import java.io.IOException;
import java.io.InputStream;
import java.lang.foreign.Arena;
import java.lang.foreign.SymbolLookup;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import jcuda.LibUtils;
import jcuda.driver.JCudaDriver;

/** Loads JCuda's native half, once. */
final class Natives {
  private static final String TEMPORARY = "java.io.tmpdir";

  /** As JCuda names it in its jar. */
  private static final String LIBRARY = "JCudaDriver-12.6.0";

  private Natives() {}

  /**
   * Loads it.
   *
   * @throws UnavailableException if there is none for this platform, or no CUDA driver
   */
  static synchronized void load() throws UnavailableException {
    requireDriver();
    // JCuda takes its library out of its jar into the folder for temporary files, under a name that
    // anybody can guess, and uses what is there already. So it finds its own in a folder that only
    // we may write to.
    String shared = System.getProperty(TEMPORARY);
    Path folder = null;
    try {
      folder = Files.createTempDirectory("wardrobe-cuda-");
      String name = LibUtils.createLibraryFileName(LibUtils.createPlatformLibraryName(LIBRARY));
      try (InputStream library = Natives.class.getResourceAsStream("/lib/" + name)) {
        if (library == null) {
          throw new UnavailableException(
              "this build has no CUDA binding for %s on %s"
                  .formatted(
                      System.getProperty("os.name", "").toLowerCase(Locale.ROOT),
                      System.getProperty("os.arch")));
        }
        Files.copy(library, folder.resolve(name));
      }
      System.setProperty(TEMPORARY, folder.toString());
      JCudaDriver.setExceptionsEnabled(false);
    } catch (IOException e) {
      throw new UnavailableException("the CUDA binding cannot be taken out of its jar: " + e, e);
    } catch (UnsatisfiedLinkError | NoClassDefFoundError e) {
      throw new UnavailableException("the CUDA binding does not load: " + e, e);
    } finally {
      if (shared != null) {
        System.setProperty(TEMPORARY, shared);
      }
      if (folder != null) {
        delete(folder);
      }
    }
  }

  // Native code is the point.
  @SuppressWarnings("restricted")
  private static void requireDriver() throws UnavailableException {
    try (Arena arena = Arena.ofConfined()) {
      SymbolLookup.libraryLookup("libcuda.so.1", arena);
    } catch (IllegalArgumentException e) {
      throw new UnavailableException("there is no CUDA driver on this machine (libcuda.so.1)", e);
    } catch (IllegalCallerException e) {
      throw new UnavailableException(
          "Java was started without native access; start it with"
              + " --enable-native-access=ALL-UNNAMED",
          e);
    }
  }

  private static void delete(Path folder) {
    // A library that is loaded stays, without its name.
    try (var files = Files.list(folder)) {
      for (Path file : files.toList()) {
        Files.deleteIfExists(file);
      }
      Files.deleteIfExists(folder);
    } catch (IOException e) {
      folder.toFile().deleteOnExit();
    }
  }
}
