package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterException.quote;

import dev.wardrobe.adapter.AdapterException.Reason;
import java.io.IOException;
import java.nio.channels.SeekableByteChannel;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.SecureDirectoryStream;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.BasicFileAttributeView;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * A directory that adapter files are read from, each once, whole and into memory.
 *
 * <p>Where there is a root, nothing outside of it is read, whatever links say: each file's real
 * path must lie under the root, and is then opened from the root downwards without following any
 * link, so that a link put there after the check is an error and not a way out.
 */
final class AdapterDirectory implements AdapterFiles {
  private final Path directory;
  private final @Nullable Path root;

  /**
   * A directory.
   *
   * @param directory its real path
   * @param root the real path of the root that it lies under, or null if the operator vouches for
   *     it
   */
  AdapterDirectory(Path directory, @Nullable Path root) {
    this.directory = directory;
    this.root = root;
  }

  @Override
  public boolean has(String name) {
    return Files.exists(directory.resolve(name), LinkOption.NOFOLLOW_LINKS);
  }

  /**
   * Opens the regular file {@code name}.
   *
   * @throws AdapterException if it is missing, something else than a regular file, or outside of
   *     the root
   */
  @Override
  public OpenFile open(String name) throws AdapterException {
    try {
      Path file = directory.resolve(name).toRealPath();
      SeekableByteChannel channel =
          root == null ? openTrusted(name, file) : openBeneath(root, name, file);
      try {
        return new OpenFile(name, channel, channel.size(), null);
      } catch (IOException e) {
        channel.close();
        throw e;
      }
    } catch (NoSuchFileException e) {
      throw new AdapterException(
          Reason.INVALID, name + ": expected this file in the adapter's directory, got none", e);
    } catch (IOException e) {
      throw AdapterFiles.unreadable(name, e);
    }
  }

  private static SeekableByteChannel openTrusted(String name, Path file)
      throws AdapterException, IOException {
    if (!Files.isRegularFile(file, LinkOption.NOFOLLOW_LINKS)) {
      throw notRegular(name);
    }
    return Files.newByteChannel(file, Set.of(StandardOpenOption.READ, LinkOption.NOFOLLOW_LINKS));
  }

  private static SeekableByteChannel openBeneath(Path root, String name, Path file)
      throws AdapterException, IOException {
    if (!file.startsWith(root) || file.equals(root)) {
      throw new AdapterException(
          Reason.REFUSED_PATH,
          "%s: expected a file under the adapter root, got a link that leads out of it; copy the"
                  .formatted(name)
              + " file");
    }
    try (DirectoryStream<Path> top = Files.newDirectoryStream(root)) {
      if (top instanceof SecureDirectoryStream<Path> directory) {
        return descend(directory, name, root.relativize(file));
      }
    }
    // A platform without openat: links are still not followed in the last step.
    return openTrusted(name, file);
  }

  private static SeekableByteChannel descend(
      SecureDirectoryStream<Path> directory, String name, Path path)
      throws AdapterException, IOException {
    if (path.getNameCount() > 1) {
      try (SecureDirectoryStream<Path> next =
          directory.newDirectoryStream(path.getName(0), LinkOption.NOFOLLOW_LINKS)) {
        return descend(next, name, path.subpath(1, path.getNameCount()));
      }
    }
    BasicFileAttributeView view =
        directory.getFileAttributeView(
            path, BasicFileAttributeView.class, LinkOption.NOFOLLOW_LINKS);
    // Opening a pipe would wait for its writer.
    if (!view.readAttributes().isRegularFile()) {
      throw notRegular(name);
    }
    return directory.newByteChannel(
        path, Set.of(StandardOpenOption.READ, LinkOption.NOFOLLOW_LINKS));
  }

  private static AdapterException notRegular(String name) {
    return new AdapterException(
        Reason.INVALID, name + ": expected a regular file, got something else; copy the file");
  }

  /** For messages. */
  @Override
  public String toString() {
    return quote(String.valueOf(directory.getFileName()));
  }
}
