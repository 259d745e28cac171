package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterException.quote;

import dev.wardrobe.adapter.AdapterException.Reason;
import java.io.IOException;
import java.nio.file.AccessDeniedException;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** The directories, chosen by the operator, under which clients may name adapters. */
final class AdapterRoots {
  private static final int LONGEST_PATH = 1024;

  private final List<Path> roots;

  private AdapterRoots(List<Path> roots) {
    this.roots = roots;
  }

  /**
   * Roots at these directories, which must exist.
   *
   * @throws AdapterException if one does not, or is no directory
   */
  static AdapterRoots of(List<Path> directories) throws AdapterException {
    List<Path> roots = new ArrayList<>();
    for (Path directory : directories) {
      try {
        Path real = directory.toRealPath();
        if (!Files.isDirectory(real)) {
          throw new AdapterException(
              Reason.IO,
              "adapter root %s: expected a directory, got a file".formatted(quote(directory + "")));
        }
        roots.add(real);
      } catch (IOException e) {
        throw new AdapterException(
            Reason.IO,
            "adapter root %s: expected a directory that exists and can be read; create it, or name"
                    .formatted(quote(directory + ""))
                + " another with --adapter-root",
            e);
      }
    }
    return new AdapterRoots(List.copyOf(roots));
  }

  boolean isEmpty() {
    return roots.isEmpty();
  }

  /** Their real paths. */
  List<Path> directories() {
    return roots;
  }

  /**
   * Whether {@code path} may be looked for at all.
   *
   * @throws AdapterException if there are no roots, or the path is absolute or has parts that go up
   */
  void check(String path) throws AdapterException {
    if (roots.isEmpty()) {
      throw new AdapterException(
          Reason.REFUSED_PATH,
          "expected an adapter that was given at start, got the path %s; the server has no adapter"
                  .formatted(quote(path))
              + " roots: start it with --adapter-root DIR");
    }
    if (!isPlain(path)) {
      throw new AdapterException(
          Reason.REFUSED_PATH,
          "path: expected one relative to an adapter root, without '.' and '..' parts, got %s"
              .formatted(quote(path)));
    }
  }

  private static boolean isPlain(String path) {
    if (path.isEmpty()
        || path.length() > LONGEST_PATH
        || path.chars().anyMatch(c -> Character.isISOControl(c) || c == '\\' || c == ':')) {
      return false;
    }
    for (String part : path.split("/", -1)) {
      if (part.isEmpty() || part.equals(".") || part.equals("..")) {
        return false;
      }
    }
    return true;
  }

  /** Whether a root holds a directory at {@code path}, a checked one. */
  boolean has(String path) {
    try {
      check(path);
      find(path);
      return true;
    } catch (AdapterException e) {
      return false;
    }
  }

  /**
   * The directory at {@code path} under the first root that has one.
   *
   * @throws AdapterException if the path is refused, leads out of the root, or none has it
   */
  AdapterDirectory find(String path) throws AdapterException {
    check(path);
    for (Path root : roots) {
      try {
        Path real = root.resolve(path).toRealPath();
        if (!real.startsWith(root)) {
          throw new AdapterException(
              Reason.REFUSED_PATH,
              "path %s: expected a directory under the adapter root, got a link that leads out of"
                      .formatted(quote(path))
                  + " it; copy the adapter, or start the server with --adapter-root there");
        }
        if (Files.isDirectory(real)) {
          return new AdapterDirectory(real, root);
        }
      } catch (AccessDeniedException e) {
        throw new AdapterException(
            Reason.IO, "path %s: cannot be read; check its permissions".formatted(quote(path)), e);
      } catch (IOException | InvalidPathException e) {
        // Missing, a part that is a file, a loop of links, a name too long: not under this root.
      }
    }
    throw missing(path);
  }

  /** What is said of a path at which no root has anything. */
  static AdapterException missing(String path) {
    return new AdapterException(
        Reason.NOT_FOUND,
        "expected a PEFT directory at %s under an adapter root, got none; copy it there, or name"
                .formatted(quote(path))
            + " another");
  }
}
