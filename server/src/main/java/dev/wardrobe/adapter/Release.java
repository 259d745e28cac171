package dev.wardrobe.adapter;

import java.util.List;
import org.jspecify.annotations.Nullable;

/** A name of the store at one moment: its versions, its aliases, and what went to these. */
public record Release(Catalog.Entry entry, List<Alias> aliases) {
  public Release {
    aliases = List.copyOf(aliases);
  }

  /**
   * An alias.
   *
   * @param name the adapter's
   * @param answered requests by share, since it was set or the server started
   * @param shadow what came of its shadow, or null where it has none
   */
  public record Alias(
      String name,
      Catalog.Alias alias,
      List<Long> answered,
      ShadowTraffic.@Nullable Counts shadow) {}

  /** The version of a digest: the newest. */
  public String version(String digest) {
    return Releases.label(entry, digest);
  }

  /** The alias of that label. */
  public Alias alias(String label) {
    return aliases.stream()
        .filter(alias -> alias.alias().label().equals(label))
        .findFirst()
        .orElseThrow();
  }
}
