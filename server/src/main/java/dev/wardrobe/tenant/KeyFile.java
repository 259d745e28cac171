package dev.wardrobe.tenant;

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.BasicFileAttributes;
import java.nio.file.attribute.FileAttribute;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * A file of {@link Grant}s, one JSON object a line; blank lines and those that begin with {@code #}
 * say nothing. It holds hashes and no keys.
 *
 * <p>A grant is added by appending a line, and taken away by replacing the file whole, so that no
 * addition brings back what was taken away meanwhile.
 */
public final class KeyFile {
  private static final int LARGEST = 16 << 20;
  private static final int MOST = 100_000;

  private static final ObjectMapper JSON =
      new ObjectMapper()
          .enable(JsonParser.Feature.STRICT_DUPLICATE_DETECTION)
          .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);

  private static final Set<PosixFilePermission> PRIVATE =
      EnumSet.of(PosixFilePermission.OWNER_READ, PosixFilePermission.OWNER_WRITE);

  private final Path path;

  public KeyFile(Path path) {
    this.path = path;
  }

  /** Which it is, to see whether it was changed. */
  String stamp() throws IOException {
    BasicFileAttributes attributes = Files.readAttributes(path, BasicFileAttributes.class);
    return "%s %s %s"
        .formatted(attributes.lastModifiedTime(), attributes.size(), attributes.fileKey());
  }

  /**
   * All of it.
   *
   * @throws KeyFileException if any of it cannot be read
   */
  public List<Grant> read() throws KeyFileException {
    return parse(text());
  }

  private List<Grant> parse(String text) throws KeyFileException {
    List<Grant> grants = new ArrayList<>();
    Set<String> ids = new HashSet<>();
    Set<String> proofs = new HashSet<>();
    int number = 0;
    for (String line : text.split("\n", -1)) {
      number++;
      if (says(line)) {
        Grant grant = parse(line, number);
        if (!ids.add(grant.id())) {
          throw refusal(number, "id: expected one of its own, got that of another line");
        }
        if (!proofs.add(grant.hash() + " " + grant.certificate())) {
          throw refusal(number, "expected a key or certificate of its own, got another line's");
        }
        grants.add(grant);
        if (grants.size() > MOST) {
          throw refusal(number, "expected at most %d keys, got more".formatted(MOST));
        }
      }
    }
    return List.copyOf(grants);
  }

  private static boolean says(String line) {
    return !line.isBlank() && !line.startsWith("#");
  }

  private Grant parse(String line, int number) throws KeyFileException {
    try {
      return Grant.of(JSON.readTree(line));
    } catch (JsonProcessingException e) {
      // Its own message repeats the line, and with it perhaps a key that was put there by mistake.
      throw refusal(
          number,
          "expected a JSON object, got something else at column "
              + (e.getLocation() == null ? 1 : e.getLocation().getColumnNr()));
    } catch (IllegalArgumentException e) {
      throw refusal(number, String.valueOf(e.getMessage()));
    }
  }

  private KeyFileException refusal(int line, String what) {
    return new KeyFileException("%s, line %d: %s".formatted(path, line, what));
  }

  private String text() throws KeyFileException {
    try (InputStream in = Files.newInputStream(path)) {
      byte[] bytes = in.readNBytes(LARGEST + 1);
      if (bytes.length > LARGEST) {
        throw new KeyFileException(
            "%s: expected at most %d bytes, got more".formatted(path, LARGEST));
      }
      return StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString();
    } catch (NoSuchFileException e) {
      throw new KeyFileException(
          path + ": expected a file of keys, got none; wardrobe keys create makes one", e);
    } catch (CharacterCodingException e) {
      throw new KeyFileException(path + ": expected UTF-8, got bytes that are not", e);
    } catch (IOException e) {
      throw new KeyFileException(path + ": cannot be read; check its permissions", e);
    }
  }

  /**
   * Whether others than its owner may do what only they should; null if all is well, or the file
   * system does not say.
   *
   * @throws KeyFileException if others may write to it: they could give themselves keys
   */
  public @Nullable String checkMode() throws KeyFileException {
    Set<PosixFilePermission> mode;
    try {
      mode = Files.getPosixFilePermissions(path);
    } catch (IOException | UnsupportedOperationException e) {
      return null;
    }
    if (mode.contains(PosixFilePermission.OTHERS_WRITE)) {
      throw new KeyFileException(
          "%s: expected a file that others cannot write to, got mode %s; chmod 600 it"
              .formatted(path, PosixFilePermissions.toString(mode)));
    }
    return mode.contains(PosixFilePermission.OTHERS_READ)
            || mode.contains(PosixFilePermission.GROUP_WRITE)
        ? "%s: others may read it, or its group write to it (mode %s); chmod 600 it"
            .formatted(path, PosixFilePermissions.toString(mode))
        : null;
  }

  /**
   * Adds a grant; makes the file, for its owner alone, if there is none.
   *
   * @throws KeyFileException if the file is not one of keys, or has one of this name
   */
  public void add(Grant grant) throws KeyFileException {
    try {
      create();
      String text = text();
      for (Grant other : parse(text)) {
        if (other.id().equals(grant.id())) {
          throw new KeyFileException(
              "id: expected one that is not in %s, got %s; choose another, or revoke it first"
                  .formatted(path, grant.id()));
        }
        if (grant.certificate() != null && grant.certificate().equals(other.certificate())) {
          throw new KeyFileException(
              "certificate: expected one that is not in %s, got that of %s; revoke it first"
                  .formatted(path, other.id()));
        }
      }
      String start = text.isEmpty() || text.endsWith("\n") ? "" : "\n";
      ByteBuffer line =
          StandardCharsets.UTF_8.encode(start + JSON.writeValueAsString(grant.toJson()) + "\n");
      try (FileChannel out =
          FileChannel.open(path, StandardOpenOption.WRITE, StandardOpenOption.APPEND)) {
        while (line.hasRemaining()) {
          out.write(line);
        }
        out.force(true);
      }
    } catch (IOException e) {
      throw unwritable(e);
    }
  }

  private void create() throws IOException {
    try {
      Files.createFile(path, mode());
    } catch (FileAlreadyExistsException e) {
      // As it should be, but for the first.
    }
  }

  private FileAttribute<?>[] mode() {
    return path.getFileSystem().supportedFileAttributeViews().contains("posix")
        ? new FileAttribute<?>[] {PosixFilePermissions.asFileAttribute(PRIVATE)}
        : new FileAttribute<?>[0];
  }

  /**
   * Takes a grant away.
   *
   * @throws KeyFileException if there is none of this name
   */
  public void remove(String id) throws KeyFileException {
    String text = text();
    List<Grant> grants = parse(text);
    if (grants.stream().noneMatch(grant -> grant.id().equals(id))) {
      throw new KeyFileException(
          "id: expected one that is in %s, got %s; see wardrobe keys list"
              .formatted(path, Quoted.of(id)));
    }
    StringBuilder rest = new StringBuilder();
    int at = 0;
    for (String line : text.split("(?<=\n)")) {
      if (!says(line) || !grants.get(at++).id().equals(id)) {
        rest.append(line);
      }
    }
    try {
      // Through a link, to what it leads to.
      Path target = path.toRealPath();
      Path unfinished = target.resolveSibling(target.getFileName() + ".unfinished");
      Files.deleteIfExists(unfinished);
      Files.createFile(unfinished, mode());
      try {
        Files.writeString(unfinished, rest);
        keepOwner(target, unfinished);
        Files.move(unfinished, target, StandardCopyOption.ATOMIC_MOVE);
      } finally {
        Files.deleteIfExists(unfinished);
      }
    } catch (IOException e) {
      throw unwritable(e);
    }
  }

  /** A server that runs as another user must be able to read it afterwards as it was before. */
  private static void keepOwner(Path from, Path to) throws IOException {
    try {
      Files.setPosixFilePermissions(to, Files.getPosixFilePermissions(from));
      if (!Files.getOwner(from).equals(Files.getOwner(to))) {
        Files.setOwner(to, Files.getOwner(from));
      }
    } catch (UnsupportedOperationException e) {
      // There are no such things there.
    }
  }

  private KeyFileException unwritable(IOException e) {
    return new KeyFileException(
        path + ": cannot be written; check that its directory exists, and its permissions", e);
  }

  @Override
  public String toString() {
    return path.toString();
  }
}
