package dev.wardrobe.compute.cpu;

import dev.wardrobe.compute.cpu.OneDnn.UnavailableException;
import java.io.IOException;
import java.io.InputStream;
import java.lang.foreign.Arena;
import java.lang.foreign.SymbolLookup;
import java.net.JarURLConnection;
import java.net.URL;
import java.net.URLConnection;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.PosixFileAttributes;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import java.util.zip.CRC32;

/**
 * A native library and the libraries that it needs, as their jars hold them. A loader wants files,
 * so they are taken out once, into a folder that is the user's and that no one else may write to.
 *
 * @param name the folder's name
 * @param resources the files, the library itself last; %s stands for the platform
 */
record NativeBundle(String name, List<String> resources) {
  /** Names another folder for the files than the user's for caches. */
  static final String CACHE_PROPERTY = "wardrobe.cache";

  /** oneDNN, and what it is linked to. */
  static final NativeBundle ONE_DNN =
      new NativeBundle(
          "onednn",
          List.of(
              "org/bytedeco/dnnl/%s/libgomp.so.1",
              "org/bytedeco/opencl/%s/libOpenCL.so.1", "org/bytedeco/dnnl/%s/libdnnl.so.3"));

  /**
   * Loads the library, for as long as the process lives.
   *
   * @throws UnavailableException if no jar has it for this platform, or it does not load
   */
  // Native code is the point.
  @SuppressWarnings("restricted")
  SymbolLookup lookup() throws UnavailableException {
    Path folder = cache().resolve("native").resolve(name).toAbsolutePath();
    Path library = folder;
    try {
      List<URL> sources = sources();
      create(folder);
      for (URL source : sources) {
        library = folder.resolve(source.getPath().substring(source.getPath().lastIndexOf('/') + 1));
        provide(source, library);
      }
    } catch (IOException e) {
      throw new UnavailableException(
          "its files cannot be kept in %s (%s); name another folder with -D%s"
              .formatted(folder, e, CACHE_PROPERTY),
          e);
    }
    try {
      return SymbolLookup.libraryLookup(library, Arena.global());
    } catch (IllegalArgumentException e) {
      throw new UnavailableException(
          "%s does not load: the system lacks a library that it needs (ldd lists them), or forbids"
                  .formatted(library)
              + " programs there",
          e);
    }
  }

  private List<URL> sources() throws UnavailableException {
    String platform = platform();
    ClassLoader loader = NativeBundle.class.getClassLoader();
    List<URL> found = new ArrayList<>();
    for (String resource : resources) {
      URL source = loader.getResource(resource.formatted(platform));
      if (source == null) {
        throw new UnavailableException("this build has no oneDNN for " + platform);
      }
      found.add(source);
    }
    return found;
  }

  /** As the jars name it. */
  private static String platform() {
    String system = System.getProperty("os.name", "").toLowerCase(Locale.ROOT);
    String processor = System.getProperty("os.arch", "");
    return (system.startsWith("mac") ? "macosx" : system.split(" ", 2)[0])
        + "-"
        + switch (processor) {
          case "amd64" -> "x86_64";
          case "aarch64" -> "arm64";
          default -> processor;
        };
  }

  private static Path cache() {
    String chosen = System.getProperty(CACHE_PROPERTY);
    if (chosen != null) {
      return Path.of(chosen);
    }
    String standard = System.getenv("XDG_CACHE_HOME");
    Path parent =
        standard != null && !standard.isEmpty()
            ? Path.of(standard)
            : Path.of(System.getProperty("user.home", ""), ".cache");
    return parent.resolve("wardrobe");
  }

  /** Code comes out of this folder: it must be ours alone. */
  private static void create(Path folder) throws IOException {
    Set<PosixFilePermission> ours = PosixFilePermissions.fromString("rwx------");
    Files.createDirectories(folder, PosixFilePermissions.asFileAttribute(ours));
    PosixFileAttributes found =
        Files.readAttributes(folder, PosixFileAttributes.class, LinkOption.NOFOLLOW_LINKS);
    Path self = Path.of("/proc/self");
    if (!found.isDirectory()
        || found.permissions().contains(PosixFilePermission.GROUP_WRITE)
        || found.permissions().contains(PosixFilePermission.OTHERS_WRITE)
        || (Files.exists(self) && !Files.getOwner(self).equals(found.owner()))) {
      throw new IOException("expected a folder that this user owns and no other may write to");
    }
  }

  /** Sees to it that {@code file} holds what {@code source} does. */
  private static void provide(URL source, Path file) throws IOException {
    if (Files.exists(file) && checksum(Files.newInputStream(file)) == checksum(source)) {
      return;
    }
    Path part = Files.createTempFile(file.getParent(), "part-", null);
    try {
      try (InputStream in = source.openStream()) {
        Files.copy(in, part, StandardCopyOption.REPLACE_EXISTING);
      }
      Files.move(part, file, StandardCopyOption.ATOMIC_MOVE);
    } finally {
      Files.deleteIfExists(part);
    }
  }

  private static long checksum(URL source) throws IOException {
    URLConnection connection = source.openConnection();
    if (connection instanceof JarURLConnection jar && jar.getJarEntry().getCrc() >= 0) {
      return jar.getJarEntry().getCrc();
    }
    return checksum(connection.getInputStream());
  }

  private static long checksum(InputStream in) throws IOException {
    CRC32 sum = new CRC32();
    try (in) {
      byte[] buffer = new byte[1 << 20];
      for (int n = in.read(buffer); n >= 0; n = in.read(buffer)) {
        sum.update(buffer, 0, n);
      }
    }
    return sum.getValue();
  }
}
