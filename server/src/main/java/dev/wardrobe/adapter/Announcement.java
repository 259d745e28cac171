package dev.wardrobe.adapter;

import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A version that is to be published.
 *
 * @param name the adapter's
 * @param version null: the next number
 * @param aliases to set to it, besides latest
 * @param keepLatest leaves latest where it is, if it is anywhere
 * @param digest that the adapter must have, or null where any will do
 */
public record Announcement(
    String name,
    @Nullable String version,
    List<String> aliases,
    boolean keepLatest,
    @Nullable String digest) {
  public Announcement {
    aliases = List.copyOf(aliases);
  }

  /**
   * Checks what can be checked by itself.
   *
   * @throws AdapterException INVALID if a part of it is not what it should be
   */
  void check() throws AdapterException {
    Catalog.checkName(name);
    AdapterName.checkEnd(name);
    if (version != null) {
      Catalog.checkVersion(version);
    }
    for (String alias : aliases) {
      Catalog.checkAlias(alias);
    }
    if (digest != null && !Manifest.isDigest(digest)) {
      throw new AdapterException(
          AdapterException.Reason.INVALID,
          "digest: expected sha256: and 64 lower-case hexadecimal digits, got %s"
              .formatted(AdapterException.quote(digest)));
    }
  }
}
