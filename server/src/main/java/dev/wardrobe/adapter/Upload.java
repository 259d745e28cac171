package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterException.quote;

import dev.wardrobe.adapter.AdapterException.Reason;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.security.MessageDigest;
import org.jspecify.annotations.Nullable;

/**
 * An adapter on its way into a store. Its bytes are hashed as they are written; it comes to the
 * store whole, or leaves nothing. For one thread at a time.
 */
public final class Upload implements AutoCloseable {
  private final AdapterStore store;
  private final Disk disk;
  private final Part config;
  private final Part weights;
  private boolean ended;

  /** One of its files. */
  private static final class Part {
    final String name;
    final Path path;
    final FileChannel channel;
    final long declared;
    final MessageDigest sha = Manifest.sha256();
    long written;

    Part(String name, Path path, FileChannel channel, long declared) {
      this.name = name;
      this.path = path;
      this.channel = channel;
      this.declared = declared;
    }
  }

  Upload(
      AdapterStore store, Disk disk, Path staging, String name, long configBytes, long weightBytes)
      throws IOException {
    this.store = store;
    this.disk = disk;
    Path configPath = staging.resolve(name + ".config");
    Path weightPath = staging.resolve(name + ".weights");
    config = new Part(AdapterConfig.FILE, configPath, disk.create(configPath), configBytes);
    boolean begun = false;
    try {
      weights = new Part(Adapter.WEIGHTS, weightPath, disk.create(weightPath), weightBytes);
      begun = true;
    } finally {
      if (!begun) {
        config.channel.close();
        store.remove(configPath);
      }
    }
  }

  long declared() {
    return config.declared + weights.declared;
  }

  /**
   * Adds to {@code adapter_config.json}.
   *
   * @throws AdapterException TOO_LARGE if that is more than was declared
   */
  public void config(ByteBuffer bytes) throws AdapterException {
    add(config, bytes);
  }

  /**
   * Adds to {@code adapter_model.safetensors}.
   *
   * @throws AdapterException TOO_LARGE if that is more than was declared
   */
  public void weights(ByteBuffer bytes) throws AdapterException {
    add(weights, bytes);
  }

  private void add(Part part, ByteBuffer bytes) throws AdapterException {
    checkOpen();
    if (bytes.remaining() > part.declared - part.written) {
      throw new AdapterException(
          Reason.INVALID,
          "%s: expected the %d bytes that were declared, got at least %d; declare its size"
              .formatted(part.name, part.declared, part.written + bytes.remaining()));
    }
    part.written += bytes.remaining();
    part.sha.update(bytes.duplicate());
    try {
      disk.write(part.channel, bytes);
    } catch (IOException e) {
      throw failed(part, e);
    }
  }

  private void checkOpen() throws AdapterException {
    if (ended) {
      throw new AdapterException(Reason.INVALID, "the upload has ended; begin another");
    }
  }

  private static AdapterException failed(Part part, IOException e) {
    return new AdapterException(
        Reason.IO,
        "%s: cannot be written (%s); check the space on the store's disk"
            .formatted(part.name, AdapterException.message(e)),
        e);
  }

  /**
   * Ends it: the content is on the disk, and held until the hold is closed or a catalog has it.
   *
   * @param digest that the adapter must have, or null where any will do
   * @throws AdapterException INVALID if it is not what was declared; nothing is left behind
   */
  public AdapterStore.Hold finish(@Nullable String digest) throws AdapterException {
    checkOpen();
    try {
      Manifest manifest = new Manifest(complete(config), complete(weights));
      if (digest != null && !manifest.digest().equals(digest)) {
        throw new AdapterException(
            Reason.INVALID,
            "expected the adapter %s, got %s; it was damaged on its way, or is another"
                .formatted(quote(digest), manifest.digest()));
      }
      return store.take(manifest, config.path, weights.path);
    } finally {
      close();
    }
  }

  private Manifest.Blob complete(Part part) throws AdapterException {
    if (part.written != part.declared) {
      throw new AdapterException(
          Reason.INVALID,
          "%s: expected the %d bytes that were declared, got %d; send all of it"
              .formatted(part.name, part.declared, part.written));
    }
    try {
      disk.force(part.channel);
      part.channel.close();
    } catch (IOException e) {
      throw failed(part, e);
    }
    return new Manifest.Blob(Manifest.digest(part.sha), part.written);
  }

  /** Gives it up, unless it has ended. */
  @Override
  public void close() {
    if (ended) {
      return;
    }
    ended = true;
    for (Part part : new Part[] {config, weights}) {
      try {
        part.channel.close();
      } catch (IOException e) {
        // What was not written is not wanted.
      }
      store.remove(part.path);
    }
    store.ended(this);
  }
}
