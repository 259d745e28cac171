package dev.wardrobe.adapter;

import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

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
 *
 * @param config {@code adapter_config.json}
 * @param weights {@code adapter_model.safetensors}
 */
record Manifest(Blob config, Blob weights) {
  static final String MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json";
  static final String ARTIFACT_TYPE = "application/vnd.wardrobe.adapter.v1";

  private static final int LARGEST_UPDATE = 64 << 20;
  private static final String FORMAT =
      "{\"schemaVersion\":2,\"mediaType\":\""
          + MEDIA_TYPE
          + "\",\"artifactType\":\""
          + ARTIFACT_TYPE
          + "\",\"config\":"
          + "{\"mediaType\":\"application/vnd.wardrobe.adapter.config.v1+json\",%s}"
          + ",\"layers\":["
          + "{\"mediaType\":\"application/vnd.wardrobe.adapter.weights.v1.safetensors\",%s}]}";
  private static final Pattern CANONICAL = canonical();
  private static final Pattern DIGEST = Pattern.compile("sha256:[0-9a-f]{64}");

  /** Longer than any manifest. */
  static final int LARGEST = 1024;

  /**
   * A file's content.
   *
   * @param digest {@code sha256:} and 64 hexadecimal digits
   */
  record Blob(String digest, long bytes) {
    private String descriptor() {
      return "\"digest\":\"%s\",\"size\":%d".formatted(digest, bytes);
    }
  }

  private static Pattern canonical() {
    String blob = "\"digest\":\"(sha256:[0-9a-f]{64})\",\"size\":(0|[1-9][0-9]{0,17})";
    String[] around = FORMAT.split("%s", -1);
    StringBuilder pattern = new StringBuilder(Pattern.quote(around[0]));
    for (int i = 1; i < around.length; i++) {
      pattern.append(blob).append(Pattern.quote(around[i]));
    }
    return Pattern.compile(pattern.toString());
  }

  /** The manifest that {@code bytes} are, or null if they are no canonical one. */
  static @Nullable Manifest parse(byte[] bytes) {
    if (bytes.length > LARGEST) {
      return null;
    }
    Matcher m = CANONICAL.matcher(new String(bytes, StandardCharsets.ISO_8859_1));
    return m.matches()
        ? new Manifest(
            new Blob(m.group(1), Long.parseLong(m.group(2))),
            new Blob(m.group(3), Long.parseLong(m.group(4))))
        : null;
  }

  /** The manifest's bytes. */
  byte[] bytes() {
    return FORMAT
        .formatted(config.descriptor(), weights.descriptor())
        .getBytes(StandardCharsets.US_ASCII);
  }

  /** How many bytes the manifest of {@code content} has. */
  static int bytes(Content content) {
    String digest = content.digest();
    return new Manifest(
            new Blob(digest, content.configBytes()), new Blob(digest, content.weightBytes()))
        .bytes()
        .length;
  }

  /** The adapter's identity. */
  String digest() {
    return digest(MemorySegment.ofArray(bytes()));
  }

  /** What it says of the adapter. */
  Content content() {
    return new Content(digest(), config.bytes(), weights.bytes());
  }

  /** {@code sha256:} and 64 hexadecimal digits. */
  static String digest(MemorySegment blob) {
    MessageDigest sha = sha256();
    for (long at = 0; at < blob.byteSize(); at += LARGEST_UPDATE) {
      long count = Math.min(LARGEST_UPDATE, blob.byteSize() - at);
      sha.update(blob.asSlice(at, count).asByteBuffer());
    }
    return digest(sha);
  }

  /** {@code sha256:} and 64 hexadecimal digits, of what {@code sha} was given. */
  static String digest(MessageDigest sha) {
    return "sha256:" + HexFormat.of().formatHex(sha.digest());
  }

  /** Whether {@code text} is a digest in its one form. */
  static boolean isDigest(String text) {
    return text.length() == 71 && DIGEST.matcher(text).matches();
  }

  static MessageDigest sha256() {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException e) {
      throw new AssertionError("every Java has SHA-256", e);
    }
  }
}
