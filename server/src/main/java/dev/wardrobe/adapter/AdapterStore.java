package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterException.message;
import static dev.wardrobe.adapter.AdapterException.quote;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.adapter.AdapterException.Reason;
import dev.wardrobe.model.Progress;
import java.io.IOException;
import java.io.InputStream;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.FileChannel;
import java.nio.channels.SeekableByteChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.BasicFileAttributes;
import java.nio.file.attribute.FileTime;
import java.security.MessageDigest;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executor;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Adapters on disk: an OCI image layout that other tools read, and that is never half changed.
 *
 * <p>Blobs lie under their SHA-256. The {@link Catalog} and all tags are in {@code index.json}, and
 * change by the renaming of that one file, after all that it points to is on the disk: whoever ends
 * the process at whatever moment leaves the state before or the one after. What an interrupted
 * publication leaves is removed when the store is next opened.
 *
 * <p>One process at a time may write, which a lock says; any number may read. Safe for use by all
 * threads. {@link #catalog}, {@link #hold} and {@link Hold#close} neither wait nor touch files.
 */
public final class AdapterStore implements AutoCloseable {
  private static final Logger log = LoggerFactory.getLogger(AdapterStore.class);

  /*
   * One lock, `writing`, is held while the index is written, and while blobs come to their final
   * places or go away. Uploads are written outside of it. `holds` has a monitor of its own, which
   * is never held while files are touched: an adapter that is in the catalog, or held, keeps its
   * blobs, and the catalog changes before blobs go.
   *
   * .staging holds what is being written, and for each adapter that may have blobs without being in
   * the catalog, a doubt: its manifest under its digest. A doubt is written before the blobs come,
   * and before the catalog drops it, and goes once the matter is settled. So after a crash the
   * next process knows what to look at, and need not read every manifest.
   */

  private static final String INDEX = "index.json";
  private static final String LAYOUT = "oci-layout";
  private static final String LAYOUT_TEXT = "{\"imageLayoutVersion\":\"1.0.0\"}";
  private static final String STAGING = ".staging";
  private static final String LOCK = ".lock";
  private static final int HEX = 64;

  /**
   * The stores that this process writes to. Whoever closes a file gives up all of the process's
   * locks on it, so the lock's file must not even be opened a second time.
   */
  private static final Set<Path> WRITTEN_HERE = ConcurrentHashMap.newKeySet();

  private static final int COPIED_AT_ONCE = 1 << 20;

  /** Most bytes of another tool's manifest that is looked into. */
  private static final int LARGEST_MANIFEST = 4 << 20;

  private static final int DEEPEST_INDEX = 8;

  private final Path root;
  private final Path blobs;
  private final Path staging;
  private final Disk disk;
  private final StoreOptions options;
  private final Executor reclaimer;
  private final @Nullable FileChannel lockFile;

  private final ReentrantLock writing = new ReentrantLock();
  private final Map<String, Manifest> manifests = new ConcurrentHashMap<>();
  private final Map<String, Integer> holds = new HashMap<>();
  private final Set<String> doubts = new HashSet<>();
  private final AtomicLong files = new AtomicLong();
  private volatile StoreIndex index = StoreIndex.EMPTY;
  private volatile boolean closed;
  private @Nullable Stamp stamp;
  private int uploads;
  private long uploadBytes;

  /** By which it is seen that another tool wrote the index. */
  private record Stamp(long size, FileTime modified, @Nullable Object key) {
    static Stamp of(Path file) throws IOException {
      BasicFileAttributes read =
          Files.readAttributes(file, BasicFileAttributes.class, LinkOption.NOFOLLOW_LINKS);
      return new Stamp(read.size(), read.lastModifiedTime(), read.fileKey());
    }
  }

  /** A change of the catalog. */
  @FunctionalInterface
  public interface Edit {
    /** The catalog that follows; the same one if there is nothing to change. */
    Catalog apply(Catalog current) throws AdapterException;
  }

  /**
   * What a collection removed.
   *
   * @param removed files
   * @param bytes of those
   * @param kept files that nothing refers to, too young to be removed
   */
  public record Collected(int removed, long bytes, int kept) {}

  private AdapterStore(
      Path root,
      @Nullable FileChannel lockFile,
      Disk disk,
      StoreOptions options,
      Executor reclaimer) {
    this.root = root;
    this.blobs = root.resolve("blobs").resolve("sha256");
    this.staging = root.resolve(STAGING);
    this.lockFile = lockFile;
    this.disk = disk;
    this.options = options;
    this.reclaimer = reclaimer;
  }

  /**
   * Opens the store at {@code directory} for writing, and removes what an interrupted process left.
   * Creates it if there is nothing.
   *
   * @throws AdapterException IN_USE if another process writes to it; DAMAGED if it cannot be
   *     understood; INVALID if the directory holds something else
   */
  public static AdapterStore open(Path directory, StoreOptions options) throws AdapterException {
    return open(
        directory,
        options,
        new Disk(),
        task -> Thread.ofVirtual().name("wardrobe-store").start(task));
  }

  static AdapterStore open(Path directory, StoreOptions options, Disk disk, Executor reclaimer)
      throws AdapterException {
    try {
      Files.createDirectories(directory);
      Path root = directory.toRealPath();
      checkOurs(root);
      FileChannel lockFile = lock(root);
      AdapterStore store = new AdapterStore(root, lockFile, disk, options, reclaimer);
      boolean opened = false;
      try {
        store.begin();
        opened = true;
        return store;
      } finally {
        if (!opened) {
          unlock(root, lockFile);
        }
      }
    } catch (IOException e) {
      throw failed(directory, "cannot be opened", e);
    }
  }

  /**
   * Opens the store at {@code directory} for reading what it holds now, whoever writes to it.
   *
   * @throws AdapterException NOT_FOUND if there is none; DAMAGED if it cannot be understood
   */
  public static AdapterStore openToRead(Path directory, StoreOptions options)
      throws AdapterException {
    try {
      AdapterStore store =
          new AdapterStore(directory.toRealPath(), null, new Disk(), options, Runnable::run);
      store.checkLayout();
      store.index = store.readIndex();
      return store;
    } catch (NoSuchFileException e) {
      throw new AdapterException(
          Reason.NOT_FOUND,
          "expected a store at %s, got none; check the path".formatted(quote(directory + "")),
          e);
    } catch (IOException e) {
      throw failed(directory, "cannot be opened", e);
    }
  }

  /** Refuses to make a store of a directory in which somebody keeps something else. */
  private static void checkOurs(Path root) throws IOException, AdapterException {
    if (Files.exists(root.resolve(LAYOUT), LinkOption.NOFOLLOW_LINKS)) {
      return;
    }
    try (DirectoryStream<Path> entries = Files.newDirectoryStream(root)) {
      for (Path entry : entries) {
        String name = entry.getFileName() + "";
        if (!Set.of(LOCK, STAGING, "blobs", INDEX).contains(name)) {
          throw new AdapterException(
              Reason.INVALID,
              "store %s: expected an OCI image layout or an empty directory, got one with %s; name"
                      .formatted(quote(root + ""), quote(name))
                  + " another directory");
        }
      }
    }
  }

  private static FileChannel lock(Path root) throws IOException, AdapterException {
    if (!WRITTEN_HERE.add(root)) {
      throw inUse(root);
    }
    boolean locked = false;
    try {
      FileChannel file =
          FileChannel.open(
              root.resolve(LOCK),
              Set.of(
                  StandardOpenOption.CREATE, StandardOpenOption.WRITE, LinkOption.NOFOLLOW_LINKS));
      try {
        locked = file.tryLock() != null;
      } finally {
        if (!locked) {
          file.close();
        }
      }
      if (!locked) {
        throw inUse(root);
      }
      return file;
    } finally {
      if (!locked) {
        WRITTEN_HERE.remove(root);
      }
    }
  }

  private static void unlock(Path root, FileChannel file) throws IOException {
    try {
      file.close();
    } finally {
      WRITTEN_HERE.remove(root);
    }
  }

  private static AdapterException inUse(Path root) {
    return new AdapterException(
        Reason.IN_USE,
        "store %s: another process writes to it; stop that server first, or ask it to make the"
                .formatted(quote(root + ""))
            + " change");
  }

  /** Makes what is missing, reads, and settles what is in doubt. */
  private void begin() throws IOException, AdapterException {
    disk.createDirectory(root.resolve("blobs"));
    disk.createDirectory(blobs);
    disk.forceDirectory(root.resolve("blobs"));
    disk.createDirectory(staging);
    clearStaging();
    boolean empty = !Files.exists(root.resolve(LAYOUT), LinkOption.NOFOLLOW_LINKS);
    if (empty && !Files.exists(root.resolve(INDEX), LinkOption.NOFOLLOW_LINKS)) {
      replace(root.resolve(INDEX), StoreIndex.EMPTY.bytes());
    }
    if (empty) {
      replace(root.resolve(LAYOUT), LAYOUT_TEXT.getBytes(StandardCharsets.US_ASCII));
    }
    checkLayout();
    stamp = stampNow();
    index = readIndex();
    index.catalog().contents(); // Now, and not in the first request.
    settle(Set.copyOf(doubts));
  }

  /** Where what is written lies until it is whole. */
  Path staging() {
    return staging;
  }

  /** Removes what was being written; what is left are doubts. */
  private void clearStaging() throws IOException {
    try (DirectoryStream<Path> entries = Files.newDirectoryStream(staging)) {
      for (Path entry : entries) {
        String name = entry.getFileName() + "";
        if (isHex(name)) {
          doubts.add("sha256:" + name);
        } else {
          disk.delete(entry);
        }
      }
    }
  }

  private static boolean isHex(String name) {
    return name.length() == HEX && Manifest.isDigest("sha256:" + name);
  }

  private void checkLayout() throws IOException, AdapterException {
    byte[] bytes = readSmall(root.resolve(LAYOUT), 4096);
    String version;
    try {
      version = StoreIndex.JSON.readTree(bytes).path("imageLayoutVersion").asText("");
    } catch (IOException e) {
      throw damaged(LAYOUT + ": " + message(e), e);
    }
    if (!version.startsWith("1.")) {
      throw damaged(
          "%s: expected imageLayoutVersion 1.0.0, got %s".formatted(LAYOUT, quote(version)), null);
    }
    for (Path directory : List.of(root.resolve("blobs"), blobs)) {
      if (!Files.isDirectory(directory, LinkOption.NOFOLLOW_LINKS)) {
        throw damaged(
            "%s: expected a directory, got none or a link".formatted(root.relativize(directory)),
            null);
      }
    }
  }

  private Stamp stampNow() throws IOException, AdapterException {
    try {
      return Stamp.of(root.resolve(INDEX));
    } catch (NoSuchFileException e) {
      throw damaged(INDEX + ": expected this file, got none", e);
    }
  }

  private StoreIndex readIndex() throws IOException, AdapterException {
    try {
      return StoreIndex.parse(readSmall(root.resolve(INDEX), StoreIndex.LARGEST_FILE));
    } catch (NoSuchFileException e) {
      throw damaged(INDEX + ": expected this file, got none", e);
    } catch (AdapterException e) {
      throw damaged(INDEX + ": " + e.getMessage(), e);
    }
  }

  /** All of a regular file that has at most {@code limit} bytes. */
  private byte[] readSmall(Path file, int limit) throws IOException, AdapterException {
    try (SeekableByteChannel channel = openRegular(file);
        InputStream in = Channels.newInputStream(channel)) {
      long size = channel.size();
      byte[] bytes = size > limit ? new byte[0] : in.readNBytes(limit + 1);
      if (size > limit || bytes.length > limit) {
        throw damaged(
            "%s: expected at most %d bytes, got %d"
                .formatted(root.relativize(file), limit, Math.max(size, bytes.length)),
            null);
      }
      return bytes;
    }
  }

  private SeekableByteChannel openRegular(Path file) throws IOException, AdapterException {
    // Opening a pipe would wait for its writer.
    BasicFileAttributes attributes =
        Files.readAttributes(file, BasicFileAttributes.class, LinkOption.NOFOLLOW_LINKS);
    if (!attributes.isRegularFile()) {
      throw damaged(
          "%s: expected a regular file, got something else".formatted(root.relativize(file)), null);
    }
    return Files.newByteChannel(file, Set.of(StandardOpenOption.READ, LinkOption.NOFOLLOW_LINKS));
  }

  private AdapterException damaged(String what, @Nullable Exception cause) {
    String message =
        "store %s is damaged: %s; restore it from a copy".formatted(quote(root + ""), what);
    return cause == null
        ? new AdapterException(Reason.DAMAGED, message)
        : new AdapterException(Reason.DAMAGED, message, cause);
  }

  private static AdapterException failed(Path directory, String what, IOException e) {
    String why = e.getMessage() == null ? e.getClass().getSimpleName() : message(e);
    return new AdapterException(
        Reason.IO,
        "store %s %s (%s %s); check its permissions and the space on its disk"
            .formatted(quote(directory + ""), what, e.getClass().getSimpleName(), why),
        e);
  }

  /** What is called how, now. */
  public Catalog catalog() {
    return index.catalog();
  }

  /** The descriptors that other tools have put into the index. */
  List<ObjectNode> otherTags() {
    return index.tags();
  }

  StoreOptions options() {
    return options;
  }

  /** Where it lies. */
  public Path directory() {
    return root;
  }

  /**
   * Changes the catalog: on disk first, all of it or nothing. Adapters that no version stands for
   * any more, and nobody holds, go with their blobs.
   *
   * @param edit runs once; what it throws is thrown, and nothing changes. What is new in it must be
   *     {@link Upload#finish held}
   * @return the catalog that is now in force
   * @throws AdapterException INVALID if it has an adapter whose content is not here; IO if it
   *     cannot be written: then what was before is still there
   */
  public Catalog update(Edit edit) throws AdapterException {
    writing.lock();
    try {
      checkWritable();
      StoreIndex before = current();
      Catalog next = edit.apply(before.catalog());
      if (next.equals(before.catalog())) {
        return next;
      }
      Map<String, Content> old = before.catalog().contents();
      Set<String> dropped = new HashSet<>();
      for (Content content : next.contents().values()) {
        if (!old.containsKey(content.digest())) {
          if (!held(content.digest())) {
            throw new AdapterException(
                Reason.INVALID,
                "%s: expected an adapter that is held, got one that is not; upload it first"
                    .formatted(content.digest()));
          }
          checkHere(content);
        }
      }
      for (String digest : old.keySet()) {
        if (!next.contents().containsKey(digest)) {
          dropped.add(digest);
        }
      }
      for (String digest : dropped) {
        doubtIfWhole(digest);
      }
      write(before.with(next));
      Set<String> doubtful = new HashSet<>(dropped);
      doubtful.addAll(doubts);
      settle(doubtful);
      return next;
    } catch (IOException e) {
      throw failed(root, "cannot be written, and is as it was", e);
    } finally {
      writing.unlock();
    }
  }

  private void checkWritable() throws AdapterException {
    if (closed) {
      throw new AdapterException(Reason.IO, "the store is closed");
    }
    if (lockFile == null) {
      throw new AdapterException(Reason.IN_USE, "the store was opened for reading only");
    }
  }

  /** The index, with what other tools have written to it since. */
  private StoreIndex current() throws IOException, AdapterException {
    Stamp now = stampNow();
    if (!now.equals(stamp)) {
      StoreIndex read = readIndex();
      index = new StoreIndex(index.catalog(), read.tags(), read.annotations(), read.members());
      stamp = now;
    }
    return index;
  }

  private void checkHere(Content content) throws AdapterException {
    Manifest manifest = manifest(content.digest());
    if (!manifest.content().equals(content)) {
      throw new AdapterException(
          Reason.INVALID,
          "%s: expected the sizes that its manifest has, got %s"
              .formatted(content.digest(), content));
    }
    for (Manifest.Blob blob : List.of(manifest.config(), manifest.weights())) {
      try {
        BasicFileAttributes file =
            Files.readAttributes(
                blob(blob.digest()), BasicFileAttributes.class, LinkOption.NOFOLLOW_LINKS);
        if (!file.isRegularFile() || file.size() != blob.bytes()) {
          throw damaged(
              "blob %s: expected a file of %d bytes, got %d"
                  .formatted(blob.digest(), blob.bytes(), file.size()),
              null);
        }
      } catch (IOException e) {
        throw missing(blob.digest(), e);
      }
    }
  }

  private AdapterException missing(String digest, IOException e) {
    return e instanceof NoSuchFileException
        ? damaged("expected the blob %s, got none".formatted(digest), e)
        : failed(root, "cannot be read at blob " + digest, e);
  }

  private Path blob(String digest) {
    return blobs.resolve(digest.substring("sha256:".length()));
  }

  /** The manifest of an adapter whose blobs are here. */
  private Manifest manifest(String digest) throws AdapterException {
    Manifest known = manifests.get(digest);
    if (known != null) {
      return known;
    }
    if (!Manifest.isDigest(digest)) {
      throw new AdapterException(
          Reason.INVALID,
          "expected sha256: and 64 hexadecimal digits, got %s".formatted(quote(digest)));
    }
    byte[] bytes;
    try {
      bytes = readSmall(blob(digest), Manifest.LARGEST);
    } catch (IOException e) {
      throw missing(digest, e);
    }
    String found = Manifest.digest(MemorySegment.ofArray(bytes));
    if (!found.equals(digest)) {
      throw damaged("blob %s: its content is %s".formatted(digest, found), null);
    }
    Manifest manifest = Manifest.parse(bytes);
    if (manifest == null) {
      throw new AdapterException(
          Reason.INVALID,
          "%s: expected an adapter's canonical manifest, got something else".formatted(digest));
    }
    manifests.put(digest, manifest);
    return manifest;
  }

  /** Writes the index, and makes it the one in force. */
  private void write(StoreIndex next) throws IOException, AdapterException {
    byte[] bytes = next.bytes();
    Path file = root.resolve(INDEX);
    Path part = part(INDEX, bytes);
    try {
      disk.move(part, file);
    } catch (IOException e) {
      discard(part);
      throw e;
    }
    index = next;
    stamp = null; // Read again, unless it is known below.
    try {
      stamp = Stamp.of(file);
      disk.forceDirectory(root);
    } catch (IOException e) {
      throw new AdapterException(
          Reason.IO,
          "store %s: the change is made, but may not outlive a loss of power (%s)"
              .formatted(quote(root + ""), message(e)),
          e);
    }
  }

  private void replace(Path file, byte[] bytes) throws IOException {
    Path part = part(file.getFileName() + "", bytes);
    disk.move(part, file);
    disk.forceDirectory(root);
  }

  /** A new file with {@code bytes}, on the disk. */
  private Path part(String name, byte[] bytes) throws IOException {
    Path part = staging.resolve(name + "." + files.incrementAndGet());
    boolean written = false;
    try (FileChannel channel = disk.create(part)) {
      disk.write(channel, ByteBuffer.wrap(bytes));
      disk.force(channel);
      written = true;
    } finally {
      if (!written) {
        discard(part);
      }
    }
    return part;
  }

  /**
   * Removes a file that nobody needs; what cannot be removed goes when the store is next opened.
   */
  private void discard(Path file) {
    try {
      disk.delete(file);
    } catch (IOException e) {
      log.warn("{} is left behind: {}", file, message(e));
    }
  }

  /** Notes that an adapter is about to leave the catalog; a damaged one can leave it, too. */
  private void doubtIfWhole(String digest) throws IOException {
    try {
      doubt(manifest(digest));
    } catch (AdapterException e) {
      log.warn("{} leaves its blobs behind, for gc: {}", digest, message(e));
    }
  }

  /** Notes, before it is so, that an adapter may have blobs without being in the catalog. */
  private void doubt(Manifest manifest) throws IOException {
    String digest = manifest.digest();
    if (doubts.contains(digest)) {
      return;
    }
    Path note = staging.resolve(digest.substring("sha256:".length()));
    disk.delete(note); // One that could not be removed when it was settled.
    boolean noted = false;
    try (FileChannel channel = disk.create(note)) {
      disk.write(channel, ByteBuffer.wrap(manifest.bytes()));
      noted = true;
      doubts.add(digest);
    } finally {
      if (!noted) {
        discard(note);
      }
    }
  }

  /** Removes the blobs of those adapters that are neither in the catalog nor held. */
  private void settle(Collection<String> digests) {
    List<Manifest> unwanted = new ArrayList<>();
    for (String digest : digests) {
      if (catalog().contents().containsKey(digest)) {
        forget(digest);
      } else if (!held(digest)) {
        Manifest noted = noted(digest);
        if (noted != null) {
          unwanted.add(noted);
        }
      }
    }
    if (unwanted.isEmpty()) {
      return;
    }
    try {
      Set<String> live = live();
      for (Manifest manifest : unwanted) {
        String digest = manifest.digest();
        for (String each :
            List.of(digest, manifest.weights().digest(), manifest.config().digest())) {
          if (!live.contains(each)) {
            disk.delete(blob(each));
          }
        }
        manifests.remove(digest);
        forget(digest);
      }
    } catch (IOException | AdapterException e) {
      log.warn("blobs that nothing refers to are left behind: {}", message(e));
    }
  }

  private boolean held(String digest) {
    synchronized (holds) {
      return holds.containsKey(digest);
    }
  }

  private void forget(String digest) {
    if (doubts.remove(digest)) {
      discard(staging.resolve(digest.substring("sha256:".length())));
    }
  }

  private @Nullable Manifest noted(String digest) {
    Manifest known = manifests.get(digest);
    if (known != null) {
      return known;
    }
    try {
      byte[] bytes =
          readSmall(staging.resolve(digest.substring("sha256:".length())), Manifest.LARGEST);
      known = Manifest.parse(bytes);
    } catch (IOException | AdapterException e) {
      known = null;
    }
    if (known == null || !known.digest().equals(digest)) {
      // Cut off as it was written, before any blob came.
      forget(digest);
      return null;
    }
    return known;
  }

  /** The digests of all blobs that something refers to. */
  private Set<String> live() throws IOException, AdapterException {
    Set<String> live = new HashSet<>();
    for (String digest : catalog().contents().keySet()) {
      addBlobs(manifest(digest), live);
    }
    Set<String> held;
    synchronized (holds) {
      held = Set.copyOf(holds.keySet());
    }
    for (String digest : held) {
      addBlobs(manifest(digest), live);
    }
    for (ObjectNode tag : current().tags()) {
      addOthers(tag, live, 0);
    }
    return live;
  }

  private static void addBlobs(Manifest manifest, Set<String> into) {
    into.add(manifest.digest());
    into.add(manifest.config().digest());
    into.add(manifest.weights().digest());
  }

  /** What another tool's descriptor leads to: all that is a descriptor in what it points to. */
  private void addOthers(JsonNode descriptor, Set<String> into, int depth)
      throws IOException, AdapterException {
    String digest = descriptor.path("digest").asText("");
    if (!Manifest.isDigest(digest) || !into.add(digest)) {
      return;
    }
    String type = descriptor.path("mediaType").asText("");
    boolean leads = type.isEmpty() || type.contains("manifest") || type.contains("index");
    if (!leads) {
      return;
    }
    if (depth > DEEPEST_INDEX) {
      throw damaged("another tool's index leads deeper than " + DEEPEST_INDEX, null);
    }
    JsonNode manifest;
    try {
      manifest = StoreIndex.JSON.readTree(readSmall(blob(digest), LARGEST_MANIFEST));
    } catch (NoSuchFileException e) {
      return;
    } catch (IOException e) {
      throw damaged("another tool's manifest %s: %s".formatted(digest, message(e)), e);
    }
    into.add(manifest.path("config").path("digest").asText(""));
    for (String member : List.of("layers", "blobs")) {
      for (JsonNode each : manifest.path(member)) {
        into.add(each.path("digest").asText(""));
      }
    }
    addOthers(manifest.path("subject"), into, depth + 1);
    for (JsonNode each : manifest.path("manifests")) {
      addOthers(each, into, depth + 1);
    }
  }

  /** The right to an adapter's content: while it is open, the content stays. */
  public final class Hold implements AutoCloseable {
    private final Content content;
    private boolean open = true;

    private Hold(Content content) {
      this.content = content;
    }

    public Content content() {
      return content;
    }

    /** Gives it back; the last one of an adapter that is in no catalog lets the content go. */
    @Override
    public void close() {
      synchronized (holds) {
        if (!open) {
          return;
        }
        open = false;
        int left = holds.merge(content.digest(), -1, Integer::sum);
        if (left > 0) {
          return;
        }
        holds.remove(content.digest());
      }
      if (!closed && !catalog().contents().containsKey(content.digest())) {
        reclaimer.execute(() -> reclaim(content.digest()));
      }
    }
  }

  private void reclaim(String digest) {
    writing.lock();
    try {
      if (!closed) {
        settle(Set.of(digest));
      }
    } finally {
      writing.unlock();
    }
  }

  /**
   * Keeps an adapter's content from going, whatever becomes of its names.
   *
   * @throws AdapterException NOT_FOUND if there is none of that digest
   */
  public Hold hold(String digest) throws AdapterException {
    synchronized (holds) {
      Content content = catalog().contents().get(digest);
      Manifest known = manifests.get(digest);
      if (content == null && holds.containsKey(digest) && known != null) {
        content = known.content();
      }
      if (content == null) {
        throw new AdapterException(
            Reason.NOT_FOUND,
            "expected an adapter in the store, got %s; list its names".formatted(quote(digest)));
      }
      holds.merge(digest, 1, Integer::sum);
      return new Hold(content);
    }
  }

  /**
   * An adapter's files. Each is compared with its digest as it is read.
   *
   * @throws AdapterException DAMAGED if its manifest is
   */
  AdapterFiles files(String digest) throws AdapterException {
    Manifest manifest = manifest(digest);
    return new AdapterFiles() {
      @Override
      public boolean has(String name) {
        return name.equals(AdapterConfig.FILE) || name.equals(Adapter.WEIGHTS);
      }

      @Override
      public OpenFile open(String name) throws AdapterException {
        Manifest.Blob blob =
            name.equals(AdapterConfig.FILE) ? manifest.config() : manifest.weights();
        try {
          SeekableByteChannel channel = openRegular(blob(blob.digest()));
          long size = channel.size();
          if (size != blob.bytes()) {
            channel.close();
            throw damaged(
                "blob %s: expected %d bytes, got %d".formatted(blob.digest(), blob.bytes(), size),
                null);
          }
          return new OpenFile(name, channel, size, blob.digest());
        } catch (IOException e) {
          throw missing(blob.digest(), e);
        }
      }
    };
  }

  /**
   * Takes in the PEFT directory {@code directory}, whose links are followed: both of its files, as
   * they are.
   *
   * @throws AdapterException if a file is missing or too large, or changes meanwhile; nothing is
   *     left behind
   */
  public Hold add(Path directory) throws AdapterException {
    AdapterDirectory source = Adapter.trusted(directory);
    Adapter.checkHasWeights(source);
    return add(source, null);
  }

  /** Takes in what {@code source} has. */
  Hold add(AdapterFiles source, @Nullable String digest) throws AdapterException {
    try (AdapterFiles.OpenFile config = source.open(AdapterConfig.FILE);
        AdapterFiles.OpenFile weights = source.open(Adapter.WEIGHTS);
        Upload upload = upload(config.size(), weights.size())) {
      ByteBuffer buffer = ByteBuffer.allocateDirect(COPIED_AT_ONCE);
      config.copy(buffer, upload::config);
      weights.copy(buffer, upload::weights);
      return upload.finish(digest);
    }
  }

  /**
   * Writes an adapter's two files to {@code directory}, which must be new or empty.
   *
   * @throws AdapterException DAMAGED if they are not what was stored; then there are none
   */
  public void export(String digest, Path directory) throws AdapterException {
    AdapterFiles source = files(digest);
    try {
      Files.createDirectories(directory);
      try (DirectoryStream<Path> entries = Files.newDirectoryStream(directory)) {
        if (entries.iterator().hasNext()) {
          throw new AdapterException(
              Reason.EXISTS,
              "%s: expected a new or empty directory, got one with files; name another"
                  .formatted(quote(directory + "")));
        }
      }
      for (String name : List.of(AdapterConfig.FILE, Adapter.WEIGHTS)) {
        try (Arena arena = Arena.ofConfined();
            AdapterFiles.OpenFile from = source.open(name);
            FileChannel to =
                FileChannel.open(
                    directory.resolve(name),
                    StandardOpenOption.CREATE_NEW,
                    StandardOpenOption.WRITE)) {
          MemorySegment bytes = from.read(Long.MAX_VALUE, arena).bytes();
          for (long at = 0; at < bytes.byteSize(); at += COPIED_AT_ONCE) {
            long count = Math.min(COPIED_AT_ONCE, bytes.byteSize() - at);
            disk.write(to, bytes.asSlice(at, count).asByteBuffer());
          }
        } catch (AdapterException e) {
          Files.deleteIfExists(directory.resolve(AdapterConfig.FILE));
          Files.deleteIfExists(directory.resolve(Adapter.WEIGHTS));
          throw e;
        }
      }
    } catch (IOException e) {
      throw new AdapterException(
          Reason.IO,
          "%s: cannot be written (%s); check its permissions and the space there"
              .formatted(quote(directory + ""), message(e)),
          e);
    }
  }

  /**
   * Begins to take an adapter in.
   *
   * @param configBytes exact size of {@code adapter_config.json}
   * @param weightBytes exact size of {@code adapter_model.safetensors}
   * @throws AdapterException TOO_LARGE if that is more than the store takes, now or ever
   */
  public Upload upload(long configBytes, long weightBytes) throws AdapterException {
    checkSize(AdapterConfig.FILE, configBytes, AdapterConfig.LARGEST_FILE);
    checkSize(Adapter.WEIGHTS, weightBytes, options.maxWeightBytes());
    long bytes = configBytes + Math.min(weightBytes, Long.MAX_VALUE - configBytes);
    writing.lock();
    try {
      checkWritable();
      if (uploads >= options.maxUploads() || bytes > options.maxUploadBytes() - uploadBytes) {
        throw new AdapterException(
            Reason.TOO_LARGE,
            "expected at most %d uploads at once, of %d bytes together, got one of %d besides %d"
                    .formatted(options.maxUploads(), options.maxUploadBytes(), bytes, uploads)
                + " of %d; try again when others have ended".formatted(uploadBytes));
      }
      long free = Files.getFileStore(root).getUsableSpace();
      if (bytes > free - uploadBytes) {
        throw new AdapterException(
            Reason.TOO_LARGE,
            "expected at most the %d bytes that are free on the store's disk, got %d besides %d"
                    .formatted(free, bytes, uploadBytes)
                + " of other uploads; make room");
      }
      Upload upload =
          new Upload(
              this, disk, staging, "upload." + files.incrementAndGet(), configBytes, weightBytes);
      uploads++;
      uploadBytes += bytes;
      return upload;
    } catch (IOException e) {
      throw failed(root, "takes no upload", e);
    } finally {
      writing.unlock();
    }
  }

  private static void checkSize(String name, long bytes, long limit) throws AdapterException {
    if (bytes < 0 || bytes > limit) {
      throw new AdapterException(
          bytes < 0 ? Reason.INVALID : Reason.TOO_LARGE,
          "%s: expected at most %d bytes, got %d".formatted(name, limit, bytes));
    }
  }

  void ended(Upload upload) {
    writing.lock();
    try {
      uploads--;
      uploadBytes -= upload.declared();
    } finally {
      writing.unlock();
    }
  }

  void remove(Path part) {
    discard(part);
  }

  /** Puts an upload's files, which are on the disk, where they belong. */
  Hold take(Manifest manifest, Path config, Path weights) throws AdapterException {
    writing.lock();
    try {
      checkWritable();
      Content content = manifest.content();
      String digest = content.digest();
      boolean taken = false;
      synchronized (holds) {
        holds.merge(digest, 1, Integer::sum);
      }
      manifests.put(digest, manifest);
      Hold hold = new Hold(content);
      try {
        doubt(manifest);
        Path part = part("manifest", manifest.bytes());
        // What lies there may be damaged: what comes anew replaces it.
        disk.move(config, blob(manifest.config().digest()));
        disk.move(weights, blob(manifest.weights().digest()));
        disk.move(part, blob(digest));
        disk.forceDirectory(blobs);
        taken = true;
        return hold;
      } finally {
        if (!taken) {
          hold.close();
        }
      }
    } catch (IOException e) {
      throw failed(root, "cannot take the adapter in", e);
    } finally {
      writing.unlock();
    }
  }

  /**
   * Removes all blobs that nothing refers to and that are older than {@code grace}: another tool
   * writes its blobs before it refers to them.
   *
   * @throws AdapterException DAMAGED if it cannot be told what is referred to; nothing is removed
   */
  public Collected collect(Duration grace) throws AdapterException {
    writing.lock();
    try {
      checkWritable();
      settle(Set.copyOf(doubts));
      Set<String> live = live();
      Instant youngest = Instant.now().minus(grace);
      int removed = 0;
      int kept = 0;
      long bytes = 0;
      try (DirectoryStream<Path> entries = Files.newDirectoryStream(blobs)) {
        for (Path entry : entries) {
          String name = entry.getFileName() + "";
          if (!isHex(name) || live.contains("sha256:" + name)) {
            continue;
          }
          BasicFileAttributes file =
              Files.readAttributes(entry, BasicFileAttributes.class, LinkOption.NOFOLLOW_LINKS);
          if (file.isDirectory() || file.lastModifiedTime().toInstant().isAfter(youngest)) {
            kept++;
            continue;
          }
          disk.delete(entry);
          removed++;
          bytes += file.size();
        }
      }
      return new Collected(removed, bytes, kept);
    } catch (IOException e) {
      throw failed(root, "cannot be collected", e);
    } finally {
      writing.unlock();
    }
  }

  /**
   * Reads everything, and compares it with its digests.
   *
   * @param adapters versions' distinct contents
   * @param blobs files that were read
   * @param bytes of those
   * @param unreferred blobs that nothing refers to; no fault
   * @param faults what is wrong, a line each
   */
  public record Verified(
      int adapters, int blobs, long bytes, int unreferred, List<String> faults) {}

  /** Reads every blob, compares it with its digest, and looks for those that are missing. */
  public Verified verify() throws AdapterException {
    return verify(Progress.NONE);
  }

  /** As {@link #verify()}, and says with which blob it is. */
  public Verified verify(Progress progress) throws AdapterException {
    try {
      Verified verified = verifyOnce(progress);
      // Where another process writes, what it deletes meanwhile is no fault.
      for (int tries = 1; lockFile == null && !verified.faults().isEmpty() && tries < 3; tries++) {
        StoreIndex now = readIndex();
        if (now.catalog().equals(catalog())) {
          break;
        }
        index = now;
        verified = verifyOnce(progress);
      }
      return verified;
    } catch (IOException e) {
      throw failed(root, "cannot be read", e);
    }
  }

  private Verified verifyOnce(Progress progress) throws IOException, AdapterException {
    List<String> faults = new ArrayList<>();
    StoreIndex onDisk = readIndex();
    if (lockFile != null && !onDisk.catalog().equals(catalog())) {
      faults.add(INDEX + ": another program has changed the catalog; the next change mends it");
    }
    Map<String, Long> sizes = new HashMap<>();
    ByteBuffer buffer = ByteBuffer.allocateDirect(COPIED_AT_ONCE);
    long bytes = 0;
    List<String> digests = new ArrayList<>();
    try (DirectoryStream<Path> entries = Files.newDirectoryStream(blobs)) {
      for (Path entry : entries) {
        String digest = "sha256:" + entry.getFileName();
        if (Manifest.isDigest(digest)) {
          digests.add(digest);
        }
      }
    }
    for (String digest : digests) {
      progress.at(sizes.size(), digests.size(), digest);
      Path blob = blobs.resolve(digest.substring("sha256:".length()));
      long size = hash(blob, digest, buffer, faults);
      sizes.put(digest, size);
      bytes += Math.max(0, size);
    }
    Map<String, Content> contents = catalog().contents();
    for (Content content : contents.values()) {
      verify(content, sizes, faults);
    }
    int unreferred = 0;
    if (faults.isEmpty()) {
      Set<String> live = live();
      for (String digest : sizes.keySet()) {
        unreferred += live.contains(digest) ? 0 : 1;
      }
    }
    return new Verified(contents.size(), sizes.size(), bytes, unreferred, List.copyOf(faults));
  }

  /** The size of a blob, or -1 if it cannot be read. */
  private long hash(Path blob, String digest, ByteBuffer buffer, List<String> faults) {
    try (SeekableByteChannel channel = openRegular(blob)) {
      MessageDigest sha = Manifest.sha256();
      long size = 0;
      for (int count = channel.read(buffer.clear());
          count >= 0;
          count = channel.read(buffer.clear())) {
        sha.update(buffer.flip());
        size += count;
      }
      String found = Manifest.digest(sha);
      if (!found.equals(digest)) {
        faults.add(
            "blob %s: its %d bytes are of the content %s; publish again what has it"
                .formatted(digest, size, found));
      }
      return size;
    } catch (NoSuchFileException e) {
      return -1;
    } catch (AdapterException e) {
      faults.add("blob %s: expected a regular file, got something else".formatted(digest));
    } catch (IOException e) {
      faults.add("blob %s: cannot be read (%s)".formatted(digest, message(e)));
    }
    return -1;
  }

  private void verify(Content content, Map<String, Long> sizes, List<String> faults) {
    Manifest manifest;
    try {
      manifests.remove(content.digest());
      manifest = manifest(content.digest());
    } catch (AdapterException e) {
      faults.add("adapter %s: its manifest is missing or damaged".formatted(content.digest()));
      return;
    }
    if (!manifest.content().equals(content)) {
      faults.add(
          "adapter %s: expected the sizes of its manifest, got %d and %d in %s"
              .formatted(content.digest(), content.configBytes(), content.weightBytes(), INDEX));
    }
    for (Manifest.Blob blob : List.of(manifest.config(), manifest.weights())) {
      long size = sizes.getOrDefault(blob.digest(), -1L);
      if (size != blob.bytes()) {
        faults.add(
            "adapter %s: expected the blob %s of %d bytes, got %s"
                .formatted(
                    content.digest(),
                    blob.digest(),
                    blob.bytes(),
                    size < 0 ? "none" : "one of " + size));
      }
    }
  }

  /** Lets others write. Holds that are open no longer keep anything. */
  @Override
  public void close() {
    writing.lock();
    try {
      if (lockFile != null && !closed) {
        unlock(root, lockFile);
      }
      closed = true;
    } catch (IOException e) {
      log.warn("the store's lock: {}", message(e));
    } finally {
      writing.unlock();
    }
  }
}
