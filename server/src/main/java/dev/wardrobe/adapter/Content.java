package dev.wardrobe.adapter;

/**
 * An adapter's content: what its two files hold, whatever it is called.
 *
 * @param digest the adapter's identity: the SHA-256 of its canonical manifest, {@code sha256:} and
 *     64 hexadecimal digits
 * @param configBytes size of {@code adapter_config.json}
 * @param weightBytes size of {@code adapter_model.safetensors}
 */
public record Content(String digest, long configBytes, long weightBytes) {

  public Content {
    if (!Manifest.isDigest(digest) || configBytes < 0 || weightBytes < 0) {
      throw new IllegalArgumentException(
          "content: expected a digest and sizes, got '%s', %d and %d"
              .formatted(digest, configBytes, weightBytes));
    }
  }

  /** Of both files. */
  public long bytes() {
    return configBytes + weightBytes;
  }
}
