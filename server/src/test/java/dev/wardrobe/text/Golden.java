package dev.wardrobe.text;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.URISyntaxException;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Objects;
import java.util.zip.GZIPInputStream;

/** The reference data: small cases in the test resources, larger ones in a folder beside. */
final class Golden {

  static final ObjectMapper MAPPER = new ObjectMapper();

  private Golden() {}

  /** A file or folder of the resources' {@code golden}. */
  static Path resource(String name) {
    URL url = Golden.class.getResource("/golden/" + name);
    try {
      return Path.of(Objects.requireNonNull(url, name).toURI());
    } catch (URISyntaxException e) {
      throw new IllegalStateException(e);
    }
  }

  static JsonNode json(Path file) {
    try {
      return MAPPER.readTree(file.toFile());
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** Puts a gzipped file, unpacked, into a folder. */
  static void unpack(Path gzip, Path target) throws IOException {
    try (InputStream in = new GZIPInputStream(Files.newInputStream(gzip))) {
      Files.copy(in, target);
    }
  }

  static int[] ints(JsonNode array) {
    int[] ints = new int[array.size()];
    for (int i = 0; i < ints.length; i++) {
      ints[i] = array.get(i).intValue();
    }
    return ints;
  }
}
