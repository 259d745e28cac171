package dev.wardrobe.adapter;

import dev.wardrobe.adapter.AdapterException.Reason;
import java.io.IOException;
import java.nio.ByteBuffer;

/**
 * An adapter on its way into a server's store, in pieces or from a directory. Nothing of it is
 * seen, or kept, before {@link #finish}, nor if that fails. For one thread at a time; its methods
 * touch files.
 */
public final class Publication implements AutoCloseable {
  private static final int PIECE = 1 << 20;

  private final AdapterRegistry registry;
  private final Announcement announcement;
  private final Upload upload;
  private boolean weightsBegun;

  Publication(AdapterRegistry registry, Announcement announcement, Upload upload) {
    this.registry = registry;
    this.announcement = announcement;
    this.upload = upload;
  }

  /** Takes both files from where they are. */
  static Publication from(
      AdapterRegistry registry, AdapterStore store, Announcement announcement, AdapterFiles files)
      throws AdapterException {
    Adapter.checkHasWeights(files);
    try (AdapterFiles.OpenFile config = files.open(AdapterConfig.FILE);
        AdapterFiles.OpenFile weights = files.open(Adapter.WEIGHTS)) {
      Publication publication =
          new Publication(registry, announcement, store.upload(config.size(), weights.size()));
      boolean complete = false;
      try {
        ByteBuffer piece = ByteBuffer.allocate(PIECE);
        while (next(config, piece)) {
          publication.config(piece);
        }
        while (next(weights, piece)) {
          publication.weights(piece);
        }
        complete = true;
        return publication;
      } finally {
        if (!complete) {
          publication.close();
        }
      }
    }
  }

  private static boolean next(AdapterFiles.OpenFile file, ByteBuffer piece)
      throws AdapterException {
    try {
      piece.clear();
      int count = file.channel().read(piece);
      piece.flip();
      return count >= 0;
    } catch (IOException e) {
      throw AdapterFiles.unreadable(file.name(), e);
    }
  }

  /**
   * The next bytes of {@code adapter_config.json}.
   *
   * @throws AdapterException INVALID if that is more than was announced, or the weights have begun
   */
  public void config(ByteBuffer bytes) throws AdapterException {
    if (weightsBegun) {
      throw new AdapterException(
          Reason.INVALID,
          "expected no more of %s after %s, got %d bytes; send all of it first"
              .formatted(AdapterConfig.FILE, Adapter.WEIGHTS, bytes.remaining()));
    }
    upload.config(bytes);
  }

  /**
   * The next bytes of {@code adapter_model.safetensors}.
   *
   * @throws AdapterException INVALID if that is more than was announced
   */
  public void weights(ByteBuffer bytes) throws AdapterException {
    weightsBegun = true;
    upload.weights(bytes);
  }

  /**
   * Makes it seen, if it is complete, is what was announced, and fits the base.
   *
   * @throws AdapterException if not; nothing is left behind
   */
  public Published finish() throws AdapterException {
    try (AdapterStore.Hold hold = upload.finish(announcement.digest())) {
      return registry.publish(hold, announcement);
    } catch (AdapterException e) {
      throw e.of(announcement.name());
    }
  }

  /** Gives it up, unless it has ended. */
  @Override
  public void close() {
    upload.close();
  }
}
