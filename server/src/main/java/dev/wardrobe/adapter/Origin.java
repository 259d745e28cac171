package dev.wardrobe.adapter;

import java.nio.file.Path;

/** Where an adapter comes from, and can come from again. */
sealed interface Origin {

  /** A checked path under the roots. */
  record Rooted(String path) implements Origin {}

  /** A directory that the operator named. */
  record Trusted(Path directory) implements Origin {}

  /** The store's content of a digest. */
  record Stored(String digest) implements Origin {}
}
