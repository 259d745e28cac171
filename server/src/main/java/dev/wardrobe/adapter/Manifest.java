package dev.wardrobe.adapter;

import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;

/**
 * The canonical OCI image manifest of an adapter, whose SHA-256 is the adapter's identity.
 *
 * <p>It is an OCI image manifest 1.1 in compact JSON, with these keys in this order and nothing
 * else (no annotations, no timestamps, no line break at the end); digests are {@code sha256:} and
 * 64 lower-case hexadecimal digits, of the files exactly as they are:
 *
 * <pre>{@code
 * {"schemaVersion":2,
 *  "mediaType":"application/vnd.oci.image.manifest.v1+json",
 *  "artifactType":"application/vnd.wardrobe.adapter.v1",
 *  "config":{"mediaType":"application/vnd.wardrobe.adapter.config.v1+json",
 *            "digest":<of adapter_config.json>,"size":<its bytes>},
 *  "layers":[{"mediaType":"application/vnd.wardrobe.adapter.weights.v1.safetensors",
 *             "digest":<of adapter_model.safetensors>,"size":<its bytes>}]}
 * }</pre>
 *
 * (shown on several lines; the manifest has one, without spaces).
 */
final class Manifest {
  private static final int LARGEST_UPDATE = 64 << 20;

  private Manifest() {}

  /** The manifest's bytes. */
  static byte[] of(MemorySegment config, MemorySegment weights) {
    String json =
        "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\","
            + "\"artifactType\":\"application/vnd.wardrobe.adapter.v1\","
            + "\"config\":"
            + descriptor("application/vnd.wardrobe.adapter.config.v1+json", config)
            + ",\"layers\":["
            + descriptor("application/vnd.wardrobe.adapter.weights.v1.safetensors", weights)
            + "]}";
    return json.getBytes(StandardCharsets.US_ASCII);
  }

  private static String descriptor(String mediaType, MemorySegment blob) {
    return "{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%d}"
        .formatted(mediaType, digest(blob), blob.byteSize());
  }

  /** {@code sha256:} and 64 hexadecimal digits. */
  static String digest(MemorySegment blob) {
    MessageDigest sha = sha256();
    for (long at = 0; at < blob.byteSize(); at += LARGEST_UPDATE) {
      long count = Math.min(LARGEST_UPDATE, blob.byteSize() - at);
      sha.update(blob.asSlice(at, count).asByteBuffer());
    }
    return "sha256:" + HexFormat.of().formatHex(sha.digest());
  }

  private static MessageDigest sha256() {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException e) {
      throw new AssertionError("every Java has SHA-256", e);
    }
  }
}
