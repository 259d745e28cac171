package dev.wardrobe.model;

import java.nio.file.Path;
import java.util.List;

/**
 * Where loaded weights are kept for the next start, see {@link WeightCache}.
 *
 * @param folders where they may be, the first one preferred; none switches the cache off
 * @param leastBytes size of the checkpoint from which it is worth it
 */
public record CacheOptions(List<Path> folders, long leastBytes) {
  public static final CacheOptions NONE = new CacheOptions(List.of(), 0);

  /** Smaller checkpoints are read and packed in no time. */
  public static final long WORTHWHILE = 64L << 20;

  public CacheOptions {
    folders = List.copyOf(folders);
  }
}
