package dev.wardrobe.trainer.checkpoint;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.DirectoryNotEmptyException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.Comparator;
import java.util.List;
import java.util.stream.Stream;

/**
 * What is on the disk whole, or not at all: written under a hidden name, flushed, and only then
 * given its own.
 */
public final class Disk {
  /** What begins so was never completed. */
  public static final String UNFINISHED = ".unfinished-";

  private Disk() {}

  /** What fills a folder. */
  public interface Content {
    void writeTo(Path folder) throws IOException;
  }

  /**
   * Makes a folder.
   *
   * @param target must not exist
   * @throws IOException with nothing left behind but what {@link #tidy} removes
   */
  static void folder(Path target, Content content) throws IOException {
    Path unfinished = target.resolveSibling(UNFINISHED + target.getFileName());
    delete(unfinished);
    Files.createDirectories(unfinished);
    boolean complete = false;
    try {
      content.writeTo(unfinished);
      try (Stream<Path> all = Files.walk(unfinished)) {
        for (Path path : (Iterable<Path>) all::iterator) {
          flush(path);
        }
      } catch (UncheckedIOException e) {
        throw e.getCause();
      }
      Files.move(unfinished, target, StandardCopyOption.ATOMIC_MOVE);
      flush(target.resolveSibling("."));
      complete = true;
    } finally {
      if (!complete) {
        delete(unfinished);
      }
    }
  }

  /** Writes a file, in the place of one of that name if there is one. */
  public static void text(Path target, String text) throws IOException {
    Path absolute = target.toAbsolutePath();
    Path unfinished = absolute.resolveSibling(UNFINISHED + target.getFileName());
    boolean complete = false;
    try {
      try (FileChannel channel =
          FileChannel.open(
              unfinished,
              StandardOpenOption.CREATE,
              StandardOpenOption.TRUNCATE_EXISTING,
              StandardOpenOption.WRITE)) {
        ByteBuffer bytes = ByteBuffer.wrap(text.getBytes(StandardCharsets.UTF_8));
        while (bytes.hasRemaining()) {
          channel.write(bytes);
        }
        channel.force(true);
      }
      Files.move(
          unfinished,
          absolute,
          StandardCopyOption.ATOMIC_MOVE,
          StandardCopyOption.REPLACE_EXISTING);
      complete = true;
    } finally {
      if (!complete) {
        Files.deleteIfExists(unfinished);
      }
    }
  }

  /** Waits until what is at a path would survive a loss of power. */
  static void flush(Path path) throws IOException {
    boolean folder = Files.isDirectory(path);
    try (FileChannel channel =
        FileChannel.open(path, folder ? StandardOpenOption.READ : StandardOpenOption.WRITE)) {
      channel.force(true);
    } catch (IOException e) {
      // Not every system opens folders.
      if (!folder) {
        throw e;
      }
    }
  }

  /** Removes what was begun in a folder and never completed. */
  static void tidy(Path folder) throws IOException {
    List<Path> unfinished;
    try (Stream<Path> all = Files.list(folder)) {
      unfinished = all.filter(path -> (path.getFileName() + "").startsWith(UNFINISHED)).toList();
    } catch (NoSuchFileException e) {
      return;
    }
    for (Path path : unfinished) {
      delete(path);
    }
  }

  /** Removes a folder or a file, if it is there. Links are removed, not followed. */
  public static void delete(Path path) throws IOException {
    List<Path> all;
    try (Stream<Path> walked = Files.walk(path)) {
      all = walked.sorted(Comparator.reverseOrder()).toList();
    } catch (NoSuchFileException e) {
      return;
    } catch (UncheckedIOException e) {
      throw e.getCause();
    }
    for (Path each : all) {
      try {
        Files.deleteIfExists(each);
      } catch (DirectoryNotEmptyException e) {
        // Somebody else has put something there; it is theirs.
      }
    }
  }
}
