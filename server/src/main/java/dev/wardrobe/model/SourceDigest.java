package dev.wardrobe.model;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.BasicFileAttributes;
import java.nio.file.attribute.FileTime;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Instant;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;

/**
 * The content digest of a checkpoint's files: SHA-256 over the digests of 64 MiB pieces, which all
 * processors compute.
 *
 * <p>Reading gigabytes at each start would be most of the start. So a digest is recorded together
 * with what the file system says of each file (name, size, times of change, inode), under a name
 * made of that, and taken from there as long as nothing of it has changed.
 */
final class SourceDigest {
  private static final long PIECE = 64L << 20;
  private static final int LONGEST_RECORD = 1 << 20;

  /** Younger files might change again without a change of their times. */
  private static final long SETTLED_MILLIS = 100;

  private SourceDigest() {}

  /** The digest of {@code files}: recorded in one of the folders, or computed and recorded. */
  static String of(List<Path> files, List<Path> folders) throws IOException {
    String identity = identity(files);
    String name = "source-" + hex(sha().digest(identity.getBytes(StandardCharsets.UTF_8)), 16);
    for (Path folder : folders) {
      String digest = recorded(folder.resolve(name), identity);
      if (digest != null) {
        return digest;
      }
    }
    String digest = compute(files);
    if (identity(files).equals(identity)) {
      for (Path folder : folders) {
        if (record(folder.resolve(name), identity + digest + "\n")) {
          break;
        }
      }
    }
    return digest;
  }

  /** What the file system says of the files, a line for each; waits until they have settled. */
  private static String identity(List<Path> files) throws IOException {
    StringBuilder lines = new StringBuilder();
    for (Path file : files) {
      String line = line(file);
      lines.append(line);
    }
    return lines.toString();
  }

  private static String line(Path file) throws IOException {
    String name = file.getFileName().toString();
    @Nullable Object inode;
    FileTime changed;
    BasicFileAttributes basic = Files.readAttributes(file, BasicFileAttributes.class);
    try {
      Map<String, Object> unix = Files.readAttributes(file, "unix:ino,ctime");
      inode = unix.get("ino");
      changed = unix.get("ctime") instanceof FileTime time ? time : basic.lastModifiedTime();
    } catch (UnsupportedOperationException | IllegalArgumentException e) {
      inode = String.valueOf(basic.fileKey());
      changed = basic.lastModifiedTime();
    }
    settle(changed.toInstant());
    return "%s %d %s %s %s%n"
        .formatted(
            name, basic.size(), basic.lastModifiedTime().toInstant(), changed.toInstant(), inode);
  }

  private static void settle(Instant changed) {
    long age = Instant.now().toEpochMilli() - changed.toEpochMilli();
    if (age >= 0 && age < SETTLED_MILLIS) {
      try {
        Thread.sleep(SETTLED_MILLIS - age);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }
  }

  private static @Nullable String recorded(Path record, String identity) {
    try {
      if (!Files.isRegularFile(record) || Files.size(record) > LONGEST_RECORD) {
        return null;
      }
      String text = Files.readString(record);
      String digest = text.substring(Math.min(text.length(), identity.length())).strip();
      return text.startsWith(identity) && digest.matches("[0-9a-f]{64}") ? digest : null;
    } catch (IOException e) {
      return null;
    }
  }

  /** Whether it could be written; without, the next start reads the files again. */
  private static boolean record(Path record, String text) {
    Path folder = record.getParent();
    if (folder == null) {
      return false;
    }
    Path unfinished =
        folder.resolve(
            record.getFileName() + "." + Long.toHexString(ThreadLocalRandom.current().nextLong()));
    try {
      Files.createDirectories(folder);
      try {
        Files.writeString(unfinished, text);
        Files.move(unfinished, record, StandardCopyOption.ATOMIC_MOVE);
        return true;
      } finally {
        Files.deleteIfExists(unfinished);
      }
    } catch (IOException e) {
      return false;
    }
  }

  private static String compute(List<Path> files) throws IOException {
    MessageDigest all = sha();
    for (Path file : files) {
      byte[] name = file.getFileName().toString().getBytes(StandardCharsets.UTF_8);
      try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
        long size = channel.size();
        ByteBuffer head = ByteBuffer.allocate(name.length + 12).order(ByteOrder.LITTLE_ENDIAN);
        all.update(head.putInt(name.length).put(name).putLong(size).flip());
        for (byte[] piece : pieces(channel, size)) {
          all.update(piece);
        }
      }
    }
    return hex(all.digest(), 64);
  }

  private static byte[][] pieces(FileChannel channel, long size) throws IOException {
    byte[][] digests = new byte[Math.toIntExact(Math.ceilDiv(size, PIECE))][];
    AtomicInteger next = new AtomicInteger();
    Workers.run(
        digests.length,
        () -> {
          ByteBuffer buffer = ByteBuffer.allocateDirect(1 << 20);
          for (int i = next.getAndIncrement(); i < digests.length; i = next.getAndIncrement()) {
            digests[i] = digest(channel, i * PIECE, Math.min(size, (i + 1) * PIECE), buffer);
          }
        });
    return digests;
  }

  /** Reads rather than maps: what is mapped counts as this process's memory. */
  private static byte[] digest(FileChannel channel, long from, long to, ByteBuffer buffer)
      throws IOException {
    MessageDigest digest = sha();
    long at = from;
    while (at < to) {
      buffer.clear().limit((int) Math.min(buffer.capacity(), to - at));
      int read = channel.read(buffer, at);
      if (read < 0) {
        throw new IOException("a weight file became shorter while it was read; try again");
      }
      at += read;
      digest.update(buffer.flip());
    }
    return digest.digest();
  }

  static MessageDigest sha() {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException e) {
      throw new AssertionError("every Java platform has SHA-256", e);
    }
  }

  /** The first digits of a digest. */
  static String hex(byte[] digest, int digits) {
    return HexFormat.of().formatHex(digest).substring(0, digits);
  }
}
