package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterException.quote;

import dev.wardrobe.adapter.AdapterException.Reason;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** The two files of an adapter among what somebody sent: as they are, or in an archive. */
final class Parcel implements AutoCloseable {
  private static final int PIECE = 1 << 18;

  /** Where a file is. */
  private record Place(@Nullable Archive archive, Archive.Item item, Path path) {
    InputStream open() throws AdapterException, IOException {
      return archive == null ? Files.newInputStream(path) : archive.open(item);
    }
  }

  /** A folder's files that are of interest. */
  private static final class Folder {
    @Nullable Place config;
    @Nullable Place weights;
    boolean pickle;
  }

  private final List<Archive> archives = new ArrayList<>();
  private final Map<String, Folder> folders = new HashMap<>();
  private int files;

  /**
   * Looks for an adapter in files.
   *
   * @throws AdapterException INVALID if there is none, or more than one
   */
  static Parcel of(List<SentFile> sent) throws AdapterException {
    Parcel parcel = new Parcel();
    boolean complete = false;
    try {
      for (SentFile file : sent) {
        parcel.add(file);
      }
      complete = true;
      return parcel;
    } finally {
      if (!complete) {
        parcel.close();
      }
    }
  }

  private void add(SentFile sent) throws AdapterException {
    String name = sent.name().substring(sent.name().lastIndexOf('/') + 1);
    try {
      Archive archive = isNamed(name) ? null : Archive.of(sent.path(), head(sent.path()));
      if (archive == null) {
        Archive.Item item = new Archive.Item(0, name, Files.size(sent.path()));
        add("", new Place(null, item, sent.path()));
        return;
      }
      archives.add(archive);
      for (Archive.Item item : archive.items()) {
        add(archives.size() + ":" + item.folder(), new Place(archive, item, sent.path()));
      }
    } catch (IOException e) {
      throw new AdapterException(
          Reason.IO,
          "%s: cannot be read (%s); send it again"
              .formatted(quote(name), AdapterException.message(e)),
          e);
    }
  }

  private static boolean isNamed(String name) {
    return name.equals(AdapterConfig.FILE) || name.equals(Adapter.WEIGHTS);
  }

  private static byte[] head(Path path) throws IOException {
    try (InputStream in = Files.newInputStream(path)) {
      return in.readNBytes(512);
    }
  }

  private void add(String folder, Place place) throws AdapterException {
    files++;
    String file = place.item().file();
    if (!isNamed(file) && !file.equals(Adapter.PICKLE)) {
      return;
    }
    Folder found = folders.computeIfAbsent(folder, f -> new Folder());
    boolean again = false;
    switch (file) {
      case AdapterConfig.FILE -> {
        again = found.config != null;
        found.config = place;
      }
      case Adapter.WEIGHTS -> {
        again = found.weights != null;
        found.weights = place;
      }
      default -> found.pickle = true;
    }
    if (again) {
      throw new AdapterException(
          Reason.INVALID,
          "expected one %s, got two of the same path; send one of them".formatted(file));
    }
  }

  /** The adapter's folder: the one that is least deep. */
  private Folder folder() throws AdapterException {
    List<String> whole =
        folders.entrySet().stream()
            .filter(entry -> entry.getValue().config != null && entry.getValue().weights != null)
            .map(Map.Entry::getKey)
            .sorted(Comparator.comparingLong(Parcel::depth).thenComparing(name -> name))
            .toList();
    if (whole.isEmpty()) {
      throw missing();
    }
    if (whole.size() > 1 && depth(whole.get(0)) == depth(whole.get(1))) {
      throw new AdapterException(
          Reason.INVALID,
          "expected one adapter, got one in %s and one in %s; send them one by one"
              .formatted(quote(shown(whole.get(0))), quote(shown(whole.get(1)))));
    }
    return folders.getOrDefault(whole.getFirst(), new Folder());
  }

  private static long depth(String folder) {
    return folder.chars().filter(c -> c == '/').count();
  }

  private static String shown(String folder) {
    return folder.substring(folder.indexOf(':') + 1);
  }

  private AdapterException missing() {
    boolean config = folders.values().stream().anyMatch(folder -> folder.config != null);
    boolean weights = folders.values().stream().anyMatch(folder -> folder.weights != null);
    boolean pickle = folders.values().stream().anyMatch(folder -> folder.pickle);
    if (pickle && !weights) {
      return Adapter.onlyPickle();
    }
    String got =
        config && weights
            ? "each in a folder of its own"
            : config
                ? "only " + AdapterConfig.FILE
                : weights ? "only " + Adapter.WEIGHTS : "neither among %d files".formatted(files);
    return new AdapterException(
        Reason.INVALID,
        "expected %s and %s in one folder, got %s; send what PEFT's save_pretrained wrote, as its"
                .formatted(AdapterConfig.FILE, Adapter.WEIGHTS, got)
            + " two files or as .zip, .tar or .tar.gz");
  }

  /** Takes a version in from it. */
  Publication publish(AdapterRegistry registry, AdapterStore store, Announcement announcement)
      throws AdapterException {
    Folder folder = folder();
    Place config = folder.config;
    Place weights = folder.weights;
    if (config == null || weights == null) {
      throw missing();
    }
    Publication publication =
        new Publication(
            registry, announcement, store.upload(config.item().size(), weights.item().size()));
    boolean complete = false;
    try {
      copy(config, publication::config);
      copy(weights, publication::weights);
      complete = true;
      return publication;
    } finally {
      if (!complete) {
        publication.close();
      }
    }
  }

  /** Takes the next bytes. */
  private interface Taker {
    void take(ByteBuffer bytes) throws AdapterException;
  }

  private static void copy(Place place, Taker taker) throws AdapterException {
    byte[] piece = new byte[PIECE];
    try (InputStream in = place.open()) {
      for (int read = in.read(piece); read >= 0; read = in.read(piece)) {
        taker.take(ByteBuffer.wrap(piece, 0, read));
      }
    } catch (IOException | IllegalArgumentException e) {
      throw Archive.unreadable(e);
    }
  }

  @Override
  public void close() {
    for (Archive archive : archives) {
      try {
        archive.close();
      } catch (IOException e) {
        // It was only read.
      }
    }
  }
}
