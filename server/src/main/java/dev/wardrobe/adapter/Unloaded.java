package dev.wardrobe.adapter;

import java.util.List;

/**
 * A name that has been forgotten.
 *
 * @param digest what it stood for
 * @param inUse requests that still use it under this name; its memory is freed after the last
 * @param aliases of the store that pointed to it
 */
public record Unloaded(String digest, int inUse, List<String> aliases) {
  Unloaded(String digest, int inUse) {
    this(digest, inUse, List.of());
  }
}
