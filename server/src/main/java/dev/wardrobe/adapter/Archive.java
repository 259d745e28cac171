package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterException.quote;

import dev.wardrobe.adapter.AdapterException.Reason;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Path;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Files in an archive that somebody sent. Nothing in it is believed: of an archive no more is read
 * than its limits allow, nothing is written by a name that it holds, and what it says of a file's
 * size is compared with what comes.
 */
sealed interface Archive extends AutoCloseable permits ZipFiles, TarFiles {
  /** Far more than an adapter and all of its checkpoints have. */
  int MOST_ENTRIES = 10_000;

  /** What is unpacked from a file may have this many bytes for each of the file's own, ... */
  int MOST_RATIO = 200;

  /** ... or this many in all. Zeros, which are all that is packed so well, are soon told. */
  long FREE_BYTES = 256L << 20;

  /**
   * A file in it.
   *
   * @param index its place
   * @param name with {@code /} between folders
   * @param size bytes, as the archive says
   */
  record Item(int index, String name, long size) {
    /** The folder it is in, with a {@code /} at its end; empty for none. */
    String folder() {
      return name.substring(0, name.lastIndexOf('/') + 1);
    }

    String file() {
      return name.substring(name.lastIndexOf('/') + 1);
    }
  }

  /**
   * All files, in their order; folders, links and the like are left out.
   *
   * @throws AdapterException INVALID if one's name leads elsewhere; TOO_LARGE if there are too many
   */
  List<Item> items() throws AdapterException;

  /** The bytes of a file; one at a time is open. */
  InputStream open(Item item) throws AdapterException, IOException;

  @Override
  void close() throws IOException;

  /**
   * Opens an archive by its first bytes.
   *
   * @return null if it is none
   */
  static @Nullable Archive of(Path path, byte[] head) throws AdapterException {
    if (head.length >= 4 && head[0] == 'P' && head[1] == 'K' && (head[2] == 3 || head[2] == 5)) {
      return ZipFiles.open(path);
    }
    boolean packed = head.length >= 2 && head[0] == 0x1f && (head[1] & 0xff) == 0x8b;
    boolean tar =
        head.length >= 262
            && head[257] == 'u'
            && head[258] == 's'
            && head[259] == 't'
            && head[260] == 'a'
            && head[261] == 'r';
    return packed || tar ? new TarFiles(path, packed) : null;
  }

  /**
   * An entry's name in its one form.
   *
   * @throws AdapterException INVALID if it leads out of the archive
   */
  static String checked(String name) throws AdapterException {
    String plain = name;
    while (plain.startsWith("./")) {
      plain = plain.substring(2);
    }
    boolean leadsOut =
        plain.startsWith("/")
            || plain.indexOf('\\') >= 0
            || plain.indexOf('\0') >= 0
            || plain.matches("^[A-Za-z]:.*")
            || List.of(plain.split("/", -1)).contains("..");
    if (leadsOut) {
      throw new AdapterException(
          Reason.INVALID,
          "expected an archive of files in folders below it, got the path %s; pack the adapter's"
                  .formatted(quote(name))
              + " folder by itself");
    }
    return plain;
  }

  static void checkCount(int entries) throws AdapterException {
    if (entries > MOST_ENTRIES) {
      throw new AdapterException(
          Reason.TOO_LARGE,
          "expected an archive of at most %d files, got more; pack only %s and %s"
              .formatted(MOST_ENTRIES, AdapterConfig.FILE, Adapter.WEIGHTS));
    }
  }

  static AdapterException unreadable(Exception e) {
    // The library says where it was, its cause what happened there.
    Exception first = e.getCause() instanceof IOException cause ? cause : e;
    return new AdapterException(
        Reason.INVALID,
        "the archive cannot be read (%s); pack it again, as .zip, .tar or .tar.gz"
            .formatted(AdapterException.message(first)),
        e);
  }
}
